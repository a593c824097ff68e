"""Figures for papers: the charts of a page drawn by matplotlib."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ball_features.errors import ConfigError
from ball_features.files import replacing
from ball_features.reporting.charts import DASHES, PALETTE, Axis, Chart, Mark
from ball_features.reporting.heat import MANY_CLASSES, Heat
from ball_features.reporting.layout import apart
from ball_features.reporting.scatter import EmbeddingMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

__all__ = ["FORMATS", "check_formats", "draw", "draw_heat", "draw_map", "save"]

FORMATS = ("svg", "pdf", "png")
_COLUMN_IN, _WIDE_IN = 3.5, 5.5  # widths of a journal's column and of one and a half
_PX_PER_IN = 110  # of the plot's height, which charts give in pixels of a screen
_POINTS_PER_PX = 0.65
_GREY = "#999999"
_STYLE: dict[Any, Any] = {
    "font.size": 7,
    "font.family": "sans-serif",
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in a name is one
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ball",  # the same figure gives the same file
    "pdf.fonttype": 42,
}
_SHAPES = {"disc": "o", "ring": "o", "diamond": "D", "left": "<"}


def check_formats(formats: Sequence[str]) -> None:
    """Raise `ConfigError` for a format that figures are not written in."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        got = unknown[0] if unknown else "none"
        raise ConfigError(f"Got the figure format {got!r}, expected one or more of: {', '.join(FORMATS)}.")


def _styled(make: Callable[[T], Figure]) -> Callable[[T], Figure]:
    """Draw in a journal's style, whatever the settings of the caller are."""

    @functools.wraps(make)
    def styled(content: T) -> Figure:
        with _style():
            return make(content)

    return styled


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """The style, and nothing of the settings of a user or of the folder that is worked in."""
    with _beside_its_defaults():
        import matplotlib
        import matplotlib.backends.backend_agg  # which looks for fonts

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


@contextlib.contextmanager
def _beside_its_defaults() -> Iterator[None]:
    """Where matplotlib is imported: it reads the first matplotlibrc that it finds, and fails or waits by what it is.

    Nor does it matter that it cannot keep anything in the user's own folder.
    """
    log = logging.getLogger("matplotlib")
    level = log.level
    with contextlib.ExitStack() as stack:
        stack.callback(log.setLevel, level)
        log.setLevel(logging.ERROR)
        found = importlib.util.find_spec("matplotlib") if "matplotlib" not in sys.modules else None
        if found is not None and found.origin is not None:
            defaults = Path(found.origin).parent / "mpl-data"
            with contextlib.suppress(OSError):  # the folder that is worked in may be gone
                stack.enter_context(contextlib.chdir(defaults))
        yield


