"""One page of several runs: their models side by side, ladders, then each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ball_features.cache import Cache
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.results import ModelRow, read_measurement
from ball_features.reporting.ladder_page import is_ladder, ladder_section
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails, write_page
from ball_features.reporting.page import run_section
from ball_features.reporting.tables import SAME_MARK

__all__ = ["write_joint_report", "write_ladder_report"]


@dataclass(frozen=True)
class SideBySide:
    """The models of several runs in one table."""

    note: str
    table: Table


def write_ladder_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a ladder.

    Raises:
        DataError: The folder holds no ladder, or the page cannot be written.
    """
    part = ladder_section(folder)
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
        ladder_section(folder) if is_ladder(folder) else run_section(folder, cache, pictures, number)
        for number, (folder, cache) in enumerate(zip(folders, caches, strict=True))
    ]
    title = f"{len(folders)} runs"
    return write_page(out, "report.html", title, sections=sections, side_by_side=_side_by_side(folders))


def _side_by_side(folders: Sequence[Path]) -> SideBySide | None:
    """Accuracy of each model in each run."""
    runs = [(folder.name, read_measurement(folder).models) for folder in folders if not is_ladder(folder)]
    names = dict.fromkeys((row.model, row.kind) for _, models in runs for row in models)
    rows = []
    for model, kind in names:
        found = [next((row for row in models if (row.model, row.kind) == (model, kind)), None) for _, models in runs]
        rows.append(Row((Cell(model), Cell(kind), *(_accuracy(row) for row in found)), kind))
    if not rows:
        return None
    note = (
        f"Accuracy in % with its 95 % interval; {SAME_MARK}: does not differ significantly from the best of its run. "
        "Runs may have tested other images: compare across columns with care."
    )
    header = ("model", "kind", *(name for name, _ in runs))
    return SideBySide(note, Table(header, tuple(rows), "Runs side by side", 2))


def _accuracy(row: ModelRow | None) -> Cell:
    if row is None:
        return Cell("", -1.0)
    metric = METRICS["accuracy"]
    interval = metric.interval_text(row.intervals["accuracy"], 1)
    return Cell(f"{metric.text(row.accuracy)} ({interval}){f' {SAME_MARK}' if row.ties_best else ''}", row.accuracy)
