"""Pooled test predictions, and what is counted of them once for every metric."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["Pooled", "class_rates", "confusion"]


def confusion(
    truth: Int[np.ndarray, " images"], predicted: Int[np.ndarray, " images"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count a confusion matrix: a row a true class, a column a predicted one.

    The result equals scikit-learn's, whose checks take a hundred times as long: batches of 16 are counted by the
    thousand.

    Args:
        truth: class indices, int (images,).
        predicted: class indices, int (images,).
        classes: number of classes.
    """
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_rates(counts: Int[np.ndarray, "classes classes"]) -> dict[str, Float[np.ndarray, " classes"]]:
    """Compute support, specificity, precision, recall and F1 of each class; NaN where a rate has no denominator.

    Args:
        counts: confusion matrix, int (classes, classes).

    Returns:
        Name of the rate -> float64 (classes,).
    """
    hits = np.diag(counts).astype(float)
    support, called = counts.sum(1).astype(float), counts.sum(0).astype(float)
    negatives = counts.sum() - support
    return {
        "support": support,
        "specificity": _ratio(negatives - (called - hits), negatives),
        "precision": _ratio(hits, called),
        "recall": _ratio(hits, support),
        # 2 TP / (2 TP + FP + FN). A class without test images has no F1.
        "f1": np.where(support > 0, _ratio(2 * hits, support + called), np.nan),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


@dataclass(frozen=True, eq=False)
class Pooled:
    """Out-of-sample predictions of one model, pooled over splits.

    Attributes:
        truth: true class indices, int (tests,); an image that was tested several times appears several times.
        probability: class probabilities, float (tests, classes), whose rows sum to 1.
    """

    truth: Int[np.ndarray, " tests"]
    probability: Float[np.ndarray, "tests classes"]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.probability.shape[1]

    @cached_property
    def predicted(self) -> Int[np.ndarray, " tests"]:
        """Predicted class indices, int (tests,): the first of equal maxima."""
        return self.probability.argmax(1)

    @cached_property
    def confidence(self) -> Float[np.ndarray, " tests"]:
        """Probability of the predicted class, float (tests,)."""
        return self.probability.max(1)

    @cached_property
    def hit(self) -> Bool[np.ndarray, " tests"]:
        """Correctness of each prediction, bool (tests,)."""
        return self.predicted == self.truth

    @cached_property
    def counts(self) -> Int[np.ndarray, "classes classes"]:
        """Confusion matrix, int (classes, classes)."""
        return confusion(self.truth, self.predicted, self.classes)

    @cached_property
    def rates(self) -> dict[str, Float[np.ndarray, " classes"]]:
        """Rates of each class; see `class_rates`."""
        return class_rates(self.counts)
