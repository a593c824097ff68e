"""`ball tune`: settings of the head chosen on validation images, then tested once beside the student report's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.cache import choose_channels
from ball_features.config import FitConfig
from ball_features.dataset.grouping import read_grouping
from ball_features.errors import ConfigError
from ball_features.evaluation.protocols import evaluate, fit_notes
from ball_features.evaluation.search import Trial, draw_trials, search
from ball_features.evaluation.tasks import Evaluation
from ball_features.evaluation.views import fixed_views
from ball_features.files import require_folder, write_csv
from ball_features.models.registry import select
from ball_features.reporting.provenance import command
from ball_features.reporting.words import describe_cache
from ball_features.runs.checks import check_name, complete_cache, split_by
from ball_features.runs.store import Run, store

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["render_trials", "tune"]

_COLUMNS = (
    "rank", "val_loss", "val_accuracy", "epochs", "best_epoch", "hidden", "learning_rate", "l2", "dropout",
    "batch_size", "clip_norm", "class_weight", "train_views", "test_views",
)  # fmt: skip
_SHOWN = 10


def tune(
    cache_path: Path | str,
    config: FitConfig,
    *,
    trials: int = 27,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    progress: Callable[..., None] | None = None,
) -> tuple[Run, list[dict[str, Any]]]:
    """Search the head's settings on one hold-out split.

    Training images train, validation images choose, and the test images see two heads: the chosen one
    ("mlp-tuned") and the student report's ("mlp"), beside a linear model and shortcuts. Only one split is used, since
    the validation images of one are test images of another.

    Args:
        cache_path: Made by `extract`, complete.
        config: Sizes of the split, seed, groups, channels, epochs of a full training (of `head`), processes.
        trials: Settings to try.
        out_root: Folder of the runs.
        name: The run's folder in it.
        progress: Called with (trainings done, trainings in all, "").

    Returns:
        The run, and a row a trial: the columns of `trials.csv`.

    Raises:
        ConfigError: Another protocol than a hold-out, or centring.
        BallError: As `runs.store.fit`.
    """
    start = time.perf_counter()
    again = command("tune", str(cache_path), config, trials=trials)
    check_name(name)
    if config.protocol != "holdout":
        raise ConfigError(f"Got the protocol {config.protocol}, expected holdout: folds would test what chose.")
    if config.center:
        raise ConfigError(f"Got --center {config.center}, which the search does not heed. Leave it out.")
    config = replace(config, repeats=1)
    cache = choose_channels(complete_cache(Path(cache_path)), config.channels, config.combine)
    grouping = read_grouping(config, cache.path, cache.label)
    splits, notes = split_by(config, cache, grouping)
    codes = np.unique(cache.label, return_inverse=True)[1]
    require_folder(out_root)
    # Fixed views are other pictures, which a head has no use for beside the plain one.
    drawn = draw_trials(trials, config.seed, config.head.epochs, 1 if fixed_views(cache) else len(cache.view))
    found = search(cache.embeddings, codes, splits[0], drawn, seed=config.seed, jobs=config.jobs, progress=progress)
    cache.require_unchanged()
    search_s = time.perf_counter() - start
    best = found[0]
    tuned = replace(config, head=best.head, train_views=best.views[0], test_views=best.views[1], models=("mlp",))
    (own,) = evaluate(Evaluation(cache, tuple(select(["mlp"])), tuple(splits), tuned))
    others = [
        spec for spec in select(["mlp", "logistic", "colour"]) if spec.features in ("embedding", *cache.shortcuts)
    ]
    compared = evaluate(Evaluation(cache, tuple(others), tuple(splits), config))
    results = [replace(own, spec=replace(own.spec, name="mlp-tuned")), *compared]
    notes += fit_notes(results)
    rows = [_row(number, trial) for number, trial in enumerate(found, 1)]
    # One hold-out, this one: in another, images that chose the settings would test them.
    use = command("fit", str(cache_path), tuned)
    notes = [
        f"mlp-tuned is the best of {len(found)} settings by validation log loss, {best.val_loss:.4f} after epoch "
        f"{best.best_epoch}; those of the student report reached {_default_loss(found, drawn[0]):.4f}. Found in "
        f"{search_s:.1f} s.",
        f"To use it: {use}",
        *notes,
    ]

    def more(folder: Path, _: list[dict[str, Any]]) -> None:
        write_csv(folder / "trials.csv", _COLUMNS, ([row[key] for key in _COLUMNS] for row in rows))
        values = {"head": best.head.to_dict(), "train_views": best.views[0], "test_views": best.views[1]}
        (folder / "best.json").write_text(json.dumps(values | {"command": use}, indent=1) + "\n", encoding="utf-8")

    run = store(
        cache,
        results,
        splits,
        tuned,
        grouping=grouping,
        notes=notes,
        source=str(cache_path),
        again=again,
        what=describe_cache(cache),
        start=start,
        out_root=out_root,
        name=name or f"tune-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}",
        page_cache=cache,
        more=more,
    )
    return run, rows


def _default_loss(found: Sequence[Trial], first: Trial) -> float:
    return next(trial.val_loss for trial in found if (trial.head, trial.views) == (first.head, first.views))


def _row(number: int, trial: Trial) -> dict[str, Any]:
    head = trial.head.to_dict()
    values = {key: head[key] for key in _COLUMNS if key in head and key != "epochs"}
    values |= {"hidden": ",".join(map(str, trial.head.hidden)), "class_weight": trial.head.class_weight or "none"}
    values |= {"rank": number, "train_views": trial.views[0], "test_views": trial.views[1]}
    return values | {key: getattr(trial, key) for key in ("val_loss", "val_accuracy", "epochs", "best_epoch")}


def render_trials(rows: Sequence[dict[str, Any]]) -> RenderableType:
    """The best trials for a terminal."""
    from rich import box
    from rich.table import Table

    title = f"The best {min(_SHOWN, len(rows))} of {len(rows)} settings, by validation log loss"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    shown = [key for key in _COLUMNS if not key.endswith("views") or len({row[key] for row in rows}) > 1]
    for key in shown:
        table.add_column(key.replace("_", " "), justify="right")
    forms = {"val_loss": ".4f", "val_accuracy": ".4f", "learning_rate": ".2g", "l2": ".2g"}
    for row in rows[:_SHOWN]:
        table.add_row(*(format(row[key], forms.get(key, "")) for key in shown))
    return table
