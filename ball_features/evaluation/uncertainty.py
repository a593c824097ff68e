"""Intervals and paired tests; whatever belongs together (a group) is drawn together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped

from ball_features.evaluation.metrics import BINS, METRICS, confidence_bins, log_losses

__all__ = [
    "corrected_best",
    "holm",
    "mcnemar_exact",
    "metric_intervals",
    "paired_bootstrap",
    "share_interval",
    "wilson",
]

_CELLS = 5_000_000  # numbers of each array while resampling: 40 MB
_KEPT = 40_000_000  # draws that are kept for the next model, at a byte each
_EXACT_GROUPS = 12
_FLIPS = 9999


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


def _drawn(groups: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn, float64 (draws, groups) in blocks of rows; the same for every model of a table."""
    kept = _kept(groups, draws, seed) if draws * groups <= _KEPT else _multinomial(groups, draws, seed)
    for block in kept:
        yield block.astype(np.float64)


@lru_cache(maxsize=3)  # of fewer draws for the AUROC, and more for paired tests
def _kept(groups: int, draws: int, seed: int) -> tuple[np.ndarray, ...]:
    blocks = []
    for block in _multinomial(groups, draws, seed):
        blocks.append(block.astype(np.uint8 if block.max() < 256 else np.int64))
    return tuple(blocks)


