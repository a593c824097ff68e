"""The optimism ladder: the same models under ever stricter protocols, and what each loses on the way down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.cache import Cache, choose_channels
from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping, read_grouping
from ball_features.dataset.splits import ImageTable, Split, make_splits
from ball_features.dataset.units import merge_units
from ball_features.errors import ConfigError, DataError, SplitError
from ball_features.evaluation.protocols import ModelResult, evaluate, fit_notes, named_progress
from ball_features.evaluation.tasks import Evaluation
from ball_features.evaluation.uncertainty import share_interval
from ball_features.files import place_folder, require_folder, write_csv, write_json
from ball_features.models.registry import select
from ball_features.reporting.groups import group_rows, over_groups
from ball_features.reporting.joint import column_left_out, ladder_caption, write_ladder_report
from ball_features.reporting.provenance import command, provenance
from ball_features.reporting.words import describe_cache, failed, require_fitted
from ball_features.runs.checks import check_name, check_options, complete_cache, split_by, with_numbers
from ball_features.runs.contents import prediction_rows, split_rows

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["RUNGS", "ladder", "render_ladder"]

# Rung -> (protocol, column of the groups file that stays together, or "" for copies only, None for nothing). The last
# leaves out another column where the user names one, and is then called after it.
RUNGS: dict[str, tuple[str, str | None]] = {
    "random": ("holdout", None),
    "copies together": ("holdout", ""),
    "groups": ("group-cv", "group"),
    "blocks": ("block-cv", "block"),
    "series left out": ("leave-group-out", "series"),
}
_LAST = list(RUNGS)[-1]
_MOST_GROUPS = 100  # left out one by one where nobody asked for that column


@dataclass(frozen=True, eq=False)
class _Rung:
    """A rung that can be climbed: `group` is what it keeps together, `units` what counts once in its intervals."""

    name: str
    config: FitConfig
    column: str
    splits: list[Split]
    group: np.ndarray
    units: np.ndarray


def ladder(
    cache_path: Path | str,
    config: FitConfig,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str = "ladder",
    progress: Callable[..., None] | None = None,
) -> tuple[Path, list[dict[str, Any]], list[str]]:
    """Climb down.

    Args:
        cache_path: Made by `extract`, complete.
        config: Models, repeats of the hold-outs, seed, head; `groups` is a file made by `ball audit` or the user's own,
            `group_column` what the last rung leaves out. A rung whose column the file lacks is left out.
        out_root: Folder of the runs.
        name: The run's folder in it.
        progress: Called with (fits done, fits in all, rung and model just done), from the start on each rung.

    Returns:
        The run's folder; a row a model and rung with `accuracy`, its 95 % interval by the scatter of what the
        rung keeps together, `mean_recall` and `worst_recall` over the groups left out; and notes.

    Raises:
        ConfigError: No groups file is named.
        BallError: As `runs.store.fit`.
    """
    start = time.perf_counter()
    check_name(name)
    if config.groups is None:
        raise ConfigError("The ladder needs groups, got none. Make them: ball audit IMAGES --out groups.csv")
    cache = choose_channels(complete_cache(Path(cache_path)), config.channels, config.combine)
    specs, notes = with_numbers(select(config.models), cache, named=bool(config.models))
    check_options(config, specs, cache)
    require_folder(out_root)
    rungs, against, said = _rungs(config, cache)
    notes += said
    rows: list[dict[str, Any]] = []
    found: list[tuple[_Rung, list[ModelResult]]] = []
    failures: list[dict[str, str]] = []
    for rung in rungs:
        evaluation = Evaluation(
            cache, tuple(specs), tuple(rung.splits), rung.config, group=against.series, center=against.center
        )
        results = evaluate(evaluation, named_progress(progress, rung.name))
        found.append((rung, results))
        rows += [{"rung": rung.name} | _row(cache, result, rung.units) for result in results if result.fitted]
        notes += [f"{rung.name}: {note}" for note in fit_notes(results)]
        notes += [f"{rung.name}: {item.spec.name} failed: {item.failure}" for item in results if item.failure]
        failures += [{"rung": rung.name} | item for item in failed(results)]
    require_fitted([result for _, results in found for result in results])
    values: dict[str, Any] = {
        "title": f"Optimism ladder · {describe_cache(cache)}",
        "caption": ladder_caption([rung.name for rung in rungs]),
        "notes": notes,
        "failures": failures,
        "rungs": [{"rung": rung.name, "protocol": rung.config.protocol, "column": rung.column} for rung in rungs],
    }
    again = command("fit", str(cache_path), config, protocol="ladder")
    values |= provenance(
        cache,
        config,
        source=str(cache_path),
        start=start,
        repeats=range(config.repeats),
        again=again,
        groups_sha256=against.sha256,
    )

    def write(folder: Path) -> None:
        write_csv(folder / "ladder.csv", list(rows[0]), ([row[key] for key in rows[0]] for row in rows))
        header = ("rung", "path", "label", "group", "repeat", "split", "fold", "unit")
        lines = ((rung.name, *row) for rung in rungs for row in split_rows(cache, rung.splits, rung.group, rung.units))
        write_csv(folder / "splits.csv", header, lines)
        classes = values["classes"]
        header = ("rung", "model", "repeat", "fold", "path", "label", "predicted", *(f"p_{key}" for key in classes))
        lines = ((rung.name, *row) for rung, results in found for row in prediction_rows(cache, results, classes))
        write_csv(folder / "predictions.csv", header, lines)
        write_json(folder / "run.json", values)
        write_ladder_report(folder)

    return place_folder(Path(out_root), name, write), rows, notes


def _rungs(config: FitConfig, cache: Cache) -> tuple[list[_Rung], Grouping, list[str]]:
    """The rungs that can be made, what models are trained against on all of them, and notes on the others."""
    groupings: dict[str, Grouping] = {}
    missing: dict[str, str] = {}
    for rung, (protocol, column) in RUNGS.items():
        if not column:
            continue
        own = replace(config, protocol=protocol, group_column=config.group_column if rung == _LAST else column)
        try:
            groupings[rung] = _known(read_grouping(own, cache.path, cache.label))
        except DataError as error:
            if rung == _LAST and config.group_column != "auto":  # what was asked for by name is not left out
                raise
            missing[rung] = str(error)
    if not groupings:
        raise DataError(f"{next(iter(missing.values()))} Or name a column of yours for the last rung: --group-column.")
    against = groupings[_LAST] if _LAST in groupings else next(iter(groupings.values()))
    rungs, notes = [], []
    for rung, (protocol, column) in RUNGS.items():
        if rung in missing:
            notes.append(f"{rung}: {missing[rung]}")
            continue
        name = f"{groupings[rung].column} left out" if rung == _LAST else rung
        own = replace(config, protocol=protocol, repeats=config.repeats if protocol == "holdout" else 1)
        try:
            if column:
                grouping, units = groupings[rung], groupings[rung].units(protocol, cache.sha256)
                _require_few(config, grouping, rung)
                splits, said = split_by(own, cache, grouping)
                notes += [f"{name}: {note}" for note in said]
                rungs.append(_Rung(name, own, grouping.column, splits, grouping.group, units))
                continue
            splits, _ = make_splits(own, ImageTable(cache.path, cache.label, cache.path))
            units = merge_units(cache.path if column is None else cache.sha256)
            splits = splits if column is None else _joined(splits, units, cache.path)
            rungs.append(_Rung(name, own, "", splits, units, units))
        except SplitError as error:
            notes.append(f"{name}: {error}")
    return rungs, against, notes


def _known(grouping: Grouping | None) -> Grouping:
    assert grouping is not None  # a groups file was named
    return grouping


def _require_few(config: FitConfig, grouping: Grouping, rung: str) -> None:
    """Raise `SplitError` where a file without series would have its groups left out by the hundred."""
    count = len(np.unique(grouping.group))
    if rung == _LAST and config.group_column == "auto" and grouping.column != "series" and count > _MOST_GROUPS:
        raise SplitError(
            f"{config.groups} has no column series, and {count} groups, expected at most {_MOST_GROUPS} to leave out "
            f"one by one. Name a column: --group-column {grouping.column}, or one with larger groups."
        )


def _joined(splits: Sequence[Split], units: np.ndarray, path: np.ndarray) -> list[Split]:
    """The same draws, each copy moved to the side of the first of its kind: the two rungs differ by copies alone."""
    order = np.argsort(path)  # so that the result does not depend on the order of rows
    _, first, code = np.unique(units[order], return_index=True, return_inverse=True)
    leader = np.empty_like(order)
    leader[order] = order[first][code]
    joined = []
    for split in splits:
        part = np.zeros(len(path), dtype=int)
        part[split.val], part[split.test] = 1, 2
        parts = [np.flatnonzero(part[leader] == side) for side in range(3)]
        if not all(len(rows) for rows in parts):
            raise SplitError("Too few images are left to test once copies are put together. Add images.")
        joined.append(Split(split.repeat, split.fold, parts[0], parts[1], parts[2]))
    return joined


def _row(cache: Cache, result: ModelResult, units: np.ndarray) -> dict[str, Any]:
    codes = np.unique(cache.label, return_inverse=True)[1]
    where = np.concatenate([item.split.test for item in result.fitted])
    hit = np.concatenate([item.probability.argmax(1) == codes[item.split.test] for item in result.fitted]).astype(float)
    low, high = share_interval(hit, units[where], images=len(np.unique(where)))
    row: dict[str, Any] = {"model": result.spec.name, "kind": result.spec.kind, "accuracy": float(hit.mean())}
    row |= {"accuracy_low": low, "accuracy_high": high, "mean_recall": None, "worst_recall": None}
    groups = over_groups(group_rows(cache, [result], units), result.spec.name)
    if groups:
        recalls = [item["recall"] for item in groups]
        row |= {"mean_recall": float(np.mean(recalls)), "worst_recall": min(recalls)}
    return row


def render_ladder(rows: list[dict[str, Any]]) -> RenderableType:
    """Models as rows, rungs as columns, accuracy with its interval, and the drop from first to last."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rungs = list(dict.fromkeys(row["rung"] for row in rows))
    first, last = rungs[0], rungs[-1]
    column = column_left_out(rungs)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Optimism ladder: accuracy in %", title_justify="left")
    headings: list[str] = ["model", "kind", *rungs, *([f"worst {column}"] if column else []), "drop"]
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right")
    by_model: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], {})[row["rung"]] = row
    for name, own in sorted(by_model.items(), key=lambda item: -item[1].get(last, {"accuracy": 0})["accuracy"]):
        cells = []
        for rung in rungs:
            row = own.get(rung)
            interval = f"{100 * row['accuracy_low']:.0f}-{100 * row['accuracy_high']:.0f}" if row else ""
            cells.append(f"{100 * row['accuracy']:.1f}\n{interval}" if row else "n/a")
        if column:
            cells.append(f"{100 * own[last]['worst_recall']:.1f}" if last in own else "n/a")
        ends = [own.get(rung) for rung in (first, last)]
        cells.append(f"{100 * (ends[0]['accuracy'] - ends[1]['accuracy']):.1f}" if ends[0] and ends[1] else "n/a")
        kind = next(iter(own.values()))["kind"]
        table.add_row(name, kind, *cells, style={"head": "bold", "shortcut": "yellow"}.get(kind))
    caption = (
        "Below each figure its 95 % interval, by the scatter of the groups that a rung keeps together. Sorted by the "
        "last rung. "
    )
    return Group(table, Text(caption + ladder_caption(rungs), style="dim"))
