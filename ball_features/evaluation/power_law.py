"""A power law of the error by the number of training units, with its uncertainty, and what twice the units would bring.

error(n) = a n^-b + c: Hestness et al. 2017, "Deep learning scaling is predictable, empirically", arXiv:1712.00409;
Mukherjee et al. 2003, "Estimating dataset size requirements for classifying DNA microarray data", doi
10.1089/106652703321825928. The three numbers are fitted to each of many bootstrap samples, whose scatter is that of the
forecast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ball_features.evaluation.resampling import draw_groups, few_groups, widened_quantiles
from ball_features.evaluation.rows import Row

__all__ = ["DRAWS", "LEAST_SIZES", "ForecastRow", "Law", "draw_errors", "fit_law", "forecast"]

DRAWS = 1000
LEAST_SIZES = 4  # of three numbers, one size more
_EXPONENTS = np.geomspace(0.05, 3.0, 60)
_MOST_OFF = 3.0  # standard deviations of a measured size from the law


@dataclass(frozen=True, eq=False)
class Law:
    """Power laws, one a sample: error(n) = slope (n / whole)^-exponent + floor.

    Attributes:
        slope: part of the error at the largest size that more units can remove, float (samples,).
        exponent: float (samples,).
        floor: error that no number of units removes, float (samples,).
        whole: number of units at the largest size.
    """

    slope: np.ndarray
    exponent: np.ndarray
    floor: np.ndarray
    whole: float

    def error(self, units: float | np.ndarray) -> np.ndarray:
        """Error at numbers of units, float (samples,), or (samples, units) for several."""
        ratio = np.asarray(units, dtype=float) / self.whole
        if ratio.ndim == 0:
            return self.slope * ratio**-self.exponent + self.floor
        return self.slope[:, None] * ratio[None] ** -self.exponent[:, None] + self.floor[:, None]


@dataclass(frozen=True)
class ForecastRow(Row):
    """What twice the units would bring to a model.

    Attributes:
        model: name of the model; "" where the curve is nobody's, like the following.
        unit: unit that is counted.
        units: number of units at the largest size.
        first: number of units at the smallest size that the law was fitted to; at the largest without a law.
        reason: why the curve allows no forecast; "" where it does.
        sizes: number of sizes, from the largest down, that the law was fitted to.
        slope: see `Law`; NaN without a law, like the following.
        exponent: exponent of the law.
        exponent_low: lower end of its 95 % interval.
        exponent_high: upper end.
        floor: error that no number of units removes.
        gain: rise of the accuracy from the largest size to twice that.
        gain_low: lower end of its 95 % interval.
        gain_high: upper end.
        last_gain: measured rise of the accuracy over the last doubling, or the last step where it is smaller.
        last_low: lower end of its 95 % interval.
        last_high: upper end.
    """

    model: str = ""
    unit: str = ""
    units: float = math.nan
    first: float = math.nan
    reason: str = ""
    sizes: int = 0
    slope: float = math.nan
    exponent: float = math.nan
    exponent_low: float = math.nan
    exponent_high: float = math.nan
    floor: float = math.nan
    gain: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    last_gain: float = math.nan
    last_low: float = math.nan
    last_high: float = math.nan


def draw_errors(hits: np.ndarray, units: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Draw error rates of every size, with test units and seeds drawn anew (pigeonhole bootstrap, Owen 2007).

    All sizes share a draw, so that what they have in common, the test images, does not blur their differences.

    Args:
        hits: correctness, bool (sizes, seeds, tests).
        units: unit of each test image, int (tests,); images of one unit are drawn together.
        draws: number of samples.
        seed: seed of the draws.

    Returns:
        Error rates, float64 (draws, sizes).
    """
    sizes, seeds, tests = hits.shape
    code = few_groups(np.unique(units, return_inverse=True)[1], seed)
    count = np.bincount(code)
    wrong = np.zeros((len(count), sizes * seeds))
    np.add.at(wrong, code, 1.0 - hits.reshape(sizes * seeds, tests).T)
    drawn = np.concatenate(list(draw_groups(len(count), draws, seed)))
    rates = (drawn @ wrong / (drawn @ count)[:, None]).reshape(-1, sizes, seeds)
    chosen = np.random.default_rng([seed, 1]).multinomial(seeds, np.full(seeds, 1 / seeds), size=len(rates))
    return np.einsum("dsr,dr->ds", rates, chosen / seeds)


