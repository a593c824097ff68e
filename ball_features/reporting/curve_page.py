"""A learning curve on a page and in a terminal: accuracy by the number of units, with the law and its forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ball_features.errors import DataError
from ball_features.evaluation.curve import CurveRow
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.power_law import ForecastRow
from ball_features.evaluation.rows import read_rows
from ball_features.evaluation.run_details import read_details
from ball_features.evaluation.stored_results import PREDICTIONS, read_curve, told_as_damage
from ball_features.reporting.charts import PALETTE, Axis, Chart, Key, Line, Mark, Tick, round_ticks
from ball_features.reporting.markup import Cell, Row, Table, write_page
from ball_features.reporting.provenance import Provenance, own_note, provenance_block

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["CurveSection", "curve_chart", "curve_section", "is_curve", "render_curve", "write_curve_report"]

_LAW_POINTS = 40
_COMPARED = "accuracy, recall and log loss of each model at each size"
_SIDE = 0.012  # of the axis, between the models at one size

CAPTION = (
    "Each point is the mean over the subsets of that size, tested on the same images, with its 95 % interval (by the "
    "scatter of test units and of subsets). The dashed line is a power law of the error, a n^-b + c, carried on to "
    "twice the largest size, where the interval is that of the forecast (Hestness et al. 2017; Mukherjee et al. 2003; "
    "bootstrap over test units and seeds). It holds for more of the same kind: another hospital is another curve."
)


@dataclass(frozen=True, eq=False)
class CurveSection:
    """The part of a page about a learning curve; `template` renders it."""

    title: str
    sentences: list[str]
    wide: Chart
    narrow: Chart
    caption: str
    table: Table
    notes: list[str]
    provenance: Provenance | None
    compared: str
    template: str = "curve_section.html"


def is_curve(folder: Path) -> bool:
    """Whether a run's folder holds a learning curve."""
    return (folder / "curve.csv").exists()


