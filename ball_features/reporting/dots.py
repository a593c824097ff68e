"""Dot plots: a row a model, class or group, a dot with its interval on one axis."""

from __future__ import annotations

from collections.abc import Sequence

from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.results import ModelRow
from ball_features.reporting.charts import Axis, Chart, Key, Mark, Tick, Whisker, round_ticks

__all__ = ["NETWORK", "SHORTCUT", "model_dots", "recalls"]

NETWORK, SHORTCUT = 0, 5  # colours of models on a network's embeddings, and of shortcuts
_ROW_PX = 22
_MOST_ROWS = 100


def model_dots(models: Sequence[ModelRow], *, brief: bool = False) -> Chart:
    """Accuracy of all models with its interval on one axis, zoomed to where the models differ.

    Args:
        models: rows of the comparison, the best first.
        brief: whether the numbers at the right leave the intervals out, for a narrow page.
    """
    metric = METRICS["accuracy"]
    ends = [row.intervals.get("accuracy", (row.accuracy, row.accuracy)) for row in models]
    low = _zoom([row.accuracy for row in models], [own[0] for own in ends])
    high = 100 * max(own[1] for own in ends)
    ticks = round_ticks(100 * low, high)
    at_low, at_high = min(100 * low, ticks[0]), min(ticks[-1], max(high, 100.0))
    marks, whiskers = [], []
    for number, (row, (below, above)) in enumerate(zip(models, ends, strict=True)):
        colour, shape = (SHORTCUT, "diamond") if row.kind == "shortcut" else (NETWORK, "disc")
        note = f"{row.model}: {metric.text(row.accuracy)} % ({metric.interval_text((below, above))})"
        if 100 * row.accuracy < at_low:
            marks.append(Mark(at_low, number, colour, "left", note=note))
        else:
            marks.append(Mark(100 * row.accuracy, number, colour, shape, note=note))
        if 100 * above > at_low:
            whiskers.append(Whisker(max(100 * below, at_low), 100 * above, number, colour))
    beyond = any(mark.shape == "left" for mark in marks)
    legend = [Key("model on the network's embeddings", NETWORK), Key("shortcut: no network", SHORTCUT, "diamond")]
    shown = {mark.colour for mark in marks}
    return Chart(
        "Accuracy in % on the test images, with its 95 % interval",
        Axis(at_low, at_high, tuple(Tick(tick, f"{tick:g}") for tick in ticks if tick <= at_high + 1e-9), rules=True),
        Axis(len(models) - 0.5, -0.5, tuple(Tick(number, row.model) for number, row in enumerate(models)), rules=True),
        whiskers=tuple(whiskers),
        marks=tuple(marks),
        legend=tuple(key for key in legend if key.colour in shown),
        right=tuple(
            Tick(number, metric.text(row.accuracy) + ("" if brief else f" ({metric.interval_text(own, 1)})"))
            for number, (row, own) in enumerate(zip(models, ends, strict=True))
        ),
        note="The axis is zoomed to where the models differ; a triangle lies further to the left." if beyond else "",
        plot_px=_ROW_PX * len(models),
    )


def _zoom(accuracy: Sequence[float], low: Sequence[float]) -> float:
    """Left end of the axis: models at the bottom are cut off, a third at most, while that halves the span."""
    order = sorted(range(len(accuracy)), key=lambda number: accuracy[number])
    top = max(accuracy)
    starts = [min(low[number] for number in order[cut:]) for cut in range(len(order) // 3 + 1)]
    chosen = 0
    for cut, start in enumerate(starts):
        if top - start < 0.5 * (top - starts[chosen]):
            chosen = cut
    return starts[chosen]


def recalls(values: Sequence[tuple[str, float, float, float]], title: str) -> Chart:
    """Shares with intervals, one a row, on an axis from 0 to 100 %; of many rows the lowest.

    Args:
        values: (name, share, low, high), shares in [0, 1].
        title: caption and alternative text.
    """
    if len(values) > _MOST_ROWS:
        title += f"; the {_MOST_ROWS} lowest of {len(values):,}"
        lowest = sorted(range(len(values)), key=lambda row: values[row][1])[:_MOST_ROWS]
        values = [values[row] for row in sorted(lowest)]
    percent = tuple(Tick(float(value), f"{value}") for value in (0, 25, 50, 75, 100))
    rows = tuple(Tick(number, name) for number, (name, *_) in enumerate(values))
    return Chart(
        title,
        Axis(0, 100, percent, rules=True),
        Axis(len(values) - 0.5, -0.5, rows),
        whiskers=tuple(Whisker(100 * low, 100 * high, row) for row, (_, _, low, high) in enumerate(values)),
        marks=tuple(Mark(100 * share, row) for row, (_, share, _, _) in enumerate(values)),
        right=tuple(Tick(row, f"{100 * share:.1f}") for row, (_, share, _, _) in enumerate(values)),
        plot_px=_ROW_PX * max(len(values), 1),
    )
