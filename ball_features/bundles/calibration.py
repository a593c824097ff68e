"""What a bundle says beyond a class: how probable it is, what else it may be, how unlike known images one is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ball_features.models.base import PerViewClassifier

__all__ = [
    "NEIGHBOURS",
    "conformal_threshold",
    "fit_temperature",
    "mean_probability",
    "neighbour_distance",
    "outlier_threshold",
    "set_note",
    "tempered",
    "unit_mean",
    "unusual_note",
]

NEIGHBOURS = 5


def conformal_threshold(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) * coverage)-th smallest score (Vovk et al. 2005); infinite where n is too small for it."""
    place = _place(len(scores), coverage)
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else float("inf")


def outlier_threshold(distances: np.ndarray, share: float) -> tuple[float, float]:
    """The distance that at most this share of images alike exceeds, and the share that holds for it.

    The conformal threshold at 1 - share. n distances cannot tell less than one in n + 1: the largest is the threshold
    where that is more than `share`, so that a small validation set flags rather too much than nothing.

    Args:
        distances: float (validation,), at least one.
        share: Of images like the validation images that may be flagged.
    """
    count = len(distances)
    place = min(_place(count, 1 - share), count)
    return float(np.sort(distances)[place - 1]), 1 - place / (count + 1)


def _place(count: int, coverage: float) -> int:
    return int(np.ceil((count + 1) * coverage - 1e-9))  # 100 * 0.55 is a little more than 55 in binary


def set_note(scores: np.ndarray, coverage: float) -> str:
    """What a reader of prediction sets must know about those of this coverage, or "".

    Two classes can both be in a set only where 1 - p of one half is in: below that threshold every set is one class.

    Args:
        scores: float (validation,), 1 less the calibrated probability of the true class.
        coverage: Of the sets.
    """
    count, sure = len(scores), int((scores < 0.5).sum())
    threshold = conformal_threshold(scores, coverage)
    if threshold > 1:
        least = math.ceil((coverage - 1e-9) / (1 - coverage))
        return (
            f"Sets at {100 * coverage:g} % coverage hold every class: the bundle has {count} validation images, and "
            f"that coverage takes {least}."
        )
    if threshold >= 0.5:
        return ""
    least = f"{math.ceil(1e4 * sure / (count + 1)) / 100:.2f} %"
    opens = "do sets hold two classes, and then all" if sure == count else "can a set hold two"
    return (
        f"Sets at {100 * coverage:g} % coverage hold one class each, whatever the doubt: in {sure} of {count} "
        "validation images the true class has more than half of the probability, and one class covers enough. Only "
        f"from {least} on {opens}; the probability shows doubt at any coverage."
    )


def unusual_note(distances: np.ndarray, share: float) -> str:
    """What a flag for unusual images is worth where validation images are few, or ""."""
    count = len(distances)
    if outlier_threshold(distances, share)[1] <= share + 1e-9:
        return ""
    return (
        f"An image is called unusual where it is further from the training images than all {count} validation images "
        f"are, as by chance one image in {count + 1} like them is. A threshold that one in {1 / share:.0f} exceeds "
        f"takes {1 / share - 1:.0f} validation images."
    )


def mean_probability(estimator: Any, X: np.ndarray, classes: int) -> np.ndarray:
    """Mean over views of predicted probabilities: (images, views, dim) -> float64 (images, classes)."""
    total = np.zeros((len(X), classes))
    if isinstance(estimator, PerViewClassifier):
        total[:, estimator.classes_] = estimator.predict_proba(X.astype(np.float32))
        return total
    for view in range(X.shape[1]):
        total[:, estimator.classes_] += estimator.predict_proba(X[:, view].astype(np.float32))
    return total / total.sum(1, keepdims=True)


def neighbour_distance(X: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `Bundle.distance`; `train` is the mean over views at unit length."""
    cosine = unit_mean(X) @ train.T
    count = min(NEIGHBOURS, train.shape[0])
    rows = np.argpartition(-cosine, count - 1, 1)[:, :count]
    rows = np.take_along_axis(rows, np.argsort(-np.take_along_axis(cosine, rows, 1), 1, kind="stable"), 1)
    return 1 - np.take_along_axis(cosine, rows, 1).mean(1, dtype=np.float64), rows


def unit_mean(X: np.ndarray) -> np.ndarray:
    """Embeddings (images, views, dim) -> their mean over views at unit length, float32 (images, dim)."""
    mean = X.astype(np.float32).mean(1)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def tempered(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (images, classes) with their logits divided by a temperature, float64."""
    logits = np.log(np.clip(probability, 1e-12, 1)) / temperature
    logits -= logits.max(1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def fit_temperature(probability: np.ndarray, truth: np.ndarray) -> float:
    """The temperature that calibrates, by least log loss on validation images (Guo et al. 2017, section 4.2).

    That alone would sharpen without end where validation shows no error. So it is fitted a second time to smoothed
    targets: (n + 1) / (n + 2) for the true class of n images, and what is left shared among the others. These are the
    targets of Platt 1999 ("Probabilistic outputs for support vector machines"), who counts each class by itself; here
    all images count together, since they share the one temperature. Between the two fits the temperature nearest to 1
    is taken: it sharpens no more than n images can show, and flattens no more than their errors ask for.

    Args:
        probability: float (validation, classes).
        truth: int (validation,).

    Returns:
        Between 0.05 and 20.
    """
    count, classes = probability.shape
    hard = np.eye(classes)[truth]
    smooth = hard * (count + 1) / (count + 2) + (1 - hard) / ((count + 2) * max(classes - 1, 1))
    exact, cautious = (_least_loss(probability, targets) for targets in (hard, smooth))
    return float(np.clip(1.0, exact, max(exact, cautious)))


def _least_loss(probability: np.ndarray, targets: np.ndarray) -> float:
    """The temperature of least cross-entropy with targets (images, classes)."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        found = tempered(probability, float(np.exp(log_temperature)))
        return float(-(targets * np.log(np.clip(found, 1e-12, 1))).sum(1).mean())

    found: Any = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))
