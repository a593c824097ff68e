"""Points of a learning curve: accuracy of every model at every size, and what twice the units would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ball_features.dataset.nested import Size
from ball_features.evaluation.intervals import share_interval
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.power_law import ForecastRow, forecast
from ball_features.evaluation.protocols import ModelResult
from ball_features.evaluation.rows import Row

__all__ = ["CurveRow", "curve_rows", "forecast_rows", "say_forecast"]

_POINT = 0.01
_LITTLE = 0.5 * _POINT


@dataclass(frozen=True)
class CurveRow(Row):
    """A model at one size of training set.

    Attributes:
        model: name of the model.
        kind: "head", "baseline" or "shortcut".
        unit: unit that is counted: "image", "patient", "site" or another column.
        size: number of the size, from 0, as `fold` in `splits.csv` and `predictions.csv`.
        units: number of units that train and validate, mean over the subsets.
        images: number of images that do.
        subsets: number of subsets (seeds) that were fitted.
        lost: number of them that lack a class.
        accuracy: share of correct predictions of the test images, pooled over the subsets.
        accuracy_low: lower end of its 95 % interval, by the scatter of test units and of subsets.
        accuracy_high: upper end.
        recall: macro average.
        log_loss: mean log loss.
    """

    model: str
    kind: str
    unit: str
    size: int
    units: float
    images: float
    subsets: int
    lost: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    recall: float
    log_loss: float


def curve_rows(
    results: Sequence[ModelResult], sizes: Sequence[Size], codes: np.ndarray, units: np.ndarray, noun: str
) -> list[CurveRow]:
    """Measure every model at every size; a size at which a model could not be fitted has no row.

    Args:
        results: a result a model, its splits those of `nested_splits`.
        sizes: sizes of the subsets.
        codes: class index of each image, int (images,).
        units: int (images,); test images of one unit count once.
        noun: name of the unit that sizes count.
    """
    rows = []
    for result in results:
        for number, size in enumerate(sizes):
            own = [item for item in result.fitted if item.split.fold == number]
            if not own:
                continue
            test = own[0].split.test
            truth, probability = np.tile(codes[test], len(own)), np.concatenate([item.probability for item in own])
            hit = (probability.argmax(1) == truth).reshape(len(own), len(test))
            scores = evaluate_predictions(truth, probability)
            between = float(hit.mean(1).var(ddof=1) / len(own)) if len(own) > 1 else 0.0
            low, high = share_interval(hit.ravel(), np.tile(units[test], len(own)), images=len(test), variance=between)
            rows.append(
                CurveRow(
                    model=result.spec.name,
                    kind=result.spec.kind,
                    unit=noun,
                    size=number,
                    units=size.units,
                    images=size.images,
                    subsets=len(own),
                    lost=size.lost,
                    accuracy=float(hit.mean()),
                    accuracy_low=low,
                    accuracy_high=high,
                    recall=scores.values["recall"],
                    log_loss=scores.values["log_loss"],
                )
            )
    return rows


def forecast_rows(
    results: Sequence[ModelResult], sizes: Sequence[Size], codes: np.ndarray, units: np.ndarray, noun: str
) -> list[ForecastRow]:
    """Fit a power law to the curve of every model; arguments as `curve_rows`."""
    rows = []
    for result in results:
        found, kept = [], []
        for number in range(len(sizes)):
            own = [item for item in result.fitted if item.split.fold == number]
            if len(own) == sizes[number].subsets:
                test = own[0].split.test
                found.append(np.stack([item.probability.argmax(1) == codes[test] for item in own]))
                kept.append(sizes[number].units)
        if found:
            test = result.fitted[0].split.test
            law = forecast(kept, np.stack(found), units[test])
            first = kept[-max(law.sizes, 1)]
            rows.append(replace(law, model=result.spec.name, unit=noun, units=kept[-1], first=first))
    return rows


def say_forecast(row: ForecastRow) -> str:
    """The forecast of a model in a sentence."""
    last = f"the last doubling brought {_points(row.last_gain, row.last_low, row.last_high)}"
    if row.reason:
        return f"{row.model}: no forecast, since {row.reason}; {last}."
    twice = f"twice the {row.unit}s ({2 * row.units:.0f} instead of {row.units:.0f}) would bring"
    gain = f"{_points(row.gain, row.gain_low, row.gain_high)} of accuracy"
    if row.gain_high < _LITTLE:
        return f"{row.model}: {twice} less than half a point: {gain}; {last}."
    doubt = " The interval begins near 0: it may be nothing." if row.gain_low < 0.1 * _POINT else ""
    return f"{row.model}: {twice} about {gain}, if the power law holds; {last}.{doubt}"


def _points(value: float, low: float, high: float) -> str:
    """A difference in points with its interval; 0 has no sign."""
    value, low, high = (round(own / _POINT, 1) + 0.0 for own in (value, low, high))
    return f"{value:+.1f} ({low:.1f} to {high:.1f}) points"