def save(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure in each format.

    Args:
        figure: figure to write.
        stem: path without an ending.
        formats: names in `FORMATS`.

    Returns:
        The files.
    """
    files = []
    for name in formats:
        files.append(stem.with_name(f"{stem.name}.{name}"))
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(name)
        with _style():
            drawn = io.BytesIO()  # matplotlib fails in its own way where a disk does
            figure.savefig(drawn, dpi=300, bbox_inches="tight", metadata=undated, format=name)
            with replacing(files[-1]) as partial:
                partial.write_bytes(drawn.getvalue())
    return files


@_styled
def draw(chart: Chart) -> Figure:
    """A chart as a figure; its title and note belong into the caption."""
    wide = bool(chart.right) or any(line.name for line in chart.lines)
    figure, axes = _figure(_WIDE_IN if wide else _COLUMN_IN, chart.plot_px / _PX_PER_IN)
    _axis(axes.xaxis, axes.set_xlim, chart.x)
    _axis(axes.yaxis, axes.set_ylim, chart.y)
    axes.set_xlabel(chart.x.label)
    axes.set_ylabel(chart.y.label)
    for line in chart.lines:
        colour = _GREY if line.colour is None else PALETTE[line.colour]
        style = (0, (2, 2)) if line.colour is None else _dash(line.dash)
        axes.plot(*line.points.T, color=colour, linestyle=style, linewidth=_POINTS_PER_PX * line.width_px)
    for whisker in chart.whiskers:
        width = _POINTS_PER_PX * whisker.width_px
        axes.hlines(whisker.y, whisker.low, whisker.high, color=PALETTE[whisker.colour], linewidth=width)
    for mark in chart.marks:
        _mark(axes, mark)
    _right(axes, chart)
    for key in chart.legend:
        if chart.marks:
            axes.plot([], [], _SHAPES[key.shape], color=PALETTE[key.colour], markersize=4, label=key.name)
        else:
            axes.plot([], [], color=PALETTE[key.colour], linestyle=_dash(key.colour), label=key.name)
    if chart.legend:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -(22 + 14 * bool(chart.x.label)) / chart.plot_px), ncols=2)
    return figure


@_styled
def draw_heat(matrix: Heat) -> Figure:
    """A matrix of shares with, where there are few classes, the share in % and the count in each cell."""
    share = np.array([[float(cell.percent) for cell in row.cells] for row in matrix.rows])
    side = max(_COLUMN_IN, 0.09 * share.shape[1]) if share.shape[1] > MANY_CLASSES else 0.6 * share.shape[1] + 0.4
    figure, axes = _figure(side, side * share.shape[0] / share.shape[1])
    axes.imshow(share, cmap="Blues", vmin=0, vmax=150, aspect="auto")
    axes.set_xticks(range(share.shape[1]), matrix.names, rotation=0 if share.shape[1] <= MANY_CLASSES else 90)
    axes.set_yticks(range(share.shape[0]), [row.name for row in matrix.rows])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if share.shape[1] <= MANY_CLASSES:
        for y, row in enumerate(matrix.rows):
            for x, cell in enumerate(row.cells):
                axes.text(x, y, f"{cell.percent} %\n{cell.count}", ha="center", va="center", fontsize=6)
    return figure


@_styled
def draw_map(points: EmbeddingMap) -> Figure:
    """The map of embeddings in its first colouring, the class."""
    figure, axes = _figure(_COLUMN_IN, _COLUMN_IN * 0.7)
    place = np.array([(x, -y) for x, y, *_ in points.points], dtype=float)
    look = np.array([looks[0] for *_, looks in points.points])
    for number, name in points.colourings[0].legend:
        own = place[look == number]
        face = "none" if number >= len(PALETTE) else PALETTE[number % len(PALETTE)]
        edge = PALETTE[number % len(PALETTE)]
        axes.scatter(*own.T, s=5, facecolors=face, edgecolors=edge, linewidths=0.4, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, markerscale=1.5)
    return figure


def _figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width_in, height_in))
    FigureCanvasAgg(figure)
    return figure, figure.add_axes((0, 0, 1, 1))


def _axis(axis, limit, own: Axis) -> None:
    limit(own.low, own.high)
    axis.set_ticks([tick.at for tick in own.ticks], [tick.text for tick in own.ticks])
    if own.rules:
        axis.grid(True, color="#dddddd", linewidth=0.4)
        axis.axes.set_axisbelow(True)


def _dash(number: int) -> tuple[int, tuple[float, ...]]:
    """A line style of `DASHES` as matplotlib takes it."""
    return 0, tuple(float(part) for part in DASHES[number % len(DASHES)].split()) or (1.0, 0.0)


def _mark(axes: Axes, mark: Mark) -> None:
    colour = PALETTE[mark.colour]
    axes.plot(
        [mark.x],
        [mark.y],
        _SHAPES[mark.shape],
        color=colour,
        markerfacecolor="none" if mark.shape == "ring" else colour,
        markeredgewidth=0.6,
        markersize=2 * _POINTS_PER_PX * mark.radius_px,
        alpha=0.3 if mark.pale else 1.0,
        clip_on=False,
    )


def _right(axes: Axes, chart: Chart) -> None:
    """Texts at the right edge: numbers of the rows, names of the lines."""
    for tick in chart.right:
        axes.annotate(tick.text, (1.01, chart.y.share(tick.at)), xycoords="axes fraction", va="center")
    named = [line for line in chart.lines if line.name]
    heights = [chart.plot_px * (1 - chart.y.share(float(line.points[-1, 1]))) for line in named]
    for line, height in zip(named, apart(heights, 0, chart.plot_px), strict=True):
        end = (chart.x.share(float(line.points[-1, 0])), chart.y.share(float(line.points[-1, 1])))
        colour = _GREY if line.colour is None else PALETTE[line.colour]
        axes.annotate(
            line.name,
            end,
            (1.02, 1 - height / chart.plot_px),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )
