"""The comparison table, for a terminal and in Markdown; its columns follow from the registry of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.results import Measurement, ModelRow
from ball_features.reporting.captions import Caption

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "ALL_ROWS",
    "FITTED_ON",
    "KIND_STYLES",
    "SAME_MARK",
    "few_units_note",
    "interval_table",
    "markdown",
    "render",
]

_FEW_UNITS = 30  # below some 30 clusters a bootstrap is too sure (Cameron, Gelbach and Miller 2008)
_WIDTHS = (92, 116)  # characters from which a terminal shows columns of rank 1, and of rank 2

SAME_MARK = "="
FITTED_ON, ALL_ROWS = "fitted on", "all rows, held"
KIND_STYLES = {"head": "bold", "shortcut": "yellow"}


@dataclass(frozen=True)
class _Column:
    """A numeric column: its heading, its rank (see `Metric.rank`), and the text of a cell."""

    heading: str
    rank: int
    text: Callable[[ModelRow], str]


def _columns(rows: Sequence[ModelRow]) -> list[_Column]:
    columns = []
    for metric in METRICS.values():
        columns.append(_Column(metric.heading, metric.rank, lambda row, own=metric: own.text(row.values[own.name])))
        if metric.share is not None:
            columns.append(
                _Column("95 %", metric.rank, lambda row, own=metric: own.interval_text(row.intervals[own.name], 1))
            )
    columns.append(_Column("fit s", 1, lambda row: f"{row.fit_s:.1f}"))
    columns.append(_Column("pred. s", 2, lambda row: f"{row.predict_s:.2f}"))
    if any(row.fitted_on for row in rows):
        columns.append(_Column(FITTED_ON, len(_WIDTHS) + 1, lambda row: row.fitted_on or ALL_ROWS))
    return columns


def _cells(row: ModelRow, columns: Sequence[_Column]) -> list[str]:
    name = f"{row.model} {SAME_MARK}" if row.ties_best else row.model
    return [name, row.kind, *(column.text(row) for column in columns)]


def _header(columns: Sequence[_Column]) -> list[str]:
    return ["model", "kind", *(column.heading for column in columns)]


def render(rows: Sequence[ModelRow], title: str, caption: str, width: int = 120) -> RenderableType:
    """Render the table for a terminal; heads are bold, shortcuts yellow.

    Args:
        rows: rows of the table, sorted.
        title: the protocol in a line.
        caption: explanation of intervals and marks.
        width: width of the terminal in characters; a narrow terminal gets fewer columns.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, title=title, title_justify="left")
    rank = sum(width >= least for least in _WIDTHS)
    every = _columns(rows)
    columns = [column for column in every if column.rank <= rank]
    if len(columns) < len(every):
        caption += " More columns in table.md."
    for number, heading in enumerate(_header(columns)):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, columns), style=KIND_STYLES.get(row.kind))
    past = [f"{row.model}: {row.fitted_on}." for row in rows if row.fitted_on]
    told = [Caption(f"Rows exceed the memory. {' '.join(past)}")] if past else []
    return Group(table, *told, Caption(caption))


def markdown(rows: Sequence[ModelRow], title: str, caption: str) -> str:
    """Return the table of `render` as Markdown text, with all columns."""
    columns = _columns(rows)
    header = _header(columns)
    lines = [f"### {title}", "", f"| {' | '.join(header)} |"]
    lines.append("| " + " | ".join("---" if number < 2 else "---:" for number in range(len(header))) + " |")
    lines += [f"| {' | '.join(_cells(row, columns))} |" for row in rows]
    return "\n".join([*lines, "", caption, ""])


def few_units_note(units: int) -> str:
    """Warn of intervals by few units; "" where there are enough."""
    if units >= _FEW_UNITS:
        return ""
    return (
        f"The bootstrap had only {units} groups to resample. Its intervals are widened for that (Hesterberg 2015), and "
        "still too narrow where groups differ in size or a class lies in a few of them (Cameron, Gelbach and Miller "
        f"2008, below some {_FEW_UNITS}): the uncertainty is at least as large as they show."
    )


def interval_table(measurement: Measurement) -> str:
    """Write the 95 % intervals of every metric in Markdown."""
    models = measurement.models
    names = [name for name in METRICS if models and name in models[0].intervals]
    header = ["model", *(METRICS[name].heading for name in names), "McNemar p"]
    lines = [
        "95 % intervals (accuracy: Wilson's on the effective sample size; others: bootstrap over groups):",
        "",
        f"| {' | '.join(header)} |",
    ]
    lines.append("| --- |" + " ---: |" * (len(header) - 1))
    for row in models:
        cells = [row.model, *(METRICS[name].interval_text(row.intervals[name]) for name in names)]
        lines.append(f"| {' | '.join(cells)} | {row.mcnemar_p_against_best:.3f} |")
    caption = "McNemar p: exact test against the best on the images of the first repeat, Holm-corrected."
    return "\n".join([*lines, "", f"{caption} {few_units_note(measurement.units)}".strip(), ""])
