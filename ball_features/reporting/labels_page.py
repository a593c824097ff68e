"""Doubtful labels for people: a table for the terminal, and a page with the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.evaluation.rows import Row as TableRow
from ball_features.files import escaped_controls
from ball_features.reporting.markup import Cell, Picture, Row, Table, Thumbnails, write_page

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["LabelRow", "render_labels", "say_labels", "write_labels_page"]

_PICTURES = 60
_SIDE_PX = 160
_LEAST_SHOWN = 10  # images of the terminal's table


@dataclass(frozen=True)
class LabelRow(TableRow):
    """An image and the doubt about its label.

    Attributes:
        path: id of the image.
        label: given class.
        suggested: class that models and neighbours find most probable among the others.
        doubt: 1 less the mean probability of the given class.
        flagged: True where confident learning counts the label as wrong.
        p_label: mean probability of the given class.
        p_suggested: mean probability of the suggested class.
        alike: id of the most similar image with the suggested label, or "".
    """

    path: str
    label: str
    suggested: str
    doubt: float
    flagged: bool
    p_label: float
    p_suggested: float
    alike: str


@dataclass(frozen=True)
class Doubtful:
    """Pictures of an image and of one like it, with a caption; `zoom` is False, as `macros.pictures` asks."""

    pictures: tuple[Picture, ...]
    caption: str
    zoom: bool = False


def say_labels(rows: Sequence[LabelRow], flagged: int) -> str:
    """How many labels are doubtful, in a sentence."""
    if not flagged:
        return f"None of {len(rows)} labels is counted as wrong; the most doubtful ones come first in the table."
    pairs = Counter((row.label, row.suggested) for row in rows if row.flagged).most_common(3)
    often = ", ".join(f"{count} labelled {label} look like {suggested}" for (label, suggested), count in pairs)
    return (
        f"{flagged} of {len(rows)} labels ({100 * flagged / len(rows):.1f} %) are possibly wrong by confident "
        f"learning. Most often: {often}. Look at them: a hard image is flagged too, and a wrong label may look right."
    )


def render_labels(rows: Sequence[LabelRow], most: int) -> RenderableType:
    """Render the most doubtful labels for a terminal."""
    from rich import box
    from rich.table import Table as Terminal

    shown = rows[: max(most, _LEAST_SHOWN)]
    table = Terminal(box=box.SIMPLE_HEAD, pad_edge=False, title="Most doubtful labels", title_justify="left")
    for heading in ("image", "label", "suggested", "p label", "p suggested", ""):
        table.add_column(heading, justify="right" if heading.startswith("p ") else "left", overflow="fold")
    for row in shown:
        mark = "possibly wrong" if row.flagged else ""
        name = escaped_controls(row.path)
        table.add_row(name, row.label, row.suggested, f"{row.p_label:.2f}", f"{row.p_suggested:.2f}", mark)
    return table


def write_labels_page(
    out: Path, rows: Sequence[LabelRow], flagged: int, pictures: Thumbnails, models: Sequence[str]
) -> Path:
    """Write the page of doubtful labels.

    Args:
        out: file to write.
        rows: rows of all images, the most doubtful first.
        flagged: number of flagged labels.
        pictures: thumbnails of the images; those of no folder for names alone.
        models: names of the models that judged.

    Raises:
        DataError: the page cannot be written.
    """
    shown = rows[: max(_PICTURES, min(flagged, 5 * _PICTURES))]
    figures = [_figure(row, pictures) for row in shown if pictures.address(row.path, _SIDE_PX)]
    return write_page(
        out,
        "labels.html",
        "Doubtful labels",
        sentence=say_labels(rows, flagged),
        models=", ".join(models),
        figures=figures,
        picture_notes=pictures.notes(),
        table=_table(shown),
        images=len(rows),
    )


def _figure(row: LabelRow, pictures: Thumbnails) -> Doubtful:
    own = [Picture(path, pictures.address(path, _SIDE_PX)) for path in (row.path, row.alike) if path]
    said = "Possibly wrong" if row.flagged else "Doubtful"
    alike = f" Beside it: {row.alike}." if len(own) > 1 and own[1].address else ""
    classes = f"{row.label} ({row.p_label:.2f}), suggested {row.suggested} ({row.p_suggested:.2f})"
    caption = f"{row.path}. {said}: {classes}.{alike}"
    return Doubtful(tuple(picture for picture in own if picture.address), caption)


def _table(rows: Sequence[LabelRow]) -> Table:
    lines = tuple(
        Row(
            (
                Cell(row.path),
                Cell(row.label),
                Cell(row.suggested),
                Cell(f"{row.p_label:.2f}", row.p_label),
                Cell(f"{row.p_suggested:.2f}", row.p_suggested),
                Cell("yes" if row.flagged else ""),
            )
        )
        for row in rows
    )
    return Table(("image", "label", "suggested", "p label", "p suggested", "flagged"), lines, "Doubtful labels", 3)
