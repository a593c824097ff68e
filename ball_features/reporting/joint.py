"""One page of several runs: their models side by side, the optimism ladder, then each run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.cache import Cache
from ball_features.errors import DataError
from ball_features.reporting.charts import Chart
from ball_features.reporting.figures import lines
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails, write_page
from ball_features.reporting.page import run_section
from ball_features.reporting.provenance import Provenance, provenance_block
from ball_features.reporting.stored_run import read_table
from ball_features.reporting.tables import SAME_MARK

__all__ = ["column_left_out", "is_ladder", "ladder_caption", "write_joint_report", "write_ladder_report"]

_LEFT_OUT = " left out"  # ends the name of the last rung, behind its column
_LINES = 8


@dataclass(frozen=True, eq=False)
class LadderSection:
    """The part of a page about an optimism ladder; `template` renders it."""

    title: str
    notes: list[str]
    caption: str
    table: Table
    figure: Chart
    provenance: Provenance | None
    template: str = "ladder_section.html"


@dataclass(frozen=True)
class SideBySide:
    """The models of several runs in one table."""

    note: str
    table: Table


def is_ladder(folder: Path) -> bool:
    """Whether a run's folder holds a ladder."""
    return (folder / "ladder.csv").exists()


def column_left_out(rungs: Sequence[str]) -> str:
    """The column whose values the last of these rungs leaves out; "" where that rung could not be made."""
    return rungs[-1].removesuffix(_LEFT_OUT) if rungs[-1].endswith(_LEFT_OUT) else ""


def ladder_caption(rungs: Sequence[str]) -> str:
    """How to read a ladder with these rungs."""
    column = column_left_out(rungs)
    said = (
        "The first two rungs use the same random draws; the second moves copies of an image to one side. The other "
        "rungs use draws of their own: a small step between them may be chance."
    )
    if column == "series":
        return (
            f"{said} Series made by `ball audit` are inferred from overlays, stain and file order: likely, not known."
        )
    return f"{said} Left out one by one: the values of {column!r} in the groups file." if column else said


def write_ladder_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a ladder.

    Raises:
        DataError: The folder holds no ladder, or the page cannot be written.
    """
    part = _ladder(folder)
    return write_page(folder / "report.html", "report.html", "Optimism ladder", sections=[part], side_by_side=None)


def write_joint_report(
    folders: Sequence[Path], out: Path, caches: Sequence[Cache | None], thumbnails: Path | None = None
) -> Path:
    """Write one page of several runs, their models side by side first.

    Args:
        folders: folders that `ball fit` wrote; ladders too.
        out: file to write.
        caches: cache of each run, or None.
        thumbnails: folder of the images, as `write_report` takes it.

    Raises:
        DataError: A folder holds no run, or the page cannot be written.
    """
    pictures = Thumbnails(thumbnails)
    sections = [
        _ladder(folder) if is_ladder(folder) else run_section(folder, cache, pictures, number)
        for number, (folder, cache) in enumerate(zip(folders, caches, strict=True))
    ]
    title = f"{len(folders)} runs"
    return write_page(out, "report.html", title, sections=sections, side_by_side=_side_by_side(folders))


def _side_by_side(folders: Sequence[Path]) -> SideBySide | None:
    """Accuracy of each model in each run."""
    titles, cells = [], {}
    for number, folder in enumerate(folders):
        if is_ladder(folder):
            continue
        run = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        titles.append((number, folder.name))
        for row in run["models"]:
            cells.setdefault((row["model"], row["kind"]), {})[number] = row
    rows = []
    for (model, kind), own in cells.items():
        line = [Cell(model), Cell(kind)]
        for number, _ in titles:
            row = own.get(number)
            if row is None:
                line.append(Cell("", -1.0))
                continue
            interval = f"{100 * row['accuracy_low']:.1f} - {100 * row['accuracy_high']:.1f}"
            mark = f" {SAME_MARK}" if row.get("ties_best") else ""
            line.append(Cell(f"{100 * row['accuracy']:.2f} ({interval}){mark}", float(row["accuracy"])))
        rows.append(Row(tuple(line), kind))
    if not rows:
        return None
    note = (
        f"Accuracy in % with its 95 % interval; {SAME_MARK}: does not differ significantly from the best of its run. "
        "Runs may have tested other images: compare across columns with care."
    )
    return SideBySide(
        note, Table(("model", "kind", *(name for _, name in titles)), tuple(rows), "Runs side by side", 2)
    )


def _ladder(folder: Path) -> LadderSection:
    """The optimism ladder as a table and as lines from rung to rung."""
    try:
        details = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        notes = details["notes"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no run ({error}). Expected a folder written by `ball fit`.") from error
    table = read_table(folder / "ladder.csv")
    if not table:
        raise DataError(f"{folder} holds no ladder: ladder.csv is missing or empty. Make it with the protocol ladder.")
    rungs = list(dict.fromkeys(row["rung"] for row in table))
    kinds = {row["model"]: row["kind"] for row in table}
    by_model = {name: {row["rung"]: row for row in table if row["model"] == name} for name in kinds}

    def at(name: str, rung: str) -> float:
        return float(by_model[name][rung]["accuracy"]) if rung in by_model[name] else math.nan

    column = column_left_out(rungs)
    rows = []
    for name in sorted(kinds, key=lambda name: -np.nan_to_num(at(name, rungs[-1]))):
        cells = [Cell(name), Cell(kinds[name])]
        for rung in rungs:
            row = by_model[name].get(rung)
            if row is None:
                cells.append(Cell("n/a", -1.0))
                continue
            interval = f"{100 * float(row['accuracy_low']):.0f} - {100 * float(row['accuracy_high']):.0f}"
            cells.append(Cell(f"{100 * at(name, rung):.1f} ({interval})", at(name, rung)))
        if column:
            worst = by_model[name].get(rungs[-1], {}).get("worst_recall", "")
            cells.append(Cell(f"{100 * float(worst):.1f}", float(worst)) if worst else Cell("n/a", -1.0))
        drop = at(name, rungs[0]) - at(name, rungs[-1])
        cells.append(Cell("n/a", -1.0) if math.isnan(drop) else Cell(f"{100 * drop:.1f}", drop))
        rows.append(Row(tuple(cells), kinds[name]))
    points = {
        name: np.array([[place, 100 * at(name, rung)] for place, rung in enumerate(rungs) if rung in by_model[name]])
        for name in list(kinds)[:_LINES]
    }
    header = ("model", "kind", *rungs, *((f"worst {column}",) if column else ()), "drop")
    return LadderSection(
        title=details.get("title", "Optimism ladder"),
        notes=notes,
        caption=ladder_caption(rungs),
        table=Table(header, tuple(rows), "Accuracy of each model on each rung", 2),
        figure=lines(points, "Accuracy from rung to rung", "rung", "accuracy, %", names_x=rungs),
        provenance=provenance_block(details),
    )
