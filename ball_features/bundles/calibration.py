"""Calibrated probabilities, thresholds of prediction sets, and distances that flag unusual images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ball_features.models.base import PerViewClassifier

__all__ = [
    "NEIGHBOURS",
    "class_set_note",
    "class_thresholds",
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
_CELLS = 50_000_000  # similarities that are held at once, at 16 bytes each while the nearest are found


def conformal_threshold(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) * coverage)-th smallest of n scores (Vovk et al. 2005); infinite if n is too small."""
    place = _place(len(scores), coverage)
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else float("inf")


def class_thresholds(scores: np.ndarray, truth: np.ndarray, classes: int, coverage: float) -> np.ndarray:
    """Conformal threshold within each class (Mondrian: Vovk et al. 2005, section 4.5), float64 (classes,).

    Args:
        scores: scores of calibration images, float (images,).
        truth: their class numbers, int (images,).
        classes: number of classes; one without enough images has an infinite threshold and is in every set.
        coverage: coverage within each class.
    """
    return np.array([conformal_threshold(scores[truth == code], coverage) for code in range(classes)])


def outlier_threshold(distances: np.ndarray, share: float) -> tuple[float, float]:
    """The distance beyond which an image is unusual, and the share of images that exceeds it by chance.

    This is the conformal threshold at 1 - share. n distances cannot resolve a share below 1 / (n + 1); if `share` is
    smaller, the largest distance is the threshold, so that a small calibration set flags too much rather than nothing.

    Args:
        distances: distances of calibration images, float (calibration,), at least one.
        share: largest share of images like the calibration images that may be flagged.
    """
    count = len(distances)
    place = min(_place(count, 1 - share), count)
    return float(np.sort(distances)[place - 1]), 1 - place / (count + 1)


def _place(count: int, coverage: float) -> int:
    return int(np.ceil((count + 1) * coverage - 1e-9))  # 100 * 0.55 exceeds 55 slightly in binary


def set_note(scores: np.ndarray, coverage: float) -> str:
    """What a user must know about prediction sets of this coverage, or "".

    A set can hold two classes only if the threshold is at least 0.5; below it every set holds one class.

    Args:
        scores: 1 minus the calibrated probability of the true class, float (calibration,).
        coverage: coverage of the sets.
    """
    count, sure = len(scores), int((scores < 0.5).sum())
    threshold = conformal_threshold(scores, coverage)
    if threshold > 1:
        least = math.ceil((coverage - 1e-9) / (1 - coverage))
        return (
            f"Sets at {100 * coverage:g} % coverage contain every class: the bundle has {count} calibration images, "
            f"and that coverage needs {least}."
        )
    if threshold >= 0.5:
        return ""
    least = f"{math.ceil(1e4 * sure / (count + 1)) / 100:.2f} %"
    advice = f"Read the probability, or raise the coverage to {least} or more, at which sets can contain two classes."
    if sure == count:
        advice = f"Read the probability; at a coverage of {least} or more every set contains all classes."
    return (
        f"Every set at {100 * coverage:g} % coverage contains one class, however uncertain the model is: in {sure} of "
        f"{count} calibration images the true class has more than half of the probability, so one class suffices. "
        f"{advice}"
    )


def class_set_note(scores: Mapping[str, np.ndarray], coverage: float) -> str:
    """What a user must know about sets that hold their coverage within each class, or "".

    Args:
        scores: class -> 1 minus the calibrated probability of it, on its calibration images, float (images,).
        coverage: coverage of the sets.
    """
    short = [f"{name} {len(own)}" for name, own in scores.items() if conformal_threshold(own, coverage) > 1]
    if not short:
        return ""
    least = math.ceil((coverage - 1e-9) / (1 - coverage))
    return (
        f"Sets at {100 * coverage:g} % coverage within each class need {least} calibration images of a class. Classes "
        f"with fewer are in every set: {', '.join(short)}."
    )


