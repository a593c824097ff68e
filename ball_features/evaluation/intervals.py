"""Confidence intervals that respect groups: images that belong together are drawn together."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int, Shaped

from ball_features.evaluation.metrics import METRICS, Metric
from ball_features.evaluation.pooled import Pooled
from ball_features.evaluation.resampling import Draws, group_sums, variance_factor, widened_quantiles

__all__ = ["Interval", "metric_intervals", "share_interval", "wilson"]

Interval = tuple[float, float]

_UNKNOWN = (float("nan"), float("nan"))


def wilson(share: float, count: float, level: float = 0.95) -> Interval:
    """Compute the score interval of a proportion (Wilson 1927, doi 10.2307/2276774), which holds for 0 and 1 too.

    Args:
        share: proportion seen, in [0, 1].
        count: number of independent trials.
        level: confidence level.
    """
    from scipy.stats import norm

    if count <= 0:
        return _UNKNOWN
    z2 = float(norm.ppf(0.5 + level / 2)) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def share_interval(
    hit: Shaped[np.ndarray, " images"],
    group: Shaped[np.ndarray, " images"],
    *,
    images: int | None = None,
    level: float = 0.95,
    variance: float = 0.0,
) -> Interval:
    """Compute the score interval of a share that respects groups, for few groups and for a share of 0 or 1 too.

    The interval is Wilson's on the effective number of images, which is the number of independent images that would
    scatter as the groups do, with Student's t of the groups in place of the normal quantile (Korn and Graubard 1998,
    "Confidence intervals for proportions with small expected number of positive counts estimated from survey data").
    The variance has no bias where groups of unequal size scatter alike (`variance_factor`). Where every image is right,
    nothing scatters, and the effective number is that of groups of equal size (Kish 1965): an error would strike a
    whole group.

    Args:
        hit: 1 or True for a hit, (predictions,); an image that was tested several times appears several times.
        group: group of each prediction, (predictions,).
        images: number of distinct images, which bounds the effective number; the number of predictions if None.
        level: confidence level.
        variance: variance of the share beside that between groups, such as that of drawn training sets.
    """
    from scipy.stats import norm, t

    total, size = group_sums(np.asarray(hit, dtype=np.float64), group)
    count = size.sum()
    share = float(total.sum() / count)
    if len(size) < 2:
        return wilson(share, 1, level)
    variance += variance_factor(size) * np.square(total - share * size).sum() / count**2
    kish = float(count**2 / np.square(size).sum())
    effective = share * (1 - share) / variance if variance > 1e-15 and 0 < share < 1 else kish
    effective = min(effective, float(images or count))
    quantile = 0.5 + level / 2
    return wilson(share, effective * float(norm.ppf(quantile) / t.ppf(quantile, len(size) - 1)) ** 2, level)


def metric_intervals(
    truth: Int[np.ndarray, " tests"],
    probability: Float[np.ndarray, "tests classes"],
    group: Shaped[np.ndarray, " tests"],
    *,
    images: int | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute the interval of every registered metric by a bootstrap over groups (Field and Welsh 2007).

    The percentile intervals are widened where groups are few (Hesterberg 2015). A share of the predictions, such as the
    accuracy, gets `share_interval`. A rate that is 1 or 0 in every bootstrap sample gets the mean over classes of that
    interval. A metric without `constant_has_interval`, such as AUROC and MCC, has no interval (NaN) where every sample
    gives the same value, nor has any metric of a single group.

    Args:
        truth: class indices, int (predictions,); an image that was tested several times appears several times.
        probability: class probabilities, float (predictions, classes).
        group: group of each prediction, (predictions,).
        images: number of distinct images; the number of predictions if None.
        level: confidence level.
        draws: number of bootstrap samples; the AUROC of many predictions takes fewer.
        seed: seed of the draws.

    Returns:
        Name of a metric -> (low, high), in the order of `METRICS`.
    """
    pooled = Pooled(truth, probability)
    sums = {name: metric.sums(pooled) for name, metric in METRICS.items() if metric.sums is not None}
    drawn = Draws.of(pooled, group, sums, draws, seed)
    found = {}
    for name, metric in METRICS.items():
        if metric.share is not None:
            found[name] = share_interval(metric.share(pooled), group, images=images, level=level)
        elif metric.drawn is not None:
            found[name] = _interval(metric.drawn(drawn), metric, drawn, level)
    return found


def _interval(values: np.ndarray, metric: Metric, draws: Draws, level: float) -> Interval:
    values = values[np.isfinite(values)]
    constant = len(values) > 0 and np.ptp(values) == 0
    if not len(values) or draws.groups == 1 or (constant and not metric.constant_has_interval):
        return _UNKNOWN
    if constant and values[0] in (0, 1):
        truth, group = draws.pooled.truth, draws.group
        value = np.full(len(truth), values[0])
        each = [share_interval(value[truth == own], group[truth == own], level=level) for own in np.unique(truth)]
        return float(np.mean([low for low, _ in each])), float(np.mean([high for _, high in each]))
    low, high = np.quantile(values, widened_quantiles(np.bincount(draws.unit), level))
    return float(low), float(high)
