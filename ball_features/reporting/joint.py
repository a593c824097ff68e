"""One page of several runs: their models side by side, the optimism ladder, then each run."""

from __future__ import annotations

import csv
import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.errors import DataError
from ball_features.reporting.figures import lines
from ball_features.reporting.markup import Thumbnails, sortable, write_page
from ball_features.reporting.page import section
from ball_features.reporting.provenance import provenance_block
from ball_features.reporting.tables import SAME_MARK

__all__ = ["column_left_out", "is_ladder", "ladder_caption", "write_joint_report", "write_ladder_report"]

_LEFT_OUT = " left out"  # ends the name of the last rung, behind its column


def is_ladder(folder: Path) -> bool:
    """Whether a run's folder holds a ladder."""
    return (folder / "ladder.csv").exists()


def column_left_out(rungs: Sequence[str]) -> str:
    """The column whose values the last of these rungs leaves out; "" where that rung could not be made."""
    return rungs[-1].removesuffix(_LEFT_OUT) if rungs[-1].endswith(_LEFT_OUT) else ""


def ladder_caption(rungs: Sequence[str]) -> str:
    """What a reader of a ladder with these rungs should know."""
    column = column_left_out(rungs)
    said = "The first two rungs are the same random draws, but for copies, which the second puts on one side; "
    said += "the others are random draws of their own, and a small step between them may be chance."
    if column == "series":
        return (
            f"{said} Series made by `ball audit` are inferred from overlays, stain and file order: likely, not known."
        )
    return f"{said} Left out one by one: the values of {column!r} in the groups file." if column else said


def write_ladder_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a ladder.

    Raises:
        DataError: The folder holds no ladder.
    """
    return write_page(folder / "report.html", "Optimism ladder", [_ladder(folder)])


def write_joint_report(
    folders: Sequence[Path], out: Path, caches: Sequence[Cache | None], thumbnails: Path | None = None
) -> Path:
    """Write one page of several runs, their models side by side first.

    Args:
        folders: Written by `ball fit`, ladders too.
        out: The page.
        caches: Of each run, or None.
        thumbnails: As `write_report` takes it.

    Raises:
        DataError: A folder holds no run.
    """
    pictures = Thumbnails(thumbnails)
    sections = [
        _ladder(folder) if is_ladder(folder) else section(folder, cache, pictures, number)
        for number, (folder, cache) in enumerate(zip(folders, caches, strict=True))
    ]
    return write_page(out, f"{len(folders)} runs", [_side_by_side(folders), *sections])


def _side_by_side(folders: Sequence[Path]) -> str:
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
        line: list[tuple[str, Any]] = [(model, None), (kind, None)]
        for number, _ in titles:
            row = own.get(number)
            if row is None:
                line.append(("", -1.0))
                continue
            interval = f"{100 * row['accuracy_low']:.1f} - {100 * row['accuracy_high']:.1f}"
            mark = f" {SAME_MARK}" if row.get("ties_best") else ""
            line.append((f"{100 * row['accuracy']:.2f} ({interval}){mark}", float(row["accuracy"])))
        rows.append((kind, line))
    if not rows:
        return ""
    return (
        "<h1>Runs side by side</h1><p>Accuracy in % with its 95 % interval; "
        f"{SAME_MARK}: does not differ significantly from the best of its run. Runs may have tested other images: "
        f"compare across columns with care.</p>{sortable(['model', 'kind', *(name for _, name in titles)], rows, 2)}"
    )


def _ladder(folder: Path) -> str:
    """The optimism ladder as a table and as lines from rung to rung."""
    try:
        with (folder / "ladder.csv").open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        details = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        notes = details["notes"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no run ({error}). Expected a folder written by `ball fit`.") from error
    rungs = list(dict.fromkeys(row["rung"] for row in table))
    kinds = {row["model"]: row["kind"] for row in table}
    by_model = {name: {row["rung"]: row for row in table if row["model"] == name} for name in kinds}

    def at(name: str, rung: str) -> float:
        return float(by_model[name][rung]["accuracy"]) if rung in by_model[name] else math.nan

    column = column_left_out(rungs)
    rows = []
    for name in sorted(kinds, key=lambda name: -np.nan_to_num(at(name, rungs[-1]))):
        cells: list[tuple[str, Any]] = [(name, None), (kinds[name], None)]
        for rung in rungs:
            row = by_model[name].get(rung)
            if row is None:
                cells.append(("n/a", -1.0))
                continue
            interval = f"{100 * float(row['accuracy_low']):.0f} - {100 * float(row['accuracy_high']):.0f}"
            cells.append((f"{100 * at(name, rung):.1f} ({interval})", at(name, rung)))
        if column:
            worst = by_model[name].get(rungs[-1], {}).get("worst_recall", "")
            cells.append((f"{100 * float(worst):.1f}", float(worst)) if worst else ("n/a", -1.0))
        drop = at(name, rungs[0]) - at(name, rungs[-1])
        cells.append(("n/a", -1.0) if math.isnan(drop) else (f"{100 * drop:.1f}", drop))
        rows.append((kinds[name], cells))
    points = {
        name: np.array([[place, 100 * at(name, rung)] for place, rung in enumerate(rungs) if rung in by_model[name]])
        for name in list(kinds)[:8]
    }
    header = ["model", "kind", *rungs, *([f"worst {column}"] if column else []), "drop"]
    return (
        f"<section><h1>{html.escape(details.get('title', 'Optimism ladder'))}</h1>"
        + "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
        + "<p>Accuracy in % under ever stricter protocols; in brackets a 95 % interval, by the scatter of the "
        f"groups that each rung keeps together. {html.escape(ladder_caption(rungs))}</p>"
        + sortable(header, rows, 2)
        + "<div class='figures'>"
        + lines(points, "Accuracy from rung to rung", "rung", "accuracy, %", names_x=rungs)
        + f"</div>{provenance_block(details)}</section>"
    )
