"""Curves of a run: pure functions of numbers that give charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ball_features.dataset.manifest import spread_rows
from ball_features.evaluation.metrics import BINS, confidence_bins
from ball_features.reporting.charts import DASHES, PALETTE, Axis, Chart, Key, Line, Mark, Tick, round_ticks

__all__ = ["LEAST_BIN", "lines", "reliability", "reliability_points", "roc", "roc_points", "roc_says_little"]

LEAST_BIN = 20  # images of a bin whose accuracy says something: its standard error is below 12 points
_CORNER = (0.01, 0.99)  # rates beyond which a ROC curve hugs the corner


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


def roc_says_little(curves: Mapping[str, np.ndarray]) -> bool:
    """Whether every curve reaches 99 % true positives at 1 % false ones, so that a plot shows nothing else."""
    false, true = _CORNER
    return all((points[points[:, 0] <= false, 1] >= true).any() for points in curves.values())


def roc(curves: Mapping[str, np.ndarray], title: str, negatives: int) -> Chart:
    """ROC curves on a logarithmic axis of false positives, which shows the corner that matters.

    Args:
        curves: class -> array from `roc_points`.
        title: caption and alternative text.
        negatives: largest number of images that are not of a class: the smallest rate above 0 is one over it.
    """
    low = math.floor(math.log10(1 / max(negatives, 10)))
    drawn = {
        name: np.column_stack([np.log10(np.maximum(points[:, 0], 10.0**low)), points[:, 1]])
        for name, points in curves.items()
    }
    start = min((points[points[:, 0] <= low, 1].max(initial=0.0) for points in drawn.values()), default=0.0)
    bottom = math.floor(10 * start * 0.999) / 10
    at_x = tuple(Tick(power, f"{100 * 10.0**power:g}") for power in range(low, 1))
    at_y = tuple(Tick(tick, f"{100 * tick:g}") for tick in round_ticks(bottom, 1.0) if tick <= 1)
    shown = {name: points[points[:, 1] >= bottom] for name, points in drawn.items()}
    x, y = (
        Axis(low, 0, at_x, "false positives in %, logarithmic", rules=True),
        Axis(bottom, 1, at_y, "true positives in %"),
    )
    return Chart(title, x, y, lines=_numbered(shown), legend=_keys(shown))


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
    low = 0.5 if points[:, :2].min() >= 0.5 else 0.0
    ticks = tuple(Tick(share, f"{share:g}") for share in (low, (1 + low) / 2, 1.0))
    equal = Line(np.array([[low, low], [1.0, 1.0]]), None)
    axes = Axis(low, 1, ticks, "confidence"), Axis(low, 1, ticks, "accuracy")
    return Chart(title, *axes, lines=(equal, *joined), marks=marks, note=note)


def lines(series: Mapping[str, np.ndarray], title: str, x_label: str, y_label: str) -> Chart:
    """Lines over whole numbers such as epochs, with a legend.

    Args:
        series: name -> float (points, 2).
        title: caption and alternative text.
        x_label: name of the quantity on the x axis.
        y_label: name of the quantity on the y axis.
    """
    every = np.concatenate([points for points in series.values() if len(points)] or [np.zeros((1, 2))])
    (low_x, low_y), (high_x, high_y) = np.minimum(every.min(0), [np.inf, 0]).tolist(), every.max(0).tolist()
    at_y = round_ticks(low_y, high_y)
    y = Axis(low_y, at_y[-1], tuple(Tick(tick, f"{tick:g}") for tick in at_y), y_label)
    # Whole numbers, none behind the last.
    at_x = tuple(Tick(tick, f"{tick:g}") for tick in round_ticks(low_x, high_x, 1.0) if tick <= high_x)
    return Chart(title, Axis(low_x, high_x, at_x, x_label), y, lines=_numbered(series), legend=_keys(series))


def _numbered(series: Mapping[str, np.ndarray]) -> tuple[Line, ...]:
    return tuple(
        Line(points, number % len(PALETTE), number % len(DASHES)) for number, points in enumerate(series.values())
    )


def _keys(names: Mapping[str, np.ndarray] | Sequence[str]) -> tuple[Key, ...]:
    return tuple(Key(name, number % len(PALETTE)) for number, name in enumerate(names))