def fit_law(units: Sequence[float] | np.ndarray, error: np.ndarray, weight: np.ndarray) -> Law:
    """Fit a power law to each sample by weighted least squares, with slope and floor of 0 or more.

    Args:
        units: number of units of each size, (sizes,), increasing.
        error: error rates, float (samples, sizes).
        weight: weight of each size, float (sizes,).
    """
    n = np.asarray(units, dtype=float)
    best = np.full(len(error), np.inf)
    found = np.zeros((3, len(error)))
    total = weight.sum()
    mean_error = error @ weight / total
    for exponent in _EXPONENTS:
        x = (n / n[-1]) ** -exponent
        mean_x = float(x @ weight / total)
        spread = float(((x - mean_x) ** 2) @ weight)
        slope = ((x - mean_x) * weight) @ (error - mean_error[:, None]).T / max(spread, 1e-12)
        floor = mean_error - slope * mean_x
        alone = error @ (x * weight) / float((x * x) @ weight)  # without a floor
        slope, floor = np.where(floor < 0, alone, slope), np.maximum(floor, 0)
        floor, slope = np.where(slope < 0, mean_error, floor), np.maximum(slope, 0)
        left = ((slope[:, None] * x + floor[:, None] - error) ** 2) @ weight
        better = left < best - 1e-15
        best = np.where(better, left, best)
        found = np.where(better, np.stack([slope, np.full(len(error), exponent), floor]), found)
    return Law(*found, whole=float(n[-1]))


def forecast(units: Sequence[float], hits: np.ndarray, test_units: np.ndarray, *, seed: int = 0) -> ForecastRow:
    """Say what twice the units would bring, or why the curve does not tell.

    The law is fitted to all sizes; the smallest are left out while a measured error is further from the law than chance
    allows, since curves begin flatter than they go on (Hestness et al.). The interval is that of the laws of all drawn
    samples, fitted to these sizes and to fewer of the largest: how many sizes follow one law is not known either.

    Args:
        units: number of units of each size, increasing.
        hits: correctness, bool (sizes, seeds, tests).
        test_units: unit of each test image, int (tests,).
        seed: seed of the draws.
    """
    n = np.asarray(units, dtype=float)
    tests = np.unique(test_units, return_counts=True)[1]
    drawn = draw_errors(hits, test_units, seed=seed)
    error = 1.0 - hits.mean((1, 2))
    half = int(np.argmin(np.abs(n - n[-1] / 2)[:-1])) if len(n) > 1 else 0
    low, high = _ends(drawn[:, half] - drawn[:, -1], tests)
    last = ForecastRow(last_gain=float(error[half] - error[-1]), last_low=low, last_high=high)
    if len(n) < LEAST_SIZES:
        return replace(last, reason=f"{len(n)} sizes are too few for a law of three numbers")
    if len(tests) < 2:
        return replace(last, reason="the test set is a single unit, which leaves the chance in it unknown")
    if _ends(drawn[:, 0] - drawn[:, -1], tests)[0] <= 0:
        return replace(last, reason="the accuracy does not rise measurably from the smallest size to the largest")
    weight = 1 / np.maximum(error * (1 - error), 0.5 / hits.shape[2])
    found = None
    gains = []
    for start in range(len(n) - LEAST_SIZES + 1):
        own = slice(start, None)
        fitted = fit_law(n[own], error[None, own], weight[own])
        laws = fit_law(n[own], drawn[:, own], weight[own])
        off = np.abs(error[own] - fitted.error(n[own])[0])
        scatter = (drawn[:, own] - laws.error(n[own])).std(0)
        if (off <= _MOST_OFF * np.maximum(scatter, 0.5 / hits.shape[2])).all():
            found = found or _described(replace(last, sizes=len(n) - start), fitted, laws, tests)
            gains.append(laws.error(laws.whole) - laws.error(2 * laws.whole))
    if found is None:
        return replace(last, reason="the curve does not follow a power law")
    low, high = _ends(np.concatenate(gains), tests)
    return replace(found, gain_low=min(low, found.gain), gain_high=max(high, found.gain))


def _described(last: ForecastRow, fitted: Law, laws: Law, tests: np.ndarray) -> ForecastRow:
    """Add the law of the measured errors, and what it says of twice the units."""
    exponent_low, exponent_high = _ends(laws.exponent, tests)
    return replace(
        last,
        slope=float(fitted.slope[0]),
        exponent=float(fitted.exponent[0]),
        exponent_low=exponent_low,
        exponent_high=exponent_high,
        floor=float(fitted.floor[0]),
        gain=float(fitted.error(fitted.whole)[0] - fitted.error(2 * fitted.whole)[0]),
    )


def _ends(values: np.ndarray, tests: np.ndarray) -> tuple[float, float]:
    """95 % interval of drawn values, by the number of test images of each unit, (units,)."""
    if len(tests) < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(values, widened_quantiles(tests, 0.95))
    return float(low), float(high)
