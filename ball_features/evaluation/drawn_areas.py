"""Weighted areas under the ROC curve, in the way that is fastest for the number of classes."""

from __future__ import annotations

import numpy as np

from ball_features.evaluation.resampling import block_rows

__all__ = ["areas_by_pairs", "areas_by_rank", "weighted_areas"]

_PAIRS_A_CLASS = 20  # tests a class below which products over pairs of tests take less time than ranks


def weighted_areas(truth: np.ndarray, probability: np.ndarray, group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Add up the pairs of a positive that is scored above a negative, float64 (draws, classes); ties count half.

    Sums of whole and half numbers are exact in any order, so both ways give the same areas.

    Args:
        truth: class indices, int (tests,).
        probability: class probabilities, float (tests, classes).
        group: group of each test, int (tests,), from 0.
        weights: how often each group is drawn, float (draws, groups).
    """
    areas = areas_by_pairs if len(truth) < _PAIRS_A_CLASS * probability.shape[1] else areas_by_rank
    return areas(truth, probability, group, weights)


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
