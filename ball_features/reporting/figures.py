"""Figures of a run: pure functions of numbers that give charts and other records for the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ball_features.dataset.manifest import spread_rows
from ball_features.evaluation.metrics import BINS, confidence_bins
from ball_features.reporting.charts import (
    DASHES,
    PALETTE,
    STYLES,
    Axis,
    Chart,
    Key,
    Line,
    Mark,
    Tick,
    Whisker,
    round_ticks,
)

__all__ = [
    "LEAST_BIN",
    "Colouring",
    "EmbeddingMap",
    "Heat",
    "HeatCell",
    "HeatRow",
    "embedding_map",
    "heat",
    "lines",
    "recalls",
    "reliability",
    "reliability_points",
    "roc_points",
]

LEAST_BIN = 20  # images of a bin whose accuracy says something: its standard error is below 12 points
_SHADES = 20  # steps of the shading of a confusion matrix
_SHARES = tuple(Tick(share, f"{share:g}") for share in (0.0, 0.5, 1.0))
_DIAGONAL = Line(np.array([[0.0, 0.0], [1.0, 1.0]]), None)
_MAP_PX, _MAP_MARGIN_PX = (620, 420), 10


def roc_points(positive: np.ndarray, score: np.ndarray, points: int = 200) -> np.ndarray:
    """The ROC curve, float (points, 2) of false and true positive rate, thinned.

    Args:
        positive: bool (images,) with both values.
        score: float (images,).
        points: largest number of points.
    """
    from sklearn.metrics import roc_curve

    curve = np.column_stack(roc_curve(positive, score, drop_intermediate=False)[:2])
    return curve[spread_rows(len(curve), points)]


def reliability_points(truth: np.ndarray, probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Mean confidence, accuracy and images of each bin of confidence that has images, (bins, 3): the bins of the ECE.

    Args:
        truth: int (images,).
        probability: float (images, classes).
        bins: number of bins of equal width.
    """
    confidence, hit = probability.max(1), probability.argmax(1) == truth
    place = confidence_bins(confidence, bins)
    each = ((confidence[place == b], hit[place == b]) for b in np.unique(place))
    return np.array([[own.mean(), right.mean(), len(own)] for own, right in each])


def reliability(points: np.ndarray, title: str, note: str = "") -> Chart:
    """A reliability diagram: a disc a bin, its area the share of images; small bins are pale and no line joins them.

    Args:
        points: array from `reliability_points`.
        title: caption and alternative text.
        note: second line of the caption.
    """
    large = points[points[:, 2] >= LEAST_BIN]
    joined = (Line(large[:, :2], width_px=1.5),) if len(large) > 1 else ()
    marks = tuple(
        Mark(
            x,
            y,
            radius_px=float(2 + 10 * np.sqrt(count / points[:, 2].sum())),
            pale=bool(count < LEAST_BIN),
            note=f"{count:.0f} images: confidence {x:.3f}, accuracy {y:.3f}",
        )
        for x, y, count in points.tolist()
    )
    axes = Axis(0, 1, _SHARES, "confidence"), Axis(0, 1, _SHARES, "accuracy")
    return Chart(title, *axes, lines=(_DIAGONAL, *joined), marks=marks, note=note)


def lines(
    series: Mapping[str, np.ndarray],
    title: str,
    x_label: str,
    y_label: str,
    *,
    diagonal: bool = False,
    names_x: Sequence[str] = (),
) -> Chart:
    """Lines with a legend.

    Args:
        series: name -> float (points, 2).
        title: caption and alternative text.
        x_label: name of the quantity on the x axis.
        y_label: name of the quantity on the y axis.
        diagonal: whether both axes run from 0 to 1, with the line of equality.
        names_x: texts below x = 0, 1, ...; numbers if empty.
    """
    every = np.concatenate([points for points in series.values() if len(points)] or [np.zeros((1, 2))])
    if diagonal:
        x, y = Axis(0, 1, _SHARES, x_label), Axis(0, 1, _SHARES, y_label)
    else:
        (low_x, low_y), (high_x, high_y) = np.minimum(every.min(0), [np.inf, 0]).tolist(), every.max(0).tolist()
        at_y = round_ticks(low_y, high_y)
        y = Axis(low_y, at_y[-1], tuple(Tick(tick, f"{tick:g}") for tick in at_y), y_label)
        # Epochs: whole numbers, none behind the last.
        at_x = tuple(Tick(tick, f"{tick:g}") for tick in round_ticks(low_x, high_x, 1.0) if tick <= high_x)
        x = Axis(low_x, high_x, at_x, x_label)
    if names_x:
        x = Axis(-0.5, len(names_x) - 0.5, tuple(Tick(at, name) for at, name in enumerate(names_x)), x_label)
    drawn = tuple(
        Line(points, number % len(PALETTE), number % len(DASHES)) for number, points in enumerate(series.values())
    )
    legend = tuple(Key(name, number % len(PALETTE)) for number, name in enumerate(series))
    return Chart(title, x, y, lines=((_DIAGONAL,) if diagonal else ()) + drawn, legend=legend)