def _multinomial(groups: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    rng, rows = np.random.default_rng(seed), max(1, _CELLS // groups)
    for start in range(0, draws, rows):
        yield rng.multinomial(groups, np.full(groups, 1 / groups), size=min(rows, draws - start))


def _ends(groups: int, level: float) -> tuple[float, float]:
    """Quantiles of a bootstrap distribution that make an interval by so many groups.

    A bootstrap of few scatters too little, by the root of (groups - 1) / groups, and its quantiles are the normal's and
    not Student's; further out they make up for both (the expanded percentile interval of Hesterberg 2015, "What
    teachers should know about the bootstrap", doi 10.1080/00031305.2015.1089789).
    """
    from scipy.stats import norm, t

    tail = float(norm.cdf(-math.sqrt(groups / (groups - 1)) * t.ppf(0.5 + level / 2, groups - 1)))
    return tail, 1 - tail


def _sums(
    value: Shaped[np.ndarray, " images"],
    group: Shaped[np.ndarray, " images"],
    tests: Real[np.ndarray, " images"] | None = None,
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    """Sum of values, and number of tests, of each group, float64 (groups,); without `tests` a value is one."""
    _, code = np.unique(group, return_inverse=True)
    return np.bincount(code, value), np.bincount(code, tests).astype(float)


def share_interval(
    hit: Shaped[np.ndarray, " images"],
    group: Shaped[np.ndarray, " images"],
    *,
    images: int | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Score interval of a share that respects groups, proper for few groups and for no error at all.

    Wilson's interval on the effective number of images: how many independent ones would scatter as the groups do, with
    Student's t of the groups in place of the normal (Korn and Graubard 1998, "Confidence intervals for proportions with
    small expected number of positive counts estimated from survey data"). Without an error nothing scatters, and the
    number is that of groups of equal size (Kish 1965): an error would strike a whole group.

    Args:
        hit: (predictions,), 1 or True for a hit; an image tested several times stands there several times.
        group: (predictions,), what belongs together.
        images: Distinct images among them, which the effective number never exceeds; the predictions if None.
        level: Of confidence.
    """
    from scipy.stats import norm, t

    total, size = _sums(np.asarray(hit, dtype=np.float64), group)
    groups, count = len(size), size.sum()
    share = float(total.sum() / count)
    kish = float(count**2 / np.square(size).sum())
    if groups < 2:
        return wilson(share, 1, level)
    variance = groups / (groups - 1) * np.square(total - share * size).sum() / count**2
    effective = share * (1 - share) / variance if variance > 1e-15 and 0 < share < 1 else kish
    effective = min(effective, float(images or count))
    quantile = 0.5 + level / 2
    return wilson(share, effective * float(norm.ppf(quantile) / t.ppf(quantile, groups - 1)) ** 2, level)


def paired_bootstrap(
    difference: Real[np.ndarray, " images"],
    group: Shaped[np.ndarray, " images"],
    *,
    tests: Real[np.ndarray, " images"] | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Interval and two-sided p-value of the difference in accuracy between two models on the same images.

    That is the ratio of the sum of differences to that of tests, so that an image tested twice counts twice, as it does
    in the accuracies.

    The interval is that of a bootstrap over groups (Field and Welsh 2007), wider where they are few (Hesterberg 2015).
    The p-value is that of a permutation test that turns the sign of whole groups (Fisher 1935; Good 2005, "Permutation,
    parametric and bootstrap tests of hypotheses", section 3.2), which keeps its level for few groups, where a bootstrap
    rejects far too often: all patterns of signs where up to twelve groups differ, else 9,999 of them.

    Args:
        difference: float (images,), one model's right answers less the other's.
        group: (images,), what is drawn together.
        tests: (images,), how many times an image was tested; once each if None.
        level: Of confidence.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        (low, high, p); one group has no interval (NaN) and p = 1.
    """
    total, size = _sums(difference, group, tests)
    if len(total) < 2:
        return float("nan"), float("nan"), 1.0
    shares = [(drawn @ total) / (drawn @ size) for drawn in _drawn(len(total), draws, seed)]
    low, high = np.quantile(np.concatenate(shares), _ends(len(total), level))
    return float(low), float(high), _sign_flips(total[np.abs(total) > 1e-12], seed)


def _sign_flips(total: Float[np.ndarray, " groups"], seed: int) -> float:
    """P-value of a sum of groups' differences (groups,), by turning their signs."""
    count = len(total)
    least = abs(total.sum()) - 1e-9
    if count <= _EXACT_GROUPS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((np.abs(signs @ total) >= least).mean())
    rng = np.random.default_rng(seed)
    reached = 0
    rows = max(1, min(1000, _CELLS // count))
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
    """What the best of several models reaches on images that did not choose it.

    The best figure of a table is too good: it was chosen for being so. Here groups are drawn with replacement, the
    model that is best on them is chosen, and counts by the groups that were not drawn (BBC-CV: Tsamardinos, Greasidou
    and Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation",
    doi 10.1007/s10994-018-5714-4).

    Args:
        right: (images, models), how many times a model was right on an image; of equals the first is chosen.
        tests: (images,), how many times an image was tested.
        group: (images,), what is drawn together.
        level: Of confidence.
        draws: Bootstrap samples.
        seed: Of the draws.

    Returns:
        (accuracy, low, high); NaN for fewer than two groups.
    """
    _, code = np.unique(group, return_inverse=True)
    size = np.bincount(code, tests)
    if len(size) < 2:
        return float("nan"), float("nan"), float("nan")
    total = np.column_stack([np.bincount(code, column) for column in right.T])  # (groups, models)
    parts = []
    for drawn in _drawn(len(size), draws, seed):
        chosen = (drawn @ total).argmax(1)  # the number of tests is the same for all models
        out = (drawn == 0).astype(float)
        out, chosen = out[out.any(1)], chosen[out.any(1)]
        parts.append((out @ total)[np.arange(len(out)), chosen] / (out @ size))
    reached = np.concatenate(parts)
    low, high = np.quantile(reached, [0.5 - level / 2, 0.5 + level / 2])
    return float(reached.mean()), float(low), float(high)


def metric_intervals(
    truth: Int[np.ndarray, " tests"],
    probability: Float[np.ndarray, "tests classes"],
    group: Shaped[np.ndarray, " tests"],
    *,
    images: int | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of every metric of the table, groups drawn with replacement (Field and Welsh 2007).

    They are widened where groups are few (Hesterberg 2015).

    The accuracy's is `share_interval`. Where another rate is 1 or 0 in every draw the mean over classes of that
    interval stands in; an AUROC or MCC without an error has none (NaN), nor has anything else where there is one group.

    Args:
        truth: int (predictions,), class indices; an image tested several times stands there several times.
        probability: float (predictions, classes).
        group: (predictions,), what is drawn together.
        images: Distinct images among them; the predictions if None.
        level: Of confidence.
        draws: Bootstrap samples; the AUROC of many predictions takes fewer.
        seed: Of the draws.

    Returns:
        Key of `METRICS` -> (low, high).
    """
    classes, predicted = probability.shape[1], probability.argmax(1)
    _, code = np.unique(group, return_inverse=True)
    groups = int(code.max()) + 1

    def by_group(column: np.ndarray, values: np.ndarray | None, width: int) -> np.ndarray:
        """(groups, width): counts, or sums of values, by column."""
        return np.bincount(code * width + column, values, minlength=groups * width).reshape(groups, width)

    confidence, zero = probability.max(1), np.zeros(len(truth), dtype=int)
    table = np.hstack(
        [
            by_group(truth * classes + predicted, None, classes**2),
            by_group(zero, log_losses(truth, probability), 1),
            by_group(confidence_bins(confidence), confidence - (predicted == truth), BINS),
        ]
    )
    summed = np.concatenate([drawn @ table for drawn in _drawn(groups, draws, seed)])  # (draws, columns)
    counts = summed[:, : classes**2].reshape(draws, classes, classes)
    total = counts.sum((1, 2))
    sampled = _from_confusions(counts)
    sampled["log_loss"] = summed[:, classes**2] / total
    sampled["ece"] = np.abs(summed[:, classes**2 + 1 :]).sum(1) / total
    fewer = int(np.clip(3_000_000 // len(truth), min(200, draws), draws))
    sampled["auroc"] = _aurocs(truth, probability, code, np.concatenate(list(_drawn(groups, fewer, seed))))
    hit = predicted == truth
    result = {"accuracy": share_interval(hit, group, images=images, level=level)}
    for name in METRICS:
        values = sampled[name][np.isfinite(sampled[name])]
        same = len(values) > 0 and np.ptp(values) == 0
        if name == "accuracy":
            continue
        if not len(values) or groups == 1 or (same and name in ("auroc", "mcc")):
            result[name] = (float("nan"), float("nan"))
        elif same and values[0] in (0, 1):
            value = np.full(len(truth), values[0])
            each = [share_interval(value[truth == own], code[truth == own], level=level) for own in np.unique(truth)]
            result[name] = (float(np.mean([low for low, _ in each])), float(np.mean([high for _, high in each])))
        else:
            low, high = np.quantile(values, _ends(groups, level))
            result[name] = (float(low), float(high))
    return result


def _from_confusions(counts: Float[np.ndarray, "draws classes classes"]) -> dict[str, Float[np.ndarray, " draws"]]:
    """Metrics of confusion matrices (draws, classes, classes), each (draws,); as `metrics.evaluate_predictions`."""
    hits = np.einsum("dii->di", counts)
    support, called, total = counts.sum(2), counts.sum(1), counts.sum((1, 2))

    def macro(part: np.ndarray, whole: np.ndarray, there: np.ndarray) -> np.ndarray:
        share = np.divide(part, whole, out=np.full(part.shape, np.nan), where=there & (whole > 0))
        known = np.isfinite(share)
        return np.where(known, share, 0).sum(1) / np.maximum(known.sum(1), 1)

    every, negatives = np.ones_like(support, dtype=bool), total[:, None] - support
    spread = np.sqrt((total**2 - (called**2).sum(1)) * (total**2 - (support**2).sum(1)))
    product = hits.sum(1) * total - (support * called).sum(1)
    return {
        "accuracy": hits.sum(1) / total,
        "specificity": macro(negatives - (called - hits), negatives, every),
        "precision": macro(hits, called, every),
        "recall": macro(hits, support, every),
        "f1": macro(2 * hits, support + called, support > 0),
        "mcc": np.divide(product, spread, out=np.full(len(total), np.nan), where=spread > 0),
    }


def _aurocs(
    truth: Int[np.ndarray, " tests"],
    probability: Float[np.ndarray, "tests classes"],
    code: Int[np.ndarray, " tests"],
    weights: Float[np.ndarray, "draws groups"],
) -> Float[np.ndarray, " draws"]:
    """Mean over classes of the weighted area under the ROC curve of each draw, (draws,); ties count half."""
    areas = np.full((len(weights), probability.shape[1]), np.nan)
    block = max(1, _CELLS // len(truth))
    for column in range(probability.shape[1]):
        score, positive = probability[:, column], truth == column
        ones, zeros = (np.flatnonzero(part)[np.argsort(score[part])] for part in (positive, ~positive))
        # Of each positive: how many negatives lie below it, and how many not above.
        ends = [np.searchsorted(score[zeros], score[ones], side) for side in ("left", "right")]
        for start in range(0, len(weights), block):
            own = weights[start : start + block]
            below = np.zeros((len(own), len(zeros) + 1))
            np.cumsum(own[:, code[zeros]], axis=1, out=below[:, 1:])
            own = own[:, code[ones]]
            whole = own.sum(1) * below[:, -1]
            area = sum(np.einsum("ij,ij->i", own, below[:, end]) for end in ends) / 2
            areas[start : start + block, column] = np.divide(
                area, whole, out=np.full(len(own), np.nan), where=whole > 0
            )
    known = np.isfinite(areas)
    return np.where(known, areas, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)


def mcnemar_exact(first: Bool[np.ndarray, " images"], second: Bool[np.ndarray, " images"]) -> float:
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


def holm(p_values: Sequence[float]) -> Float[np.ndarray, " tests"]:
    """P-values adjusted for their number (Holm 1979), (tests,)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    result = np.empty_like(p)
    result[order] = np.minimum(adjusted, 1)
    return result
