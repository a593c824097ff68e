"""Metrics of each of many patients at once, from counts by patient: one by one they take 30 ms each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.pooled import Pooled
from ball_features.evaluation.resampling import Draws

__all__ = ["PatientMetrics", "metrics_by_patient"]


@dataclass(frozen=True, eq=False)
class PatientMetrics:
    """Metrics of the images of each patient, NaN where a patient has none.

    Attributes:
        values: name of a metric -> its value for each patient, float64 (patients,).
        recall: recall of each class, float64 (patients, classes).
        specificity: specificity of each class, float64 (patients, classes).
    """

    values: dict[str, Float[np.ndarray, " patients"]]
    recall: Float[np.ndarray, "patients classes"]
    specificity: Float[np.ndarray, "patients classes"]


def metrics_by_patient(
    truth: Int[np.ndarray, " tests"], probability: Float[np.ndarray, "tests classes"], code: Int[np.ndarray, " tests"]
) -> PatientMetrics:
    """Compute every metric of each patient's images.

    A patient is a bootstrap sample of itself alone, so that what metrics compute of samples serves here.

    Args:
        truth: class indices, int (tests,).
        probability: class probabilities, float (tests, classes).
        code: number of the patient of each test, int (tests,), each from 0 on.
    """
    pooled, patients = Pooled(truth, probability), int(code.max()) + 1

    def by_patient(column: np.ndarray, values: np.ndarray | None, width: int) -> np.ndarray:
        """Counts, or sums of values, float64 (patients, width)."""
        return np.bincount(code * width + column, values, patients * width).reshape(patients, width).astype(float)

    sums = {name: metric.sums(pooled) for name, metric in METRICS.items() if metric.sums is not None}
    alone = Draws(
        pooled=pooled,
        group=code,
        unit=code,
        hits=by_patient(truth, pooled.hit.astype(float), pooled.classes),
        support=by_patient(truth, None, pooled.classes),
        called=by_patient(pooled.predicted, None, pooled.classes),
        sums={name: by_patient(own.column, own.value, own.width) for name, own in sums.items()},
        seed=0,
    )
    values: dict[str, np.ndarray] = {}
    for name, metric in METRICS.items():
        if metric.share is not None:
            values[name] = np.bincount(code, metric.share(pooled)) / alone.total
        elif name == "auroc":
            values[name] = _areas(pooled, code, alone)
        elif metric.drawn is not None:
            values[name] = metric.drawn(alone)
    negatives = alone.total[:, None] - alone.support
    return PatientMetrics(
        values=values,
        recall=_ratio(alone.hits, alone.support),
        specificity=_ratio(negatives - (alone.called - alone.hits), negatives),
    )


def _areas(pooled: Pooled, code: np.ndarray, alone: Draws) -> np.ndarray:
    """Macro average of the area under the ROC curve of each patient, float64 (patients,), by mean ranks."""
    areas = np.full(alone.support.shape, np.nan)
    start = np.concatenate([[0], np.cumsum(np.bincount(code))[:-1]])  # tests of patients before
    for column in range(pooled.classes):
        score, positive = pooled.probability[:, column], pooled.truth == column
        order = np.lexsort((score, code))
        new = np.concatenate([[True], (np.diff(code[order]) != 0) | (np.diff(score[order]) != 0)])
        tie = np.cumsum(new) - 1  # number of the set of equal scores of a patient
        rank = np.empty(len(code))
        place = np.arange(len(code)) - start[code[order]] + 1.0
        rank[order] = (np.bincount(tie, place) / np.bincount(tie))[tie]
        ones = alone.support[:, column]
        ranks = np.bincount(code, np.where(positive, rank, 0.0))
        areas[:, column] = _ratio(ranks - ones * (ones + 1) / 2, ones * (alone.total - ones))
    known = np.isfinite(areas)
    return _ratio(np.where(known, areas, 0).sum(1), known.sum(1).astype(float))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
