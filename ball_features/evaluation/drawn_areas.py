"""Area under the ROC curve in bootstrap samples, in the way that is fastest for the number of classes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ball_features.evaluation.resampling import Draws, block_rows

__all__ = ["areas_by_pairs", "areas_by_rank", "drawn_auroc"]

_PAIRS_A_CLASS = 20  # tests a class below which products over pairs of tests take less time than ranks


def drawn_auroc(draws: Draws) -> Float[np.ndarray, " draws"]:
    """Macro average of the weighted area under the ROC curve, (draws,); ties count half. Many tests get fewer draws."""
    truth, probability = draws.pooled.truth, draws.pooled.probability
    most = len(draws.total)
    weights = draws.weights(int(np.clip(3_000_000 // len(truth), min(200, most), most)))
    # Sums of whole and half numbers are exact in any order, so both ways give the same areas.
    areas = areas_by_pairs if len(truth) < _PAIRS_A_CLASS * probability.shape[1] else areas_by_rank
    area = areas(truth, probability, draws.group, weights)
    support = draws.support[: len(weights)]
    whole = support * (support.sum(1, keepdims=True) - support)  # number of pairs
    area = np.divide(area, whole, out=np.full(area.shape, np.nan), where=whole > 0)
    known = np.isfinite(area)
    return np.where(known, area, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)


def areas_by_rank(truth: np.ndarray, probability: np.ndarray, group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pairs of a positive above a negative, float64 (draws, classes), class by class along its sorted scores."""
    areas = np.zeros((len(weights), probability.shape[1]))
    block = block_rows(len(truth))
    for column in range(probability.shape[1]):
        score, positive = probability[:, column], truth == column
        ones, zeros = (np.flatnonzero(part)[np.argsort(score[part])] for part in (positive, ~positive))
        # For each positive: the number of negatives with a lower score, and with a score that is not higher.
        ends = [np.searchsorted(score[zeros], score[ones], side) for side in ("left", "right")]
        for start in range(0, len(weights), block):
            own = weights[start : start + block]
            below = np.zeros((len(own), len(zeros) + 1))
            np.cumsum(own[:, group[zeros]], axis=1, out=below[:, 1:])
            own = own[:, group[ones]]
            areas[start : start + block, column] = sum(np.einsum("ij,ij->i", own, below[:, end]) for end in ends) / 2
    return areas


def areas_by_pairs(truth: np.ndarray, probability: np.ndarray, group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """As `areas_by_rank`, by products over all pairs of tests, which many classes take no time for."""
    areas = np.zeros((len(weights), probability.shape[1]))
    order = np.argsort(truth, kind="stable")
    by_group = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[by_group], prepend=-1))
    block = block_rows(len(truth))
    for start in range(0, len(order), block):
        ones = order[start : start + block]
        score, own = probability[by_group][:, truth[ones]].T, probability[ones, truth[ones]][:, None]
        above = ((score < own) + 0.5 * (score == own)) * (truth[by_group] != truth[ones][:, None])
        below = weights @ np.add.reduceat(above, starts, axis=1).T  # (draws, positives)
        below *= weights[:, group[ones]]
        classes, first = np.unique(truth[ones], return_index=True)
        areas[:, classes] += np.add.reduceat(below, first, axis=1)
    return areas
