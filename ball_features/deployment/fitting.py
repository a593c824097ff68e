"""`fit` that can save: a run and, in it, bundles for `predict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.reporting.run import Run, Saver
from ball_features.reporting.run import fit as fit_and_report

if TYPE_CHECKING:
    from ball_features.config import FitConfig

__all__ = ["fit"]


def fit(
    cache_path: Path | str,
    config: FitConfig | None = None,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    compat_batch_metrics: bool = False,
    save: str = "",
    saver: Saver | None = None,
    notes: Sequence[str] = (),
    progress: Callable[..., None] | None = None,
) -> Run:
    """Compare models on a cache under one protocol.

    Args:
        cache_path: Made by `extract`, complete.
        config: Protocol, models, head; the defaults if None.
        out_root: Folder of the runs.
        name: The run's folder in it; protocol and time if None. A name that is taken gets a number.
        compat_batch_metrics: Add the student report's own arithmetic as one more table.
        save: Models to bundle for `predict` (`Run.bundles` tells where): a name, "all" (of those on embeddings), or
            "best": the first, or robust-views where it cannot be told from that. A bundle is the first split's model,
            fitted on its training images only (64 % of all by default); under leave-group-out it lacks the first group.
        saver: Called with (folder of models, cache, configuration, fitted model, its name) for each of them; None is
            `deployment.bundle.bundle_fitted`.
        notes: To begin the run's notes with.
        progress: Called with (fits done, fits in all, model just done).

    Raises:
        CacheError: The cache is missing, incomplete or not finite.
        ConfigError: A model is unknown.
        DataError: The groups file does not fit.
        SplitError: The protocol cannot be carried out on these classes.
    """
    from ball_features.deployment.bundle import bundle_fitted

    return fit_and_report(
        cache_path,
        config,
        out_root=out_root,
        name=name,
        compat_batch_metrics=compat_batch_metrics,
        save=save,
        saver=saver or bundle_fitted,
        notes=notes,
        progress=progress,
    )
