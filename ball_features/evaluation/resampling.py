"""Bootstrap samples of whole groups, and what every metric is computed from in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from ball_features.evaluation.pooled import Pooled

__all__ = [
    "MOST_GROUPS",
    "Draws",
    "Sums",
    "block_rows",
    "draw_groups",
    "few_groups",
    "group_sums",
    "variance_factor",
    "widened_quantiles",
]

CELLS = 5_000_000  # numbers of each array while resampling: 40 MB
_KEPT = 40_000_000  # draws that are kept for the next model, at a byte each
MOST_GROUPS = 20_000  # that are drawn: 2,000 samples of them are kept


def block_rows(width: int) -> int:
    """Number of rows of this width that are computed at once, so that memory stays bounded."""
    return max(1, CELLS // width)


def few_groups(code: Int[np.ndarray, " images"], seed: int) -> Int[np.ndarray, " images"]:
    """Join groups at random, until they are few enough to be drawn many times.

    The scatter of sums of groups is that of the groups, so intervals and tests stay valid (the random group method:
    Wolter 2007, "Introduction to variance estimation", chapter 2). 20,000 of them estimate a standard error to 0.5 %.

    Args:
        code: number of the group of each image, int (images,), from 0.
        seed: seed of the assignment.

    Returns:
        Number of the joined group of each image; the same array where there are at most `MOST_GROUPS`.
    """
    groups = int(code.max(initial=-1)) + 1
    if groups <= MOST_GROUPS:
        return code
    return np.random.default_rng(seed).permutation(np.arange(groups) % MOST_GROUPS)[code]


def draw_groups(groups: int, draws: int, seed: int) -> Iterator[Float[np.ndarray, "rows groups"]]:
    """Draw groups with replacement; every model of a table gets the same draws.

    Args:
        groups: number of groups.
        draws: number of bootstrap samples.
        seed: seed of the draws.

    Yields:
        How often each group is drawn, float64 (rows, groups), until all draws are out.
    """
    kept = _kept(groups, draws, seed) if draws * groups <= _KEPT else _multinomial(groups, draws, seed)
    for block in kept:
        yield block.astype(np.float64)


@lru_cache(maxsize=3)  # the AUROC takes fewer draws, paired tests take more
def _kept(groups: int, draws: int, seed: int) -> tuple[np.ndarray, ...]:
    blocks = []
    for block in _multinomial(groups, draws, seed):
        blocks.append(block.astype(np.uint8 if block.max() < 256 else np.int64))
    return tuple(blocks)


def _multinomial(groups: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    rng, rows = np.random.default_rng(seed), block_rows(groups)
    for start in range(0, draws, rows):
        yield rng.multinomial(groups, np.full(groups, 1 / groups), size=min(rows, draws - start))


def variance_factor(size: Real[np.ndarray, " groups"]) -> float:
    """Compute what the scatter of groups about their common mean is multiplied with, to be the variance of that mean.

    The mean lies nearer to large groups than the true one does, so these scatter too little about it. The factor makes
    up for that where all groups scatter alike; for G groups of equal size it is G / (G - 1) (Bell and McCaffrey 2002,
    "Bias reduction in standard errors for linear regression with multi-stage samples").

    Args:
        size: number of predictions of each group, (groups,), at least two groups.
    """
    weight = np.asarray(size, dtype=np.float64) / np.sum(size)
    alike = weight @ weight
    return float(alike / (np.square(weight) @ (1 - 2 * weight + alike)))


def widened_quantiles(size: Real[np.ndarray, " groups"], level: float) -> tuple[float, float]:
    """Choose the quantiles of a bootstrap distribution that make an interval by these groups.

    A bootstrap of few groups scatters too little, by the root of their `variance_factor`, and its quantiles are the
    normal's instead of Student's. Quantiles further out make up for both (the expanded percentile interval of
    Hesterberg 2015, "What teachers should know about the bootstrap", doi 10.1080/00031305.2015.1089789).

    Args:
        size: number of predictions of each group, (groups,), at least two groups.
        level: confidence level.
    """
    from scipy.stats import norm, t

    tail = float(norm.cdf(-math.sqrt(variance_factor(size)) * t.ppf(0.5 + level / 2, len(size) - 1)))
    return tail, 1 - tail


def group_sums(
    value: Shaped[np.ndarray, " images"],
    group: Shaped[np.ndarray, " images"],
    tests: Real[np.ndarray, " images"] | None = None,
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    """Sum values and numbers of tests by group.

    Args:
        value: values to add up, (images,).
        group: group of each image, (images,).
        tests: number of tests of each image, (images,); 1 each if None.

    Returns:
        Sum of the values and number of tests of each group, float64 (groups,) each.
    """
    _, code = np.unique(group, return_inverse=True)
    return np.bincount(code, value), np.bincount(code, tests).astype(float)


@dataclass(frozen=True, eq=False)
class Sums:
    """Numbers that a metric adds up over predictions, so that a bootstrap sample is a weighted sum over groups.

    Attributes:
        value: number of each prediction, float (tests,).
        column: column that the number is added to, int (tests,).
        width: number of columns.
    """

    value: Float[np.ndarray, " tests"]
    column: Int[np.ndarray, " tests"]
    width: int = 1


@dataclass(frozen=True, eq=False)
class Draws:
    """Bootstrap samples of pooled predictions, groups drawn with replacement.

    Attributes:
        pooled: the predictions.
        group: group of each prediction, int (tests,), from 0.
        unit: joined group of each prediction that is drawn, int (tests,), from 0; see `few_groups`.
        hits: correct predictions of each class, float64 (draws, classes).
        support: predictions of images of each class, float64 (draws, classes).
        called: predictions that name each class, float64 (draws, classes).
        sums: name of a metric -> its added-up numbers, float64 (draws, columns).
        seed: seed of the draws.
    """

    pooled: Pooled
    group: Int[np.ndarray, " tests"]
    unit: Int[np.ndarray, " tests"]
    hits: Float[np.ndarray, "draws classes"]
    support: Float[np.ndarray, "draws classes"]
    called: Float[np.ndarray, "draws classes"]
    sums: Mapping[str, Float[np.ndarray, "draws _"]]
    seed: int

    @classmethod
    def of(
        cls, pooled: Pooled, group: Shaped[np.ndarray, " tests"], sums: Mapping[str, Sums], draws: int, seed: int
    ) -> Draws:
        """Draw bootstrap samples.

        Args:
            pooled: the predictions.
            group: group of each prediction, (tests,).
            sums: name of a metric -> what it adds up.
            draws: number of bootstrap samples.
            seed: seed of the draws.
        """
        _, each = np.unique(group, return_inverse=True)
        code = few_groups(each, seed)
        groups, classes = int(code.max()) + 1, pooled.classes

        def by_group(column: np.ndarray, values: np.ndarray | None, width: int) -> np.ndarray:
            """Counts, or sums of values, (groups, width)."""
            return np.bincount(code * width + column, values, minlength=groups * width).reshape(groups, width)

        # Whole confusion matrices would take classes**2 columns, 8 GB for 1,000 classes.
        parts = [
            by_group(pooled.truth, pooled.hit.astype(float), classes),
            by_group(pooled.truth, None, classes),
            by_group(pooled.predicted, None, classes),
        ]
        parts += [by_group(own.column, own.value, own.width) for own in sums.values()]
        table = np.hstack(parts)
        drawn = np.concatenate([weights @ table for weights in draw_groups(groups, draws, seed)])
        hits, support, called, *others = np.split(drawn, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)
        tables = dict(zip(sums, others, strict=True))
        return cls(pooled, each, code, hits, support, called, tables, seed)

    @property
    def groups(self) -> int:
        """Number of groups that are drawn."""
        return int(self.unit.max()) + 1

    @cached_property
    def total(self) -> Float[np.ndarray, " draws"]:
        """Number of predictions, (draws,)."""
        return self.support.sum(1)

    def weights(self, draws: int) -> Float[np.ndarray, "draws groups"]:
        """How often each group is drawn in this number of samples, float64 (draws, groups)."""
        return np.concatenate(list(draw_groups(self.groups, draws, self.seed)))
