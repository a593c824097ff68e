"""The optimism ladder: the same models under ever stricter protocols, and what each loses on the way down."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import Cache, choose_channels
from ball_features.config import FitConfig
from ball_features.errors import ConfigError
from ball_features.evaluation.intervals import share_interval
from ball_features.evaluation.left_out import group_rows, over_groups
from ball_features.evaluation.protocols import (
    ModelResult,
    Progress,
    evaluate,
    fit_notes,
    named_progress,
    require_fitted,
)
from ball_features.evaluation.rows import LadderRow, write_rows
from ball_features.evaluation.tasks import Evaluation
from ball_features.files import require_folder, write_csv, write_json
from ball_features.models.registry import select
from ball_features.reporting.joint import ladder_caption, write_ladder_report
from ball_features.reporting.provenance import command, provenance
from ball_features.reporting.words import describe_cache
from ball_features.runs.checks import check_name, check_options, complete_cache, with_numbers
from ball_features.runs.contents import failures, prediction_rows, split_rows
from ball_features.runs.new_folder import NewFolder
from ball_features.runs.rungs import Rung, make_rungs

__all__ = ["ladder"]


@dataclass(frozen=True, eq=False)
class _Climbed:
    """A rung with a result a model on it."""

    rung: Rung
    results: list[ModelResult]


def ladder(
    cache_path: Path | str,
    config: FitConfig,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str = "ladder",
    progress: Progress | None = None,
) -> tuple[Path, list[LadderRow], list[str]]:
    """Fit the models on every rung.

    Args:
        cache_path: a complete cache, made by `extract`.
        config: models, repeats of the hold-outs, seed and head. `groups` is a file made by `ball audit` or the user's
            own, and `group_column` the column that the last rung leaves out. A rung whose column the file lacks is left
            out.
        out_root: folder of the runs.
        name: name of the run's folder in it.
        progress: called with (fits done, all fits, rung and model just done); it starts over on each rung.

    Returns:
        The run's folder; a row a model and rung; and notes.

    Raises:
        CacheError: the cache is missing, incomplete or not finite.
        ConfigError: no groups file is named, or a setting has no effect.
        DataError: the groups file does not fit, or no model could be fitted.
    """
    start = time.perf_counter()
    check_name(name)
    if config.groups is None:
        raise ConfigError("The ladder needs groups, got none. Make them: `ball audit` on the images.")
    cache = choose_channels(complete_cache(Path(cache_path)), config.channels, config.combine)
    specs, notes = with_numbers(select(config.models), cache, named=bool(config.models))
    check_options(config, specs, cache)
    require_folder(out_root)
    rungs, against, said = make_rungs(config, cache)
    climbed = []
    for rung in rungs:
        evaluation = Evaluation(
            cache, tuple(specs), tuple(rung.splits), rung.config, group=against.series, center=against.center
        )
        climbed.append(_Climbed(rung, evaluate(evaluation, named_progress(progress, rung.name))))
    require_fitted([result for step in climbed for result in step.results])
    rows = [_row(step.rung, result, cache) for step in climbed for result in step.results if result.fitted]
    notes += said
    for step in climbed:
        failed = [f"{item.spec.name} failed: {item.failure}" for item in step.results if item.failure]
        notes += [f"{step.rung.name}: {note}" for note in [*fit_notes(step.results), *failed]]
    details: dict[str, Any] = {
        "title": f"Optimism ladder · {describe_cache(cache)}",
        "caption": ladder_caption([rung.name for rung in rungs]),
        "notes": notes,
        "failures": [{"rung": step.rung.name} | item for step in climbed for item in failures(step.results)],
        "rungs": [{"rung": rung.name, "protocol": rung.config.protocol, "column": rung.column} for rung in rungs],
    }
    details |= provenance(
        cache,
        config,
        source=str(cache_path),
        start=start,
        repeats=range(config.repeats),
        again=command("fit", str(cache_path), config, protocol="ladder"),
        groups_sha256=against.sha256,
    )
    with NewFolder(Path(out_root), name) as new:
        _write(new.path, rows, climbed, cache, details)
    try:
        write_ladder_report(new.path)
    except Exception as error:  # hours of work lie in the folder; no error of a page is worth them
        notes.append(f"report.html could not be written ({type(error).__name__}: {error}). The run is complete.")
    return new.path, rows, notes


def _write(folder: Path, rows: list[LadderRow], climbed: list[_Climbed], cache: Cache, details: dict[str, Any]) -> None:
    write_rows(folder / "ladder.csv", rows)
    header = ("rung", "path", "label", "group", "repeat", "split", "fold", "unit")
    lines = (
        (step.rung.name, *row)
        for step in climbed
        for row in split_rows(cache, step.rung.splits, step.rung.group, step.rung.units)
    )
    write_csv(folder / "splits.csv", header, lines)
    classes = details["classes"]
    header = ("rung", "model", "repeat", "fold", "path", "label", "predicted", *(f"p_{name}" for name in classes))
    lines = ((step.rung.name, *row) for step in climbed for row in prediction_rows(cache, step.results, classes))
    write_csv(folder / "predictions.csv", header, lines)
    write_json(folder / "run.json", details)


def _row(rung: Rung, result: ModelResult, cache: Cache) -> LadderRow:
    codes = np.unique(cache.label, return_inverse=True)[1]
    tested = np.concatenate([item.split.test for item in result.fitted])
    hit = np.concatenate([item.probability.argmax(1) == codes[item.split.test] for item in result.fitted]).astype(float)
    low, high = share_interval(hit, rung.units[tested], images=len(np.unique(tested)))
    groups = over_groups(group_rows(cache, [result], rung.units), result.spec.name)
    recalls = [item.recall for item in groups]
    return LadderRow(
        rung=rung.name,
        model=result.spec.name,
        kind=result.spec.kind,
        accuracy=float(hit.mean()),
        accuracy_low=low,
        accuracy_high=high,
        mean_recall=float(np.mean(recalls)) if recalls else None,
        worst_recall=min(recalls) if recalls else None,
    )
