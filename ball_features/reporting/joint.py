"""One page of several runs: their settings and models side by side, then each run."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ball_features.cache import Cache
from ball_features.config.paths import shareable_text
from ball_features.errors import DataError
from ball_features.evaluation.across_runs import Standing
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.results import ModelRow
from ball_features.evaluation.stored_results import read_measurement, told_as_damage
from ball_features.reporting.curve_page import curve_section, is_curve, write_curve_report
from ball_features.reporting.ladder_page import is_ladder, ladder_section
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails, write_page
from ball_features.reporting.page import run_section, tell_of_pictures
from ball_features.reporting.run_list import RunSummary, differing, natural_key, read_summary, shortened
from ball_features.reporting.run_tests import choice_of_runs, comparable_runs

__all__ = ["has_own_page", "write_joint_report", "write_ladder_report", "write_own_report"]

_UNKNOWN = Cell("", -1.0)
_NOT_TESTED = Cell("", 2.0)


@dataclass(frozen=True)
class SideBySide:
    """Several runs: a table of the runs, a table of their models, and what can be compared."""

    notes: list[str]
    runs: Table
    models: Table | None


def has_own_page(folder: Path) -> bool:
    """Whether a run's folder holds a ladder or a learning curve, whose page is not that of a comparison."""
    return is_ladder(folder) or is_curve(folder)


def write_own_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a ladder or of a learning curve.

    Raises:
        DataError: The folder holds neither, or the page cannot be written.
    """
    return write_curve_report(folder) if is_curve(folder) else write_ladder_report(folder)


def write_ladder_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a ladder.

    Raises:
        DataError: The folder holds no ladder, or the page cannot be written.
    """
    with told_as_damage(folder):
        part = ladder_section(folder)
        context = {"sections": [part], "side_by_side": None}
        return write_page(folder / "report.html", "report.html", "Optimism ladder", named=False, **context)


def write_joint_report(
    folders: Sequence[Path],
    out: Path,
    caches: Sequence[Cache | None],
    thumbnails: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write one page of several runs, in natural order of their names, side by side first.

    Args:
        folders: folders that `ball fit` wrote; ladders and learning curves too.
        out: file to write.
        caches: cache of each run, or None.
        thumbnails: folder of the images, as `write_report` takes it.
        tell: called with each note on the pictures, as `write_report` calls it.

    Raises:
        DataError: A folder holds no run, or the page cannot be written.
    """
    pictures = Thumbnails(thumbnails)
    order = sorted(range(len(folders)), key=lambda number: natural_key(str(folders[number])))
    sections = [_section(folders[number], caches[number], pictures, place) for place, number in enumerate(order)]
    runs = _named([folders[number] for number in order])
    with told_as_damage(*folders):
        write_page(out, "report.html", f"{len(folders)} runs", sections=sections, side_by_side=_side_by_side(runs))
    tell_of_pictures(sections, tell)
    return out


def _section(folder: Path, cache: Cache | None, pictures: Thumbnails, place: int) -> Any:
    with told_as_damage(folder):
        if has_own_page(folder):
            return curve_section(folder) if is_curve(folder) else ladder_section(folder)
        return run_section(folder, cache, pictures, place)


def _named(folders: Sequence[Path]) -> list[RunSummary]:
    """The runs, each under a name of its own: that of its folder, or its path where two folders share a name."""
    distinct = list(dict.fromkeys(folder.resolve() for folder in folders))
    count = Counter(folder.name for folder in distinct)
    found = []
    for folder in distinct:
        with contextlib.suppress(DataError):  # a ladder of an older version, which has a section and no row
            name = folder.name if count[folder.name] == 1 else shareable_text(str(folder))
            found.append(replace(read_summary(folder), name=name))
    return found


def _side_by_side(runs: Sequence[RunSummary]) -> SideBySide:
    names = differing(runs)
    models = {run.name: read_measurement(run.folder).models for run in runs if not has_own_page(run.folder)}
    groups = comparable_runs([(run.name, run.folder) for run in runs])
    tested = {(own.run, own.model): own for group in groups for own in group.standings}
    notes = choice_of_runs(groups, len(runs))
    if any(models.values()):
        notes.append(
            "Accuracy in % with its 95 % interval. Behind the best: 95 % interval, in points, of the accuracy that the "
            "best model of all runs on the same test images has more; p: paired permutation test over units, "
            "Holm-corrected over all these models. An empty cell was not tested: another run's test images, or a "
            "shortcut."
        )
    if not names:
        notes.append("The settings of these runs do not differ.")
    return SideBySide(notes, _runs_table(runs, names), _models_table(runs, models, names, tested))


def _runs_table(runs: Sequence[RunSummary], names: Sequence[str]) -> Table:
    """A row a run: its best model, and the settings that are not the same in all; accuracies first, for a phone."""
    columns: dict[str, list[Cell]] = {
        "run": [Cell(run.name) for run in runs],
        "accuracy": [_accuracy(run.accuracy, run.low, run.high) for run in runs],
        "best model": [Cell(run.model) for run in runs],
        **{name: [_setting(run, name) for run in runs] for name in names},
        "protocol": [Cell(run.protocol) for run in runs],
        "data": [Cell(run.data) for run in runs],
        "note": [Cell(run.note) for run in runs],
        "date": [Cell(run.created[:16].replace("T", " ")) for run in runs],
    }
    columns = {name: cells for name, cells in columns.items() if any(cell.text for cell in cells)}
    rows = [Row(cells) for cells in zip(*columns.values(), strict=True)]
    return Table(tuple(columns), tuple(rows), "Runs side by side", 1)


def _models_table(
    runs: Sequence[RunSummary],
    models: Mapping[str, Sequence[ModelRow]],
    names: Sequence[str],
    tested: Mapping[tuple[str, str], Standing],
) -> Table | None:
    """A row a model of a run, with the settings of the run that are not the same in all."""
    shown = [name for name in names if name != "models"]
    rows = []
    for run in runs:
        for row in models.get(run.name, ()):
            ends = row.intervals.get("accuracy", (float("nan"), float("nan")))
            cells = [Cell(f"{run.name} {row.model}"), _accuracy(row.accuracy, *ends)]
            cells += [*_against_best(tested.get((run.name, row.model))), *(_setting(run, name) for name in shown)]
            rows.append(Row((*cells, Cell(row.kind)), row.kind))
    header = ("run, model", "accuracy", "behind the best", "p", *shown, "kind")
    return Table(header, tuple(rows), "Models of all runs", 1) if rows else None


def _setting(run: RunSummary, name: str) -> Cell:
    text = run.settings.get(name, "")
    try:
        return Cell(text, float(text))
    except ValueError:
        return Cell(shortened(text))


def _accuracy(value: float, low: float, high: float) -> Cell:
    metric = METRICS["accuracy"]
    return Cell(f"{metric.text(value)} ({metric.interval_text((low, high), 1)})", value) if value == value else _UNKNOWN


def _against_best(own: Standing | None) -> tuple[Cell, Cell]:
    if own is None:
        return _UNKNOWN, _NOT_TESTED
    if own.behind == (0.0, 0.0) and own.p == 1.0:
        return Cell("best", 0.0), Cell("", 1.0)
    low, high = own.behind
    return Cell(f"{100 * low:.1f} - {100 * high:.1f}", low), Cell(f"{own.p:.3f}", own.p)
