"""The comparison table: for a terminal, and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["SAME_MARK", "markdown", "render"]

_PERCENT = {"accuracy": "acc.", "specificity": "spec.", "precision": "prec.", "recall": "recall", "f1": "F1"}
_PLAIN = {"auroc": "AUROC", "mcc": "MCC", "log_loss": "log loss", "ece": "ECE"}
_SECONDS = {"fit_s": "fit s", "predict_s": "pred. s"}
SAME_MARK = "="


def _cells(row: Mapping[str, Any]) -> list[str]:
    def text(name: str, form: str, scale: float = 1.0) -> str:
        value = row[name]
        return "n/a" if value is None or math.isnan(value) else format(scale * value, form)

    interval = f"{text('accuracy_low', '.1f', 100)} - {text('accuracy_high', '.1f', 100)}"
    cells = [f"{row['model']} {SAME_MARK if row.get('ties_best') else ''}".strip(), row["kind"]]
    cells += [text("accuracy", ".2f", 100), interval]
    cells += [text(name, ".2f", 100) for name in list(_PERCENT)[1:]]
    cells += [text("auroc", ".4f"), text("mcc", ".3f"), text("log_loss", ".3f"), text("ece", ".3f")]
    return cells + [text(name, ".2f") for name in _SECONDS]


def _header() -> list[str]:
    names = list(_PERCENT.values())
    return ["model", "kind", names[0], "95 %", *names[1:], *_PLAIN.values(), *_SECONDS.values()]


def render(rows: Sequence[Mapping[str, Any]], title: str, caption: str) -> RenderableType:
    """The table for a terminal; heads in bold, shortcuts dimmed.

    Args:
        rows: Of `metrics.csv`, sorted, with `ties_best`.
        title: The protocol in a line.
        caption: What interval and marks mean.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for place, name in enumerate(_header()):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    style = {"head": "bold", "shortcut": "yellow"}
    for row in rows:
        table.add_row(*_cells(row), style=style.get(row["kind"]))
    return Group(table, Text(caption, style="dim"))


def markdown(rows: Sequence[Mapping[str, Any]], title: str, caption: str) -> str:
    """The same table in Markdown."""
    header = _header()
    lines = [f"### {title}", "", f"| {' | '.join(header)} |"]
    lines.append("| " + " | ".join("---" if place < 2 else "---:" for place in range(len(header))) + " |")
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join([*lines, "", caption, ""])
