"""The grammar of every figure: axes, marks and a legend as records.

A chart knows data only. `layout` turns it into pixels for the SVG template; a figure for a paper is drawn from the same
records.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "DASHES",
    "PALETTE",
    "PALETTE_DARK",
    "STYLES",
    "Axis",
    "Chart",
    "Key",
    "Line",
    "Mark",
    "Tick",
    "Whisker",
    "round_ticks",
]

# Okabe and Ito 2008, told apart with the common forms of colour blindness; darkened until 3:1 against white, and
# lightened until 3:1 against black.
PALETTE = ("#0072B2", "#B87A00", "#00805D", "#B5578F", "#2E8BC0", "#C24E00", "#8A7F00", "#737373")
PALETTE_DARK = ("#4DA3DC", "#E69F00", "#1BB58A", "#CC79A7", "#8CCBF2", "#E8763A", "#F0E442", "#A5A5A5")
STYLES = 3  # looks of a point: full, a ring, full within a ring; each colour of the palette has all three
DASHES = ("", "6 3", "2 2", "8 3 2 3")


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A linear axis; a logarithmic one has logarithms as positions and numbers as the text of its ticks.

    Attributes:
        low: position at the left or lower end; above `high` for an axis that runs the other way.
        high: position at the right or upper end.
        ticks: labelled positions.
        label: name of the quantity.
        rules: whether a faint line crosses the chart at each tick.
    """

    low: float
    high: float
    ticks: tuple[Tick, ...]
    label: str = ""
    rules: bool = False

    def share(self, value: float) -> float:
        """Position of a value, from 0 at the low end to 1 at the high end."""
        span = self.high - self.low
        return (value - self.low) / (span if abs(span) > 1e-9 else 1.0)


@dataclass(frozen=True)
class Mark:
    """A point.

    Attributes:
        x: position on the x axis.
        y: position on the y axis.
        colour: index into the palette.
        shape: "disc", "ring", "diamond", or "left" for a triangle at the edge that stands for a value beyond it.
        radius_px: radius in pixels.
        pale: whether the mark is faint, for little evidence.
        note: text of the tooltip.
    """

    x: float
    y: float
    colour: int = 0
    shape: str = "disc"
    radius_px: float = 4.0
    pale: bool = False
    note: str = ""


@dataclass(frozen=True)
class Whisker:
    """A horizontal interval at height `y`.

    Attributes:
        low: left end.
        high: right end.
        y: position on the y axis.
        colour: index into the palette.
        width_px: stroke width in pixels.
        note: text of the tooltip.
    """

    low: float
    high: float
    y: float
    colour: int = 0
    width_px: float = 2.0
    note: str = ""


@dataclass(frozen=True, eq=False)
class Line:
    """A line through points.

    Attributes:
        points: float (points, 2).
        colour: index into the palette; None for a guide.
        dash: index into `DASHES`.
        name: text at the right end; none if empty.
        width_px: stroke width in pixels.
    """

    points: np.ndarray
    colour: int | None = 0
    dash: int = 0
    name: str = ""
    width_px: float = 2.0


@dataclass(frozen=True)
class Key:
    """An entry of the legend: a name with the look that it stands for."""

    name: str
    colour: int
    shape: str = "disc"


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure.

    Attributes:
        title: caption and alternative text.
        x: horizontal axis.
        y: vertical axis.
        lines: lines, guides first.
        whiskers: intervals.
        marks: points, on top.
        legend: entries below the figure.
        right: texts at the right edge, by position on the y axis.
        note: second line of the caption.
        plot_px: height of the plot area in pixels.
    """

    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    whiskers: tuple[Whisker, ...] = ()
    marks: tuple[Mark, ...] = ()
    legend: tuple[Key, ...] = ()
    right: tuple[Tick, ...] = ()
    note: str = ""
    plot_px: int = 240


def round_ticks(low: float, high: float, least_step: float = 0.0) -> list[float]:
    """Three to six round numbers from low to high; the last is `high` or beyond it."""
    high = high if high - low > 1e-9 else low + 1
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = max(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999), least_step)
    first, last = np.ceil(low / step - 1e-9), np.ceil(high / step - 1e-9)
    return [float(step * number) + 0.0 for number in np.arange(first, last + 1)]
