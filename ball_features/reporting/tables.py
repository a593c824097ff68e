"""The comparison table: for a terminal, and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["SAME_MARK", "comparison", "few_units_note", "interval_table", "markdown", "render"]

_FEW_UNITS = 30  # below some 30 clusters a bootstrap of them is too sure (Cameron, Gelbach and Miller 2008)

SAME_MARK = "="
# Column -> (heading, format, factor); those of the last rank are the first to go on a narrow terminal.
_NUMBERS: dict[str, tuple[str, str, float, int]] = {
    "accuracy": ("acc.", ".2f", 100, 0),
    "interval": ("95 %", ".1f", 100, 0),
    "specificity": ("spec.", ".1f", 100, 2),
    "precision": ("prec.", ".1f", 100, 0),
    "recall": ("rec.", ".1f", 100, 0),
    "f1": ("F1", ".1f", 100, 0),
    "auroc": ("AUROC", ".3f", 1, 1),
    "mcc": ("MCC", ".3f", 1, 2),
    "log_loss": ("log l.", ".3f", 1, 1),
    "ece": ("ECE", ".3f", 1, 2),
    "fit_s": ("fit s", ".1f", 1, 1),
    "predict_s": ("pred. s", ".2f", 1, 2),
}


def _text(row: Mapping[str, Any], name: str) -> str:
    _, form, factor, _ = _NUMBERS[name]

    def number(value: float | None) -> str:
        return "n/a" if value is None or math.isnan(value) else format(factor * value, form)

    if name == "interval":
        return f"{number(row['accuracy_low'])} - {number(row['accuracy_high'])}"
    return number(row[name])


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    name = f"{row['model']} {SAME_MARK}" if row.get("ties_best") else row["model"]
    return [name, row["kind"], *(_text(row, column) for column in columns)]


def _header(columns: Sequence[str]) -> list[str]:
    return ["model", "kind", *(_NUMBERS[column][0] for column in columns)]


def render(rows: Sequence[Mapping[str, Any]], title: str, caption: str, width: int = 120) -> RenderableType:
    """The table for a terminal; heads in bold, shortcuts dimmed.

    Args:
        rows: Of `metrics.csv`, sorted, with `ties_best`.
        title: The protocol in a line.
        caption: What interval and marks mean.
        width: Of the terminal, in characters; a narrow one gets fewer columns.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, title=title, title_justify="left")
    rank = 2 if width >= 116 else 1 if width >= 92 else 0
    columns = [name for name, (*_, own) in _NUMBERS.items() if own <= rank]
    if len(columns) < len(_NUMBERS):
        caption += " More columns in table.md."
    for place, name in enumerate(_header(columns)):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    style = {"head": "bold", "shortcut": "yellow"}
    for row in rows:
        table.add_row(*_cells(row, columns), style=style.get(row["kind"]))
    return Group(table, Text(caption, style="dim"))


def markdown(rows: Sequence[Mapping[str, Any]], title: str, caption: str) -> str:
    """The same table in Markdown."""
    columns = list(_NUMBERS)
    header = _header(columns)
    lines = [f"### {title}", "", f"| {' | '.join(header)} |"]
    lines.append("| " + " | ".join("---" if place < 2 else "---:" for place in range(len(header))) + " |")
    lines += [f"| {' | '.join(_cells(row, columns))} |" for row in rows]
    return "\n".join([*lines, "", caption, ""])


def few_units_note(units: int) -> str:
    """What intervals by so many units are worth; "" where there are enough."""
    if units >= _FEW_UNITS:
        return ""
    return (
        f"The bootstrap had only {units} groups to resample. Its intervals are widened for that (Hesterberg 2015), and "
        "still too narrow where groups differ in size or a class lies in a few of them (Cameron, Gelbach and Miller "
        f"2008, below some {_FEW_UNITS}): read them as the least there is."
    )


def interval_table(models: Sequence[Mapping[str, Any]], units: int) -> str:
    """95 % intervals of every metric in Markdown, from the models of `metrics.json`, and by how many units."""
    names = [name for name in _NUMBERS if models and name in models[0]["intervals"]]

    def cell(model: Mapping[str, Any], name: str) -> str:
        _, form, factor, _ = _NUMBERS[name]
        ends = [model["intervals"][name][end] for end in ("low", "high")]
        known = all(end is not None and math.isfinite(end) for end in ends)
        return " - ".join(format(factor * end, form) for end in ends) if known else "n/a"

    header = ["model", *(_NUMBERS[name][0] for name in names), "McNemar p"]
    lines = [
        "95 % intervals (accuracy: Wilson's on the effective sample size; others: bootstrap over groups):",
        "",
        f"| {' | '.join(header)} |",
    ]
    lines.append("| --- |" + " ---: |" * (len(header) - 1))
    for model in models:
        cells = [model["model"], *(cell(model, name) for name in names)]
        lines.append(f"| {' | '.join(cells)} | {model['mcnemar_p_against_best']:.3f} |")
    caption = "McNemar p: exact test against the best on the images of the first repeat, Holm-corrected."
    return "\n".join([*lines, "", f"{caption} {few_units_note(units)}".strip(), ""])


def comparison(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of `ball compare` in Markdown: a row a cache and model, sorted by accuracy."""
    header = ("backbone", "channels", "model", "dim", "images/s", "acc.", "95 %", "behind the best", "rec.", "log loss")
    lines = [f"| {' | '.join(header)} |", "| --- | --- | --- |" + " ---: |" * (len(header) - 3)]
    for row in rows:
        rate = f"{row['images_per_s']:.1f}" if row["images_per_s"] == row["images_per_s"] else "n/a"
        behind = f"{100 * row['behind_low']:.1f} - {100 * row['behind_high']:.1f}" if row is not rows[0] else "best"
        cells = (
            row["backbone"] or "none",
            row["channels"] + (f", {row['views']}" if row["views"] not in ("", "plain") else ""),
            row["model"] + (f" {SAME_MARK}" if row["ties_best"] else ""),
            str(row["dim"] or ""),
            rate if row["backbone"] else "",
            f"{100 * row['accuracy']:.2f}",
            f"{100 * row['accuracy_low']:.1f} - {100 * row['accuracy_high']:.1f}",
            behind,
            f"{100 * row['recall']:.1f}",
            f"{row['log_loss']:.3f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
