"""Tables of a run beside its main one, for a terminal: groups left out, and the student report's arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ball_features.evaluation.batch_average import COMPAT_BATCH
from ball_features.evaluation.left_out import LEAST_IMAGES, over_groups
from ball_features.evaluation.rows import CompatRow, GroupRow
from ball_features.reporting.captions import Caption

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["render_compat", "render_groups"]


def render_groups(rows: Sequence[GroupRow], models: Sequence[str]) -> list[RenderableType]:
    """Render mean and worst recall over groups of every model, and each group of the best model.

    Args:
        rows: rows from `evaluation.left_out.group_rows`.
        models: names of the models to show.
    """
    recall = {name: _mean([row.recall for row in over_groups(rows, name)]) for name in models}
    shown = sorted((name for name in models if over_groups(rows, name)), key=lambda name: -(recall[name] or 0.0))
    return [_render_overall(rows, shown), _render_each(rows, shown[0])] if shown else []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _several_classes(row: GroupRow) -> bool:
    """Whether the recall of the classes of a group, each counting the same, differs from that of its images."""
    return row.balanced_recall is not None and abs(row.balanced_recall - row.recall) > 1e-9


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _render_overall(rows: Sequence[GroupRow], models: Sequence[str]) -> RenderableType:
    from rich import box
    from rich.table import Table

    title = f"Over groups of {LEAST_IMAGES} images and more that were left out, in %"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("model")
    sided = rows[0].benign_malignant is not None
    flipped = any(row.flip_rate is not None for row in rows)
    mixed = any(_several_classes(row) for row in rows)
    balanced = ["balanced recall"] if mixed else []
    optional = [*balanced, *(["benign or not"] if sided else []), *(["views differ"] if flipped else [])]
    for heading in ("mean % right", "worst group", *optional):
        table.add_column(heading, justify="right")
    for name in models:
        own = over_groups(rows, name)
        cells = [_mean([row.recall for row in own]), min(row.recall for row in own)]
        cells += [_mean([row.balanced_recall for row in own])] if mixed else []
        cells += [_mean([row.benign_malignant for row in own])] if sided else []
        cells += [_mean([row.flip_rate for row in own])] if flipped else []
        table.add_row(name, *(_percent(value) for value in cells))
    return table


def _render_each(rows: Sequence[GroupRow], model: str) -> RenderableType:
    from rich import box
    from rich.table import Table

    own = sorted((row for row in rows if row.model == model), key=lambda row: row.recall)
    sided = rows[0].benign_malignant is not None
    flipped = all(row.flip_rate is not None for row in own)
    mixed = any(_several_classes(row) for row in own)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{model}, group by group", title_justify="left")
    balanced = ["balanced recall"] if mixed else []
    optional = [*balanced, *(["benign or not"] if sided else []), *(["views differ"] if flipped else [])]
    for heading in ("group", "images", "% right", "95 %", *optional, "wrong answers"):
        table.add_column(heading, justify="left" if heading in ("group", "wrong answers") else "right")
    for row in own:
        cells = [_percent(row.recall), f"{100 * row.recall_low:.0f} - {100 * row.recall_high:.0f}"]
        cells += [_percent(row.balanced_recall)] if mixed else []
        cells += [_percent(row.benign_malignant)] if sided else []
        cells += [_percent(row.flip_rate)] if flipped else []
        table.add_row(row.group, str(row.images), *cells, row.taken_for)
    return table


def render_compat(rows: Sequence[CompatRow]) -> RenderableType:
    """Render the student report's arithmetic, with a warning."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    title = f"As the student report averages: over batches of {COMPAT_BATCH} images, absent classes as 0, in %"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    model, *names = CompatRow.columns()
    table.add_column(model)
    for name in names:
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -row.accuracy):
        table.add_row(row.model, *(f"{100 * getattr(row, name):.2f}" for name in names))
    note = "For comparison with the student report only. The pooled figures are the ones to quote."
    return Group(table, Caption(note))
