"""`ball fit`: compare models on a cache under one protocol; save some of them as bundles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ball_features.bundles.saving import bundle_fitted
from ball_features.cache import choose_channels
from ball_features.config import FitConfig
from ball_features.dataset.grouping import read_grouping
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.protocols import evaluate, fit_notes
from ball_features.evaluation.tasks import Evaluation, obstacles
from ball_features.files import require_folder
from ball_features.models.registry import MODELS, select
from ball_features.reporting.provenance import command
from ball_features.reporting.words import describe_cache
from ball_features.runs.checks import (
    check_name,
    check_options,
    check_protocol,
    complete_cache,
    require_savable,
    split_by,
    with_numbers,
)
from ball_features.runs.store import Run, store

__all__ = ["fit"]


def fit(
    cache_path: Path | str,
    config: FitConfig | None = None,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    compat_batch_metrics: bool = False,
    save: str = "",
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
        notes: To begin the run's notes with.
        progress: Called with (fits done, fits in all, model just done).

    Raises:
        CacheError: The cache is missing, incomplete or not finite.
        ConfigError: A model is unknown, or one that is to be saved cannot be fitted.
        DataError: The groups file does not fit, or no model that is to be saved could be fitted.
        SplitError: The protocol cannot be carried out on these classes.
    """
    start = time.perf_counter()
    config = config or FitConfig()
    specs = select(config.models)
    check_name(name)
    check_protocol(config)
    cache = choose_channels(complete_cache(Path(cache_path)), config.channels, config.combine)
    specs, lacking = with_numbers(specs, cache, named=bool(config.models))
    check_options(config, specs, cache, save)
    grouping = read_grouping(config, cache.path, cache.label)
    splits, said = split_by(config, cache, grouping)
    if grouping is None and any(spec.groups and spec.kind != "head" for spec in specs):
        said = [
            *said,
            "Without --groups the robust models know no series to be trained against; `ball audit` infers them.",
        ]
    said = [*notes, *lacking, *said]
    saved = require_savable(save, [spec.name for spec in specs if spec.kind != "shortcut"])
    kept = [spec.name for spec in specs if spec.kind == "head" or spec.name in saved]
    against = {} if grouping is None else {"group": grouping.series, "center": grouping.center}
    require_folder(out_root)
    evaluation = Evaluation(cache, tuple(specs), tuple(splits), config, keep=tuple(kept), **against)
    blocked = obstacles(evaluation)
    if save in blocked:
        raise ConfigError(f"The model {save} cannot be saved, since it cannot be fitted: {blocked[save]}")
    results = evaluate(evaluation, progress)
    said = [*said, *fit_notes(results)]

    def more(folder: Path, rows: list[dict[str, Any]]) -> None:
        best = _best([row for row in rows if row["model"] in saved])
        for result in results:
            if result.fitted and result.spec.name in ([best] if save == "best" else saved):
                bundle_fitted(folder / "models", cache, config, result.fitted[0], result.spec.name)

    run = store(
        cache,
        results,
        splits,
        config,
        grouping=grouping,
        notes=said,
        source=str(cache_path),
        again=command("fit", str(cache_path), config, compat_batch_metrics=compat_batch_metrics, save=save),
        what=describe_cache(cache),
        start=start,
        out_root=out_root,
        name=name,
        compat_batch_metrics=compat_batch_metrics,
        page_cache=cache,
        more=more,
    )
    if save and not run.bundles:
        reasons = [f"{result.spec.name}: {result.failure}" for result in results if result.spec.name in saved]
        raise DataError(f"The run is in {run.folder}, but it has no model to save. {' '.join(reasons)}")
    return run


def _best(rows: Sequence[dict[str, Any]]) -> str | None:
    """The first model, or robust-views where it cannot be told from the best: it is made for images of other series.

    Which of several equals comes first on these test images says nothing; choosing by it would be choosing on them.
    """
    equals = [row["model"] for row in rows if row["ties_best"] and MODELS[row["model"]].by_view]
    return next(iter([*equals, *(row["model"] for row in rows)]), None)
