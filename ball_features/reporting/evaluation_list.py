"""External evaluations in a folder, for `ball runs`: which bundle, on what, how well."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.config.paths import own_name
from ball_features.errors import DataError
from ball_features.evaluation.metrics import METRICS
from ball_features.reporting.external_summary import EvaluationSummary, read_summary
from ball_features.reporting.run_list import Damaged, natural_key

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["EvaluationList", "ListedEvaluation", "list_evaluations", "render_evaluations"]

_FILE = "evaluation.json"
_DEEPEST = 4  # folders below the one that is listed, as for runs


@dataclass(frozen=True)
class ListedEvaluation:
    """An evaluation in a row.

    Attributes:
        name: path of its folder, relative to the folder that was listed.
        summary: its content.
    """

    name: str
    summary: EvaluationSummary

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {"name": self.name, **asdict(self.summary)}


@dataclass(frozen=True)
class EvaluationList:
    """Evaluations of a folder, and those that cannot be read."""

    evaluations: list[ListedEvaluation] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)


def list_evaluations(folder: Path | str, sort: str = "name") -> EvaluationList:
    """Find the evaluations in a folder and in the folders below it.

    Args:
        folder: folder to search.
        sort: a column of `ball runs`; one that evaluations lack sorts by name.
    """
    folder, found, damaged = Path(folder), [], []
    for path in _folders(folder, 0):
        name = own_name(path) if path == folder else path.relative_to(folder).as_posix()
        try:
            found.append(ListedEvaluation(name, read_summary(path)))
        except DataError as error:
            damaged.append(Damaged(name, str(error)))
    found.sort(key=lambda own: natural_key(own.name))
    if sort == "accuracy":
        found.sort(key=lambda own: math.inf if math.isnan(own.summary.accuracy) else -own.summary.accuracy)
    elif sort in ("date", "data", "model", "note"):
        found.sort(key=lambda own: _text(own.summary, sort))
    return EvaluationList(found, damaged)


def _text(summary: EvaluationSummary, sort: str) -> tuple[bool, tuple[list[tuple[int, str]], str]]:
    text = {"date": summary.created, "data": summary.source, "model": summary.bundle, "note": summary.note}[sort]
    return not text, natural_key(text)


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    if (folder / _FILE).exists():
        yield folder
        return
    for path in inside if depth < _DEEPEST else ():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from _folders(path, depth + 1)


def render_evaluations(evaluations: Sequence[ListedEvaluation]) -> RenderableType:
    """Render evaluations for a terminal, a row each; columns that say nothing are left out."""
    from rich import box
    from rich.table import Table

    accuracy = METRICS["accuracy"]
    own = [item.summary for item in evaluations]
    columns = {
        "evaluation": [item.name for item in evaluations],
        "date": [item.created[:10] for item in own],
        "bundle": [item.bundle for item in own],
        "data": [f"{item.source} ({item.images})" for item in own],
        "acc.": [accuracy.text(item.accuracy) for item in own],
        "95 %": [accuracy.interval_text((item.low, item.high), 1) for item in own],
        "lost": ["" if math.isnan(item.difference) else f"{100 * item.difference:.1f}" for item in own],
        "note": [item.note for item in own],
    }
    caption = "lost: points of accuracy, against the bundle's own test."
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title="External evaluations")
    table.title_justify = "left"
    table.caption, table.caption_justify = caption if any(columns["lost"]) else None, "left"
    for name, cells in columns.items():
        if any(cells):
            numeric = name in ("acc.", "95 %", "lost")
            table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for cells in zip(*(cells for cells in columns.values() if any(cells)), strict=True):
        table.add_row(*cells)
    return table
