"""Charts in pixels: where axes, marks and texts of a figure lie, for the SVG template."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from ball_features.reporting.charts import DASHES, Chart, Line, Mark

__all__ = ["Drawing", "apart", "layout"]

_TEXT_PX, _LINE_PX = 6.6, 14  # mean width of a character and height of a line, at 12 px
_GAP_PX = 5
_WRAP_CHARACTERS = 11
_SIDE = 0.38  # share of the width that names on one side of the plot may take


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    text: str
    anchor: str = "start"
    turned: bool = False


@dataclass(frozen=True)
class _Stroke:
    path: str
    name: str  # CSS classes
    dash: str = ""
    width_px: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class _Shape:
    mark: Mark
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """A chart in pixels, for the SVG template."""

    chart: Chart
    width: int
    height: int
    frame: tuple[float, float, float, float]  # x, y, width, height
    texts: list[_Text] = field(default_factory=list)
    strokes: list[_Stroke] = field(default_factory=list)
    shapes: list[_Shape] = field(default_factory=list)


def layout(chart: Chart, width_px: int = 380) -> Drawing:
    """Positions of everything in a chart.

    Args:
        chart: figure to draw.
        width_px: width of the whole in pixels, at which text has its natural size.
    """
    ends = [line for line in chart.lines if line.name]
    widest = min(max((len(tick.text) for tick in chart.y.ticks), default=0), _most(width_px))
    left = 6 + (_LINE_PX + 2 if chart.y.label else 0) + _TEXT_PX * widest + _GAP_PX
    aside = max(
        (len(text) for text in (*(line.name for line in ends), *(tick.text for tick in chart.right))), default=0
    )
    aside = min(aside, _most(width_px))
    right = _TEXT_PX * aside + 2 * _GAP_PX if aside else 12
    top, plot = 8.0, (left, 8.0, width_px - left - right, float(chart.plot_px))
    wrapped = [textwrap.wrap(tick.text, _WRAP_CHARACTERS) for tick in chart.x.ticks]
    below = max((len(lines) for lines in wrapped), default=0)
    bottom = top + chart.plot_px
    height = bottom + 8 + _LINE_PX * (below + bool(chart.x.label))
    drawing = Drawing(chart, width_px, round(height), plot)

    def x_px(value: float) -> float:
        return left + chart.x.share(value) * plot[2]

    def y_px(value: float) -> float:
        return top + (1 - chart.y.share(value)) * plot[3]

    for tick, lines in zip(chart.x.ticks, wrapped, strict=True):
        for number, words in enumerate(lines):
            drawing.texts.append(_Text(x_px(tick.at), bottom + 16 + _LINE_PX * number, words, "middle"))
        if chart.x.rules:
            drawing.strokes.append(_Stroke(f"M{x_px(tick.at):.1f} {top}V{bottom}", "rule"))
    for tick in chart.y.ticks:
        drawing.texts.append(_Text(left - _GAP_PX, y_px(tick.at) + 4, _short(tick.text, widest), "end"))
        if chart.y.rules:
            drawing.strokes.append(_Stroke(f"M{left:.1f} {y_px(tick.at):.1f}h{plot[2]:.1f}", "rule"))
    if chart.x.label:
        drawing.texts.append(_Text(left + plot[2] / 2, height - 4, chart.x.label, "middle"))
    if chart.y.label:
        drawing.texts.append(_Text(_LINE_PX - 2, top + plot[3] / 2, chart.y.label, "middle", turned=True))
    for tick in chart.right:
        drawing.texts.append(_Text(left + plot[2] + _GAP_PX, y_px(tick.at) + 4, _short(tick.text, aside)))
    for line in chart.lines:
        _stroke(drawing, line, [(x_px(x), y_px(y)) for x, y in line.points])
    for whisker in chart.whiskers:
        path = f"M{x_px(whisker.low):.1f} {y_px(whisker.y):.1f}H{x_px(whisker.high):.1f}"
        drawing.strokes.append(_Stroke(path, f"line c{whisker.colour}", width_px=whisker.width_px, note=whisker.note))
    drawing.shapes.extend(_Shape(mark, x_px(mark.x), y_px(mark.y)) for mark in chart.marks)
    for line, y in zip(ends, apart([y_px(line.points[-1, 1]) for line in ends], top, bottom), strict=True):
        (x_end, y_end), x_name = (x_px(line.points[-1, 0]), y_px(line.points[-1, 1])), left + plot[2] + _GAP_PX
        if line.colour is not None:  # leads the eye from the line to its name
            path = f"M{x_end:.1f} {y_end:.1f}L{x_name - 1:.1f} {y:.1f}"
            drawing.strokes.append(_Stroke(path, f"line c{line.colour}"))
        drawing.texts.append(_Text(x_name + 2, y + 4, _short(line.name, aside)))
    return drawing


def _most(width_px: int) -> int:
    """Number of characters that may stand on one side of the plot."""
    return int(_SIDE * width_px / _TEXT_PX)


def _short(text: str, most: int) -> str:
    """The text, or its two ends with dots between: names of one series often differ at the end."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def _stroke(drawing: Drawing, line: Line, points: Sequence[tuple[float, float]]) -> None:
    name = "guide" if line.colour is None else f"line c{line.colour}"
    if len(points) == 1:  # one point makes no line
        drawing.shapes.append(_Shape(Mark(0, 0, line.colour or 0, radius_px=3), *points[0]))
    elif points:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        drawing.strokes.append(_Stroke(path, name, DASHES[line.dash % len(DASHES)], line.width_px))


def apart(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Heights of labels in pixels, as near to the wanted ones as lines of text can stand."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    placed = [0.0] * len(wanted)
    least = low
    for number in order:
        placed[number] = max(wanted[number], least)
        least = placed[number] + _LINE_PX
    most = high
    for number in reversed(order):
        placed[number] = min(placed[number], most)
        most = placed[number] - _LINE_PX
    return placed