def recalls(values: Sequence[tuple[str, float, float, float]], title: str) -> Chart:
    """Shares with intervals, one a row, on an axis from 0 to 100 %.

    Args:
        values: (name, share, low, high), shares in [0, 1].
        title: caption and alternative text.
    """
    percent = tuple(Tick(float(value), f"{value}") for value in (0, 25, 50, 75, 100))
    rows = tuple(Tick(number, name) for number, (name, *_) in enumerate(values))
    return Chart(
        title,
        Axis(0, 100, percent, rules=True),
        Axis(len(values) - 0.5, -0.5, rows),
        whiskers=tuple(Whisker(100 * low, 100 * high, row) for row, (_, _, low, high) in enumerate(values)),
        marks=tuple(Mark(100 * share, row) for row, (_, share, _, _) in enumerate(values)),
        right=tuple(Tick(row, f"{100 * share:.1f}") for row, (_, share, _, _) in enumerate(values)),
        plot_px=22 * max(len(values), 1),
    )


@dataclass(frozen=True)
class HeatCell:
    """A cell of a confusion matrix: its count, its share of the true class in %, and its shade from 0 to 20."""

    count: int
    percent: str
    shade: int


@dataclass(frozen=True)
class HeatRow:
    """A true class of a confusion matrix."""

    name: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class Heat:
    """A confusion matrix: a row a true class, a column a predicted one."""

    title: str
    names: tuple[str, ...]
    rows: tuple[HeatRow, ...]


def heat(counts: np.ndarray, names: Sequence[str], title: str) -> Heat:
    """A confusion matrix as counts and as shares of the true class.

    Args:
        counts: int (classes, classes), a row a true class.
        names: names of the classes.
        title: caption.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = tuple(
        HeatRow(
            name,
            tuple(
                HeatCell(int(count), f"{100 * part:.1f}", round(_SHADES * part))
                for count, part in zip(counts[row].tolist(), share[row].tolist(), strict=True)
            ),
        )
        for row, name in enumerate(names)
    )
    return Heat(title, tuple(names), rows)


@dataclass(frozen=True)
class Colouring:
    """A way to colour the map.

    Attributes:
        name: name of the choice.
        legend: (number of the look, name) of each value that is shown.
    """

    name: str
    legend: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class EmbeddingMap:
    """Points that can be coloured in several ways.

    Attributes:
        name: id of the map within the page.
        colourings: ways to colour it; the first is shown.
        points: (x, y, text, number of the look in each colouring) of each point.
        pictures: data address of each point's thumbnail, or none at all.
    """

    name: str
    colourings: tuple[Colouring, ...]
    points: tuple[tuple[int, int, str, tuple[int, ...]], ...]
    pictures: tuple[str, ...] = ()


def embedding_map(
    place: np.ndarray,
    text: Sequence[str],
    colourings: Mapping[str, tuple[Sequence[str], np.ndarray]],
    *,
    name: str = "map",
    pictures: Sequence[str] = (),
) -> EmbeddingMap:
    """Points that can be coloured in several ways, with a text each, to point at or to walk through by arrow keys.

    Args:
        place: float (images, 2).
        text: description of each point.
        colourings: name -> (names of the values, int (images,) value of each point); the first is shown.
        name: id of the map within the page.
        pictures: data address of each point's thumbnail, or none at all.
    """
    low, span = place.min(0), np.maximum(np.ptp(place, axis=0), 1e-9)
    at = np.rint((place - low) / span * _MAP_PX + _MAP_MARGIN_PX).astype(int)
    looks = np.column_stack([value % (len(PALETTE) * STYLES) for _, value in colourings.values()])
    points = tuple(
        (x, y, said, tuple(own)) for (x, y), said, own in zip(at.tolist(), text, looks.tolist(), strict=True)
    )
    choices = tuple(
        Colouring(key, tuple((value, item) for value, item in enumerate(names) if item))
        for key, (names, _) in colourings.items()
    )
    return EmbeddingMap(name, choices, points, tuple(pictures))
