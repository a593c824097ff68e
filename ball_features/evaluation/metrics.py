"""Metrics of a test set, pooled: pure functions of labels and probabilities.

A class without test images has no recall, a class that is never predicted has no precision: such a number is NaN
("n/a" in a table), never 0, and a macro average is over the classes that have the number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = [
    "BINS",
    "METRICS",
    "batch_averaged",
    "calibration_error",
    "confidence_bins",
    "confusion",
    "evaluate_predictions",
    "log_losses",
    "per_class",
]

BINS = 15
METRICS = ("accuracy", "specificity", "precision", "recall", "f1", "auroc", "mcc", "log_loss", "ece")


def confusion(
    truth: Int[np.ndarray, " images"], predicted: Int[np.ndarray, " images"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Counts, int (classes, classes): rows are true classes, columns predicted ones.

    As scikit-learn's, whose checks take a hundred times as long: batches of 16 are counted by the thousand.

    Args:
        truth: int (images,) class indices.
        predicted: int (images,) class indices.
        classes: How many.
    """
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def per_class(counts: Int[np.ndarray, "classes classes"]) -> dict[str, Float[np.ndarray, " classes"]]:
    """Support, specificity, precision, recall and F1 of each class from a confusion matrix (classes, classes)."""
    hits = np.diag(counts).astype(float)
    support, called = counts.sum(1).astype(float), counts.sum(0).astype(float)
    negatives = counts.sum() - support
    return {
        "support": support,
        "specificity": _ratio(negatives - (called - hits), negatives),
        "precision": _ratio(hits, called),
        "recall": _ratio(hits, support),
        # 2 TP / (2 TP + FP + FN); a class that is neither there nor predicted has none.
        "f1": np.where(support > 0, _ratio(2 * hits, support + called), np.nan),
    }


def _macro(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _auroc(positive: Bool[np.ndarray, " images"], score: Float[np.ndarray, " images"]) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score)) if 0 < positive.sum() < len(positive) else float("nan")


def _mcc(truth: Int[np.ndarray, " images"], predicted: Int[np.ndarray, " images"]) -> float:
    """Matthews correlation, which scikit-learn calls 0 where there is, or is predicted, one class only."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(truth, predicted)) if np.ptp(truth) and np.ptp(predicted) else float("nan")


def calibration_error(
    truth: Int[np.ndarray, " images"], probability: Float[np.ndarray, "images classes"], bins: int = BINS
) -> float:
    """Expected calibration error of the predicted class (Guo et al. 2017, eq. 3), bins of equal width.

    Args:
        truth: int (images,).
        probability: float (images, classes).
        bins: How many.
    """
    confidence, hit = probability.max(1), probability.argmax(1) == truth
    gap = np.bincount(confidence_bins(confidence, bins), confidence - hit, minlength=bins)
    return float(np.abs(gap).sum() / len(truth))


def confidence_bins(confidence: Float[np.ndarray, "*any"], bins: int = BINS) -> Int[np.ndarray, "*any"]:
    """The bin of each confidence, (low, high] as in the paper; int, the same shape."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def log_losses(
    truth: Int[np.ndarray, " images"], probability: Float[np.ndarray, "images classes"]
) -> Float[np.ndarray, " images"]:
    """Log loss of each image, float64 (images,); a probability of 0 counts as the smallest that is told from 0."""
    floor = np.finfo(np.float64).eps
    return -np.log(np.clip(probability[np.arange(len(truth)), truth].astype(np.float64), floor, 1 - floor))


def evaluate_predictions(
    truth: Int[np.ndarray, " images"], probability: Float[np.ndarray, "images classes"]
) -> dict[str, Any]:
    """Every number of the table from pooled predictions.

    Args:
        truth: int (images,) class indices.
        probability: float (images, classes), rows that sum to 1; the first of equal maxima is the prediction.

    Returns:
        `METRICS` -> float, and "per_class" (name -> (classes,)) and "confusion" (classes, classes).
    """
    classes = probability.shape[1]
    predicted = probability.argmax(1)
    counts = confusion(truth, predicted, classes)
    each = per_class(counts)
    each["auroc"] = np.array([_auroc(truth == code, probability[:, code]) for code in range(classes)])
    return {
        "accuracy": float(np.trace(counts) / counts.sum()),
        **{name: _macro(each[name]) for name in ("specificity", "precision", "recall", "f1", "auroc")},
        "mcc": _mcc(truth, predicted),
        "log_loss": float(log_losses(truth, probability).mean()),
        "ece": calibration_error(truth, probability),
        "per_class": each,
        "confusion": counts,
    }


def batch_averaged(
    truth: Int[np.ndarray, " images"], predicted: Int[np.ndarray, " images"], classes: int, batch: int = 16
) -> dict[str, float]:
    """The student report's own arithmetic: macro figures of each batch, an absent class counted as 0, then averaged.

    It is here to show where "accuracy 99.6, recall 97.8" comes from, not to be used.

    Args:
        truth: int (images,) in the order of the batches.
        predicted: int (images,).
        classes: How many.
        batch: Images a batch.
    """
    rows = []
    for start in range(0, len(truth), batch):
        counts = confusion(truth[start : start + batch], predicted[start : start + batch], classes)
        each = per_class(counts)
        names = ("specificity", "precision", "recall", "f1")
        rows.append([np.trace(counts) / counts.sum(), *(np.nan_to_num(each[name]).mean() for name in names)])
    return dict(zip(("accuracy", "specificity", "precision", "recall", "f1"), np.mean(rows, 0).tolist(), strict=True))
