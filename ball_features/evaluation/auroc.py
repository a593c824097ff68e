"""The area under the ROC curve, and its values in bootstrap samples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from ball_features.evaluation.drawn_areas import weighted_areas
from ball_features.evaluation.pooled import Pooled
from ball_features.evaluation.resampling import Draws, draw_groups

__all__ = ["aurocs", "drawn_auroc"]

_LINEAR_FROM = 100_000  # tests from which the samples are computed to first order


def aurocs(pooled: Pooled) -> np.ndarray:
    """Area under the ROC curve of each class against the rest, (classes,)."""
    return np.array([_auroc(pooled.truth == code, pooled.probability[:, code]) for code in range(pooled.classes)])


def _auroc(positive: Bool[np.ndarray, " images"], score: Float[np.ndarray, " images"]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score)) if 0 < positive.sum() < len(positive) else float("nan")


def drawn_auroc(draws: Draws) -> Float[np.ndarray, " draws"]:
    """Macro average of the weighted area under the ROC curve, (draws,); ties count half. Many tests get fewer draws."""
    truth, probability, code = draws.pooled.truth, draws.pooled.probability, draws.unit
    if len(truth) > _LINEAR_FROM:
        return _linear_auroc(draws)
    most = len(draws.total)
    weights = draws.weights(int(np.clip(3_000_000 // len(truth), min(200, most), most)))
    area = weighted_areas(truth, probability, code, weights)
    support = draws.support[: len(weights)]
    whole = support * (support.sum(1, keepdims=True) - support)  # number of pairs
    area = np.divide(area, whole, out=np.full(area.shape, np.nan), where=whole > 0)
    known = np.isfinite(area)
    return np.where(known, area, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)


def _linear_auroc(draws: Draws) -> Float[np.ndarray, " draws"]:
    """Macro average of the area in each sample, (draws,), to first order in how often each group is drawn.

    An area is the mean of how well each prediction is placed among those of the other side (DeLong et al. 1988, doi
    10.2307/2531595); a group's part of the change is the sum over its predictions (Obuchowski 1997, doi
    10.2307/2533958). With so many tests the second order is far below the width of the interval.
    """
    truth, probability = draws.pooled.truth, draws.pooled.probability
    change, areas = np.zeros(draws.groups), []
    for column in range(probability.shape[1]):
        score, positive = probability[:, column], truth == column
        ones, zeros = np.flatnonzero(positive), np.flatnonzero(~positive)
        if not len(ones) or not len(zeros):
            continue
        low, high = np.sort(score[ones]), np.sort(score[zeros])
        below = _rank(high, score[ones]) / len(zeros)
        above = 1 - _rank(low, score[zeros]) / len(ones)
        area = float(below.mean())
        areas.append(area)
        change += np.bincount(draws.unit[ones], (below - area) / len(ones), minlength=len(change))
        change += np.bincount(draws.unit[zeros], (above - area) / len(zeros), minlength=len(change))
    if not areas:
        return np.full(len(draws.total), np.nan)
    weights = draw_groups(draws.groups, len(draws.total), draws.seed)
    moved = np.concatenate([(own - 1) @ change for own in weights])
    return np.clip(np.mean(areas) + moved / len(areas), 0, 1)


def _rank(ordered: Float[np.ndarray, " some"], score: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Number of sorted values below each score; ties count half."""
    return (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right")) / 2
