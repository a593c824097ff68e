"""Tests between models on the same images, and the price of choosing the best; groups stay together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Real, Shaped

from ball_features.evaluation.resampling import (
    block_rows,
    draw_groups,
    few_groups,
    group_sums,
    widened_quantiles,
)

__all__ = ["corrected_best", "holm", "mcnemar_exact", "paired_bootstrap"]

_EXACT_GROUPS = 12
_FLIPS = 9999


def paired_bootstrap(
    difference: Real[np.ndarray, " images"],
    group: Shaped[np.ndarray, " images"],
    *,
    tests: Real[np.ndarray, " images"] | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Compute the interval and two-sided p-value of the difference in accuracy between two models on the same images.

    The difference is the sum of differences over the number of tests, so that an image tested twice counts twice, as it
    does in the accuracies.

    The interval comes from a bootstrap over groups (Field and Welsh 2007), widened where they are few (Hesterberg
    2015). The p-value comes from a permutation test that flips the sign of whole groups (Fisher 1935; Good 2005,
    "Permutation, parametric and bootstrap tests of hypotheses", section 3.2). It keeps its level for few groups, where
    a bootstrap rejects far too often. All patterns of signs are tried where up to twelve groups differ, else 9,999.

    Args:
        difference: correct predictions of one model less those of the other, float (images,).
        group: group of each image, (images,).
        tests: number of tests of each image, (images,); 1 each if None.
        level: confidence level.
        draws: number of bootstrap samples.
        seed: seed of the draws.

    Returns:
        (low, high, p); a single group has no interval (NaN) and p = 1.
    """
    total, size = group_sums(difference, few_groups(np.unique(group, return_inverse=True)[1], seed), tests)
    if len(total) < 2:
        return float("nan"), float("nan"), 1.0
    shares = [(drawn @ total) / (drawn @ size) for drawn in draw_groups(len(total), draws, seed)]
    low, high = np.quantile(np.concatenate(shares), widened_quantiles(size, level))
    return float(low), float(high), _sign_flips(total[np.abs(total) > 1e-12], seed)


def _sign_flips(total: Float[np.ndarray, " groups"], seed: int) -> float:
    """Compute the p-value of the sum of groups' differences, (groups,), by flipping their signs."""
    count = len(total)
    least = abs(total.sum()) - 1e-9
    if count <= _EXACT_GROUPS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((np.abs(signs @ total) >= least).mean())
    rng = np.random.default_rng(seed)
    reached = 0
    rows = min(1000, block_rows(count))
    for start in range(0, _FLIPS, rows):
        signs = 1 - 2 * rng.integers(0, 2, (min(rows, _FLIPS - start), count), dtype=np.int8)
        reached += int((np.abs(signs @ total) >= least).sum())
    return (reached + 1) / (_FLIPS + 1)


def corrected_best(
    right: Real[np.ndarray, "images models"],
    tests: Real[np.ndarray, " images"],
    group: Shaped[np.ndarray, " images"],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Estimate the accuracy of the best of several models on images that did not choose it.

    The best accuracy of a table is optimistic, because it was chosen for being the best. Here groups are drawn with
    replacement, the best model on them is chosen, and its accuracy on the groups that were not drawn counts (BBC-CV:
    Tsamardinos, Greasidou and Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation", doi 10.1007/s10994-018-5714-4).

    Args:
        right: number of correct predictions, (images, models); the first of equally good models is chosen.
        tests: number of tests of each image, (images,).
        group: group of each image, (images,).
        level: confidence level.
        draws: number of bootstrap samples.
        seed: seed of the draws.

    Returns:
        (accuracy, low, high); NaN for fewer than two groups.
    """
    code = few_groups(np.unique(group, return_inverse=True)[1], seed)
    size = np.bincount(code, tests)
    if len(size) < 2:
        return float("nan"), float("nan"), float("nan")
    total = np.column_stack([np.bincount(code, column) for column in right.T])  # (groups, models)
    parts = []
    for drawn in draw_groups(len(size), draws, seed):
        chosen = (drawn @ total).argmax(1)  # the number of tests is the same for all models
        out = (drawn == 0).astype(float)
        out, chosen = out[out.any(1)], chosen[out.any(1)]
        parts.append((out @ total)[np.arange(len(out)), chosen] / (out @ size))
    reached = np.concatenate(parts)
    low, high = np.quantile(reached, [0.5 - level / 2, 0.5 + level / 2])
    return float(reached.mean()), float(low), float(high)


def mcnemar_exact(first: Bool[np.ndarray, " images"], second: Bool[np.ndarray, " images"]) -> float:
    """Compute the two-sided exact p-value of McNemar's test (McNemar 1947) for two models on the same images.

    Args:
        first: correctness of the first model, bool (images,).
        second: correctness of the second model, bool (images,).
    """
    from scipy.stats import binomtest

    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    both = only_first + only_second
    return float(binomtest(only_first, both).pvalue) if both else 1.0


def holm(p_values: Sequence[float]) -> Float[np.ndarray, " tests"]:
    """Adjust p-values for their number (Holm 1979), float64 (tests,)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    result = np.empty_like(p)
    result[order] = np.minimum(adjusted, 1)
    return result
