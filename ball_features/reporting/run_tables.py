"""Tables of `ball compare`, of the optimism ladder, of `ball tune` and of `ball runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.rows import CompareRow, LadderRow, TrialRow
from ball_features.reporting.captions import Caption
from ball_features.reporting.ladder_page import column_left_out, ladder_caption
from ball_features.reporting.run_list import RunSummary, changed, differing
from ball_features.reporting.tables import KIND_STYLES, SAME_MARK

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["comparison", "render_comparison", "render_ladder", "render_runs", "render_trials"]

_COMPARISON = (
    "backbone", "channels", "model", "dim", "images/s", "acc.", "95 %", "behind the best", "rec.", "log loss",
)  # fmt: skip
_LEFT = 3  # columns of text, which stand first
_TRIALS = 10  # trials shown
_TRIAL_FORMATS = {"val_loss": ".4f", "val_accuracy": ".4f", "learning_rate": ".2g", "l2": ".2g"}


def _by_file(rows: Sequence[CompareRow]) -> bool:
    """Whether caches are named by their files, since network and channels do not tell them apart."""
    named = {row.cache for row in rows if row.cache}
    return len({(row.backbone, row.channels) for row in rows if row.cache}) < len(named)


def _comparison_header(rows: Sequence[CompareRow]) -> tuple[str, ...]:
    return ("cache", *_COMPARISON[1:]) if _by_file(rows) else _COMPARISON


def _comparison_cells(row: CompareRow, best: CompareRow, by_file: bool) -> tuple[str, ...]:
    accuracy = METRICS["accuracy"]
    rate = f"{row.images_per_s:.1f}" if row.images_per_s == row.images_per_s else "n/a"
    return (
        (f"{row.cache} ({row.backbone})" if by_file and row.cache else row.backbone) or "none",
        row.channels + (f", {row.views}" if row.views not in ("", "plain") else ""),
        row.model + (f" {SAME_MARK}" if row.ties_best else ""),
        str(row.dim or ""),
        rate if row.backbone else "",
        accuracy.text(row.accuracy),
        accuracy.interval_text((row.accuracy_low, row.accuracy_high), 1),
        "best" if row is best else f"{100 * row.behind_low:.1f} - {100 * row.behind_high:.1f}",
        METRICS["recall"].text(row.recall),
        METRICS["log_loss"].text(row.log_loss),
    )


def comparison(rows: Sequence[CompareRow]) -> str:
    """Write the table of `ball compare` in Markdown: a row a cache and model, sorted by accuracy."""
    header, by_file = _comparison_header(rows), _by_file(rows)
    lines = [f"| {' | '.join(header)} |", "|" + " --- |" * _LEFT + " ---: |" * (len(header) - _LEFT)]
    lines += [f"| {' | '.join(_comparison_cells(row, rows[0], by_file))} |" for row in rows]
    return "\n".join([*lines, ""])


def render_comparison(rows: Sequence[CompareRow], title: str, width: int = 120) -> RenderableType:
    """Render the table of `ball compare` for a terminal of this width in characters."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    shown = len(_COMPARISON) - (1 if width < 130 else 0)  # a narrow terminal has no room for the last column
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    by_file = _by_file(rows)
    for number, heading in enumerate(_comparison_header(rows)[:shown]):
        side, fold = "right" if number >= _LEFT else "left", "fold" if number == 0 else "ellipsis"
        table.add_column(heading, justify=side, no_wrap=number > 1, overflow=fold)
    for row in rows:
        table.add_row(*_comparison_cells(row, rows[0], by_file)[:shown], style=KIND_STYLES.get(row.kind))
    caption = (
        f"The same images and splits for all. {SAME_MARK}: does not differ significantly from the best at 5 % (paired "
        "permutation test over groups, Holm-corrected for multiple comparisons). behind the best: 95 % interval of the "
        "difference in accuracy, not corrected."
    )
    return Group(table, Caption(caption))