def unusual_note(distances: np.ndarray, share: float) -> str:
    """What a user must know about the flag for unusual images if calibration images are few, or ""."""
    count = len(distances)
    if outlier_threshold(distances, share)[1] <= share + 1e-9:
        return ""
    return (
        f"An image is called unusual if it is further from the training images than all {count} calibration images, "
        f"which happens by chance to one image in {count + 1} like them. A threshold that one in {1 / share:.0f} "
        f"exceeds needs {1 / share - 1:.0f} calibration images."
    )


def mean_probability(estimator: Any, X: np.ndarray, classes: int) -> np.ndarray:
    """Predict with all views: their mean probability, or a model's own way of joining them.

    Args:
        estimator: fitted classifier.
        X: embeddings, float (images, views, dim).
        classes: number of classes; those that the estimator does not know get 0.

    Returns:
        Probabilities, float64 (images, classes).
    """
    total = np.zeros((len(X), classes))
    if isinstance(estimator, PerViewClassifier):
        total[:, estimator.classes_] = estimator.predict_proba(X.astype(np.float32))
        return total
    for view in range(X.shape[1]):
        total[:, estimator.classes_] += estimator.predict_proba(X[:, view].astype(np.float32))
    return total / total.sum(1, keepdims=True)


def neighbour_distance(X: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute `Bundle.distance` of X (images, views, dim) to training images `train` from `unit_mean`."""
    step = max(1, _CELLS // max(1, len(train)))
    parts = [_nearest(unit_mean(X[start : start + step]), train) for start in range(0, max(1, len(X)), step)]
    distance, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
    return distance, rows


def _nearest(unit: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`neighbour_distance` of rows of unit length, whose similarities to all training images are held at once."""
    cosine = unit @ train.T
    count = min(NEIGHBOURS, train.shape[0])
    rows = np.argpartition(-cosine, count - 1, 1)[:, :count]
    rows = np.take_along_axis(rows, np.argsort(-np.take_along_axis(cosine, rows, 1), 1, kind="stable"), 1)
    return 1 - np.take_along_axis(cosine, rows, 1).mean(1, dtype=np.float64), rows


def unit_mean(X: np.ndarray) -> np.ndarray:
    """Average embeddings (images, views, dim) over views and scale to unit length: float32 (images, dim)."""
    mean = X.astype(np.float32).mean(1)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def tempered(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of probabilities (images, classes) by a temperature: probabilities, float64."""
    logits = np.log(np.clip(probability, 1e-12, 1)) / temperature
    logits -= logits.max(1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def fit_temperature(probability: np.ndarray, truth: np.ndarray) -> float:
    """Fit the temperature that minimises the log loss on calibration images (Guo et al. 2017, section 4.2).

    That alone would sharpen without bound if the calibration images show no error. A second temperature is therefore
    fitted to smoothed targets: (n + 1) / (n + 2) for the true class of n images, the rest shared by the other classes.
    These are the targets of Platt 1999 ("Probabilistic outputs for support vector machines"), who counts each class
    separately; here all images count together, since they share one temperature. The result is the temperature nearest
    to 1 between the two: it sharpens no more than n images justify, and flattens no more than their errors require.

    Args:
        probability: predicted probabilities, float (calibration, classes).
        truth: class numbers, int (calibration,).

    Returns:
        Temperature, between 0.05 and 20.
    """
    count, classes = probability.shape
    hard = np.eye(classes)[truth]
    smooth = hard * (count + 1) / (count + 2) + (1 - hard) / ((count + 2) * max(classes - 1, 1))
    exact, cautious = (_least_loss(probability, targets) for targets in (hard, smooth))
    return float(np.clip(1.0, exact, max(exact, cautious)))


def _least_loss(probability: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that minimises the cross-entropy with targets (images, classes)."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        found = tempered(probability, float(np.exp(log_temperature)))
        return float(-(targets * np.log(np.clip(found, 1e-12, 1))).sum(1).mean())

    found: Any = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))
