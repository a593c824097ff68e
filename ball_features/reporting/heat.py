"""Confusion matrices, readable with four classes and with sixty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ball_features.reporting.markup import Cell, Row, Table

__all__ = ["DRAWN_CLASSES", "MANY_CLASSES", "SHADES", "Heat", "HeatCell", "HeatRow", "frequent_errors", "heat"]

SHADES = 20  # steps of the shading
MANY_CLASSES = 12  # from more classes on, cells are shades without numbers, and the frequent errors are a list
DRAWN_CLASSES = 100  # of more classes those with the most errors are drawn
_LISTED = 15
_CELL_PX = 11


@dataclass(frozen=True)
class HeatCell:
    """A cell: its count, its share of the true class in %, and its shade from 0 to 20."""

    count: int
    percent: str
    shade: int


@dataclass(frozen=True)
class HeatRow:
    """A true class."""

    name: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class Heat:
    """A confusion matrix: a row a true class, a column a predicted one, shares of the true class.

    Attributes:
        title: caption.
        names: names of the columns.
        rows: rows of the matrix.
        corner: what rows and columns are.
        frequent: the most frequent errors, for a matrix of many classes; None for a small one.
    """

    title: str
    names: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    corner: str = "true \\ predicted"
    frequent: Table | None = None

    @property
    def cell_px(self) -> int:
        """Side of a cell of a matrix of many classes, in pixels."""
        return _CELL_PX

    @property
    def name_px(self) -> int:
        """Width of the names at the left, in pixels."""
        return round(6 + 5.5 * max(len(row.name) for row in self.rows))


def heat(
    counts: np.ndarray,
    names: Sequence[str],
    title: str,
    *,
    columns: Sequence[str] = (),
    corner: str = "true \\ predicted",
) -> Heat:
    """A confusion matrix, or other counts, as counts and as shares of the row.

    Args:
        counts: int (rows, columns); a row a true class.
        names: names of the rows.
        title: caption.
        columns: names of the columns; those of the rows if empty.
        corner: what rows and columns are.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    many = not columns and len(names) > MANY_CLASSES
    frequent = _frequent(counts, share, tuple(names), title) if many else None
    if many and len(names) > DRAWN_CLASSES:
        own = _worst(counts)
        title += f"; drawn are the {DRAWN_CLASSES} of {len(names):,} classes with the most errors"
        counts, share = counts[np.ix_(own, own)], share[np.ix_(own, own)]
        names = [str(names[code]) for code in own]
    rows = tuple(
        HeatRow(
            name,
            tuple(
                HeatCell(int(count), f"{100 * part:.1f}", _shade(count, part))
                for count, part in zip(counts[row].tolist(), share[row].tolist(), strict=True)
            ),
        )
        for row, name in enumerate(names)
    )
    return Heat(title, tuple(columns or names), rows, corner, frequent)


def _worst(counts: np.ndarray) -> np.ndarray:
    """The classes with the most errors, of either kind, in their order."""
    errors = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
    return np.sort(np.argsort(-errors, kind="stable")[:DRAWN_CLASSES])


def _shade(count: int, share: float) -> int:
    """The darker the more; what happened at all is not white."""
    return max(round(SHADES * share), 1 if count else 0)


def frequent_errors(counts: np.ndarray) -> list[tuple[int, int]]:
    """The most frequent errors of a confusion matrix, most frequent first: (true class, predicted class)."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
    places = [divmod(place, len(counts)) for place in order.tolist()]
    return [(true, predicted) for true, predicted in places if wrong[true, predicted]]


def _frequent(counts: np.ndarray, share: np.ndarray, names: tuple[str, ...], title: str) -> Table:
    rows = tuple(
        Row(
            (
                Cell(names[true]),
                Cell(names[predicted]),
                Cell(str(counts[true, predicted]), float(counts[true, predicted])),
                Cell(f"{100 * share[true, predicted]:.1f}", float(share[true, predicted])),
            )
        )
        for true, predicted in frequent_errors(counts)
    )
    return Table(("true class", "predicted", "images", "% of the class"), rows, f"Most frequent errors: {title}", 2)
