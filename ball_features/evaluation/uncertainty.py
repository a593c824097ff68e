"""Intervals and paired tests; whatever belongs together (a group) is drawn together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["group_bootstrap", "holm", "mcnemar_exact", "paired_bootstrap", "wilson"]


def wilson(share: float, count: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, doi 10.2307/2276774); proper for shares of 0 and 1 too.

    Args:
        share: The proportion seen, in [0, 1].
        count: Independent trials behind it.
        level: Of confidence.
    """
    from scipy.stats import norm

    if count <= 0:
        return float("nan"), float("nan")
    z2 = float(norm.ppf(0.5 + level / 2)) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _weights(groups: int, draws: int, seed: int) -> np.ndarray:
    """How often each group is drawn, (draws, groups)."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)


def _sums(value: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, code = np.unique(group, return_inverse=True)
    return np.bincount(code, value), np.bincount(code).astype(float)


def group_bootstrap(
    value: np.ndarray, group: np.ndarray, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a mean, groups drawn with replacement (Field and Welsh 2007, cluster bootstrap).

    Where every value is the same (no error at all), resampling says nothing: the Wilson interval on the number of
    groups stands in.

    Args:
        value: float (images,), such as 1 for a hit and 0 for a miss.
        group: (images,), what is drawn together.
        level: Of confidence.
        draws: Bootstrap samples.
        seed: Of the draws.
    """
    total, size = _sums(value, group)
    if np.ptp(value) == 0 and value[0] in (0, 1):
        return wilson(float(value[0]), len(total), level)
    drawn = _weights(len(total), draws, seed)
    low, high = np.quantile((drawn @ total) / (drawn @ size), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def paired_bootstrap(
    difference: np.ndarray, group: np.ndarray, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Interval and two-sided p-value of a mean difference between two models on the same images.

    Args:
        difference: float (images,), one model's score less the other's.
        group: (images,), what is drawn together.
        level: Of confidence.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        (low, high, p); p counts the samples on the other side of 0 (Davison and Hinkley 1997, eq. 4.11).
    """
    total, size = _sums(difference, group)
    drawn = _weights(len(total), draws, seed)
    means = (drawn @ total) / (drawn @ size)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    tail = min((means <= 1e-12).sum(), (means >= -1e-12).sum())
    return float(low), float(high), min(1.0, 2 * (float(tail) + 1) / (draws + 1))


def mcnemar_exact(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided exact p-value of McNemar's test (McNemar 1947) for two models on the same images.

    Args:
        first: bool (images,), whether the first model is right.
        second: bool (images,), whether the second is.
    """
    from scipy.stats import binomtest

    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    both = only_first + only_second
    return float(binomtest(only_first, both).pvalue) if both else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values adjusted for their number (Holm 1979), (tests,)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    result = np.empty_like(p)
    result[order] = np.minimum(adjusted, 1)
    return result