def render_ladder(rows: Sequence[LadderRow], width: int = 120) -> RenderableType:
    """Render the ladder: a row a model, a column a rung with accuracy and interval, and the drop from first to last.

    Args:
        rows: a row a rung and model.
        width: width of the terminal in characters; a narrow one gets headings of several lines, then fewer columns.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table

    rungs = list(dict.fromkeys(row.rung for row in rows))
    first, last = rungs[0], rungs[-1]
    column = column_left_out(rungs)
    by_model: dict[str, dict[str, LadderRow]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.rung] = row
    order = sorted(by_model.items(), key=lambda item: -item[1][last].accuracy if last in item[1] else 0.0)
    models = [own for _, own in order]
    kinds = [next(iter(own.values())).kind for own in models]
    columns = {"model": [name for name, _ in order], "kind": kinds}
    columns |= {rung: [_rung_cell(own.get(rung)) for own in models] for rung in rungs}
    if column:
        worst = [own[last].worst_recall if last in own else None for own in models]
        balanced = [own[last].mean_balanced_recall if last in own else None for own in models]
        if any(value is not None for value in balanced):
            columns["balanced recall"] = [METRICS["recall"].text(value) for value in balanced]
        columns[f"worst {column}"] = [METRICS["recall"].text(value) for value in worst]
    columns["drop"] = [
        f"{100 * (own[first].accuracy - own[last].accuracy):.1f}" if {first, last} <= own.keys() else "n/a"
        for own in models
    ]
    shown, headings = _fitting(columns, rungs[1:-1], width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Optimism ladder: accuracy in %", title_justify="left")
    for name, heading in zip(shown, headings, strict=True):
        table.add_column(heading, justify="left" if name in ("model", "kind") else "right", no_wrap=True)
    for number, kind in enumerate(kinds):
        table.add_row(*(columns[name][number] for name in shown), style=KIND_STYLES.get(kind))
    caption = (
        "Below each accuracy is its 95 % interval, by the scatter of the groups that a rung keeps together. Sorted by "
        "the last rung. "
    )
    left = [name for name in columns if name not in shown]
    caption += f"Not shown at this width, but in ladder.csv: {', '.join(left)}. " if left else ""
    return Group(table, Caption(caption + ladder_caption([rung for rung in rungs if rung in shown])))


def _fitting(columns: Mapping[str, Sequence[str]], between: Sequence[str], width: int) -> tuple[list[str], list[str]]:
    """Columns that a terminal has room for, and their headings.

    Args:
        columns: heading -> cells.
        between: columns that may be left out, the first of them first.
        width: width of the terminal in characters.
    """
    shown, droppable = list(columns), ["kind", *between]
    while True:
        for headings in (shown, [name.replace(" ", "\n") for name in shown]):
            widest = [
                max(len(line) for text in (heading, *columns[name]) for line in text.split("\n"))
                for name, heading in zip(shown, headings, strict=True)
            ]
            if sum(widest) + 3 * len(widest) <= width:
                return shown, list(headings)
        if not droppable:
            return shown, [name.replace(" ", "\n") for name in shown]
        shown.remove(droppable.pop(0))


def _rung_cell(row: LadderRow | None) -> str:
    if row is None:
        return "n/a"
    return f"{100 * row.accuracy:.1f}\n{100 * row.accuracy_low:.0f}-{100 * row.accuracy_high:.0f}"


def render_trials(rows: Sequence[TrialRow]) -> RenderableType:
    """Render the best trials of `ball tune` for a terminal."""
    from rich import box
    from rich.table import Table

    title = f"The best {min(_TRIALS, len(rows))} of {len(rows)} settings, by validation log loss"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    names = TrialRow.columns()
    shown = [name for name in names if not name.endswith("views") or len({getattr(row, name) for row in rows}) > 1]
    for name in shown:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows[:_TRIALS]:
        values = ((name, getattr(row, name)) for name in shown)
        table.add_row(
            *("none" if value is None else format(value, _TRIAL_FORMATS.get(name, "")) for name, value in values)
        )
    return table


# Fewest characters of a column that folds, and what a narrow terminal does without, the first first.
_LEAST = {"run": 6, "protocol": 8, "data": 10, "settings that differ": 20, "best model": 9, "note": 12}
_SPARE = ("data", "date", "protocol", "settings that differ")


def render_runs(runs: Sequence[RunSummary], width: int = 120) -> RenderableType:
    """Render the runs of a folder for a terminal, a row a run.

    Columns that say nothing are left out; those that a narrow terminal has no room for are named below.

    Args:
        runs: the runs, in the order of the rows.
        width: width of the terminal in characters.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table

    names, accuracy = differing(runs), METRICS["accuracy"]
    columns = {
        "run": [run.name for run in runs],
        "date": [run.created[:16].replace("T", " ") for run in runs],
        "protocol": [run.protocol for run in runs],
        "data": [f"{run.data} ({run.images})" for run in runs],
        "settings that differ": [changed(run, names) if names else "" for run in runs],
        "best model": [run.model for run in runs],
        "acc.": [accuracy.text(run.accuracy) for run in runs],
        "95 %": [accuracy.interval_text((run.low, run.high), 1) for run in runs],
        "note": [run.note for run in runs],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    wide = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    least = {name: min(wide[name], _LEAST.get(name, wide[name])) for name in columns}
    dropped = []
    for name in _SPARE:
        if name in columns and sum(least[own] + 2 for own in columns) > width:
            del columns[name]
            dropped.append(name)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    room = width - 2 - sum(least[name] + 2 for name in columns)
    for name in sorted(columns, key=lambda own: wide[own]):  # the shortest are whole first
        more = max(0, min(room, wide[name] - least[name]))
        least[name], room = least[name] + more, room - more
    for name in columns:
        justify = "right" if name in ("acc.", "95 %") else "left"
        table.add_column(name, justify=justify, overflow="fold", width=least[name])
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return Group(table, Caption(f"No room for: {', '.join(dropped)}.")) if dropped else table