def curve_section(folder: Path) -> CurveSection:
    """The part of a page about a learning curve.

    Raises:
        DataError: the folder holds no learning curve, or a damaged one.
    """
    try:
        details = read_details(folder, ("title", "notes", "sentences"))
        rows, forecasts = read_curve(folder), read_rows(folder / "forecast.csv", ForecastRow)
        title, sentences = details["title"], details["sentences"]
        notes = [*own_note(details), *details["notes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no learning curve ({error}). Make one with that protocol.") from error
    if not rows:
        raise DataError(f"{folder} holds no learning curve: curve.csv is empty. Make one with that protocol.")
    return CurveSection(
        title=title,
        sentences=sentences,
        wide=curve_chart(rows, forecasts),
        narrow=curve_chart(rows, forecasts),
        caption=CAPTION,
        table=_table(rows),
        notes=notes,
        provenance=provenance_block(details),
        compared=_COMPARED if (folder / PREDICTIONS).exists() else "",
    )


def write_curve_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a learning curve.

    Raises:
        DataError: the folder holds no learning curve, or the page cannot be written.
    """
    with told_as_damage(folder):
        part = curve_section(folder)
        context = {"sections": [part], "side_by_side": None}
        return write_page(folder / "report.html", "report.html", "Learning curve", named=False, **context)


def curve_chart(rows: Sequence[CurveRow], forecasts: Sequence[ForecastRow]) -> Chart:
    """Accuracy by the number of units, on a logarithmic axis, with the laws carried on to twice the largest size.

    Args:
        rows: rows of `curve.csv`.
        forecasts: rows of `forecast.csv`.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    sizes = sorted({row.units for row in rows})
    unit = rows[0].unit
    low_x, high_x = float(np.log10(sizes[0])), float(np.log10(2 * sizes[-1]))
    step = _SIDE * (high_x - low_x)
    lines, marks = [], []
    for number, name in enumerate(models):
        colour, aside = number % len(PALETTE), (number - (len(models) - 1) / 2) * step
        own = sorted((row for row in rows if row.model == name), key=lambda row: row.units)
        at = [float(np.log10(row.units)) + aside for row in own]
        lines.append(Line(np.array([[x, 100 * row.accuracy] for x, row in zip(at, own, strict=True)]), colour))
        for x, row in zip(at, own, strict=True):
            lines.append(_interval(x, row.accuracy_low, row.accuracy_high, colour))
            note = f"{name}, {row.units:.0f} {unit}s: {100 * row.accuracy:.2f} %"
            marks.append(Mark(x, 100 * row.accuracy, colour, note=note))
        law = next((row for row in forecasts if row.model == name and not row.reason), None)
        if law is not None:
            lines += _law_lines(law, high_x + aside, colour)
            end = 100 * (1 - law.slope * 2.0**-law.exponent - law.floor)
            marks.append(Mark(high_x + aside, end, colour, "ring", note=f"{name}, forecast: {end:.2f} %"))
    every = np.concatenate([line.points[:, 1] for line in lines])
    at_y = round_ticks(float(every.min()), min(float(every.max()), 100.0))
    low_y = min(float(every.min()), at_y[0])
    ticks = tuple(Tick(float(np.log10(size)), f"{size:.0f}") for size in (*sizes, 2 * sizes[-1]))
    known = any(not row.reason for row in forecasts)
    return Chart(
        f"Accuracy in % by the number of {unit}s that train and validate, logarithmic",
        Axis(low_x - 4 * step, high_x + 4 * step, ticks, f"{unit}s"),
        Axis(low_y, max(at_y[-1], float(every.max())), tuple(Tick(tick, f"{tick:g}") for tick in at_y), rules=True),
        lines=tuple(lines),
        marks=tuple(marks),
        legend=tuple(Key(name, number % len(PALETTE)) for number, name in enumerate(models)),
        note="Dashed and ring: the power law and its forecast." if known else "",
        plot_px=300,
    )


def _interval(x: float, low: float, high: float, colour: int) -> Line:
    return Line(np.array([[x, 100 * low], [x, 100 * min(high, 1.0)]]), colour, width_px=1.5)


def _law_lines(row: ForecastRow, end: float, colour: int) -> list[Line]:
    """The law to twice the largest size, and the interval of its forecast there."""
    ratio = np.geomspace(row.first / row.units, 2.0, _LAW_POINTS)
    accuracy = 100 * (1 - row.slope * ratio**-row.exponent - row.floor)
    drawn = Line(np.column_stack([np.log10(ratio * row.units), accuracy]), colour, 1, width_px=1.5)
    now = 1 - row.slope - row.floor
    return [drawn, _interval(end, now + row.gain_low, now + row.gain_high, colour)]


def _table(rows: Sequence[CurveRow]) -> Table:
    accuracy = METRICS["accuracy"]
    lines = []
    for row in rows:
        ends = accuracy.interval_text((row.accuracy_low, row.accuracy_high), 1)
        cells = [Cell(row.model), Cell(f"{row.units:.0f}", row.units), Cell(f"{row.images:.0f}", row.images)]
        cells += [Cell(accuracy.text(row.accuracy), row.accuracy), Cell(ends, row.accuracy_low)]
        for name in ("recall", "log_loss"):
            value = getattr(row, name)
            cells.append(Cell(METRICS[name].text(value), value if value == value else -1.0))
        cells += [Cell(str(row.subsets), row.subsets), Cell(str(row.lost), row.lost)]
        lines.append(Row(tuple(cells), row.kind))
    unit = rows[0].unit
    counts = (f"{unit}s",) if unit == "image" else (f"{unit}s", "images")
    if unit == "image":
        lines = [Row((*line.cells[:1], *line.cells[2:]), line.kind) for line in lines]
    header = ("model", *counts, "accuracy", "95 %", "recall", "log loss", "subsets", "that lack a class")
    return Table(header, tuple(lines), "Accuracy of each model at each size", 1)


def render_curve(rows: Sequence[CurveRow]) -> RenderableType:
    """Render the curve for a terminal: a row a size, a column a model, accuracy and interval in a cell."""
    from rich import box
    from rich.table import Table as Terminal

    metric = METRICS["accuracy"]
    models = list(dict.fromkeys(row.model for row in rows))
    unit = rows[0].unit
    table = Terminal(box=box.SIMPLE_HEAD, pad_edge=False, title="Learning curve: accuracy in %", title_justify="left")
    for heading in dict.fromkeys((f"{unit}s", "images", *models)):
        table.add_column(heading, justify="right", no_wrap=True)
    for size in sorted({row.size for row in rows}):
        own = {row.model: row for row in rows if row.size == size}
        first = next(iter(own.values()))
        counts = [f"{first.units:.0f}"] if unit == "image" else [f"{first.units:.0f}", f"{first.images:.0f}"]
        cells = []
        for name in models:
            row = own.get(name)
            ends = "" if row is None else metric.interval_text((row.accuracy_low, row.accuracy_high), 1)
            cells.append("n/a" if row is None else f"{metric.text(row.accuracy)} ({ends})")
        table.add_row(*counts, *cells)
    return table
