"""What a bundle says beyond a class: how probable it is, what else it may be, how unlike known images one is."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "NEIGHBOURS",
    "conformal_threshold",
    "fit_temperature",
    "mean_probability",
    "neighbour_distance",
    "tempered",
    "unit_mean",
]

NEIGHBOURS = 5


def conformal_threshold(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) * coverage)-th smallest score (Vovk et al. 2005); infinite where n is too small for it."""
    place = int(np.ceil((len(scores) + 1) * coverage))
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else float("inf")


def mean_probability(estimator: Any, X: np.ndarray, classes: int) -> np.ndarray:
    """Mean over views of predicted probabilities: (images, views, dim) -> float64 (images, classes)."""
    total = np.zeros((len(X), classes))
    if getattr(estimator, "by_view", False):
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
    """The temperature of least log loss on validation images (Guo et al. 2017, section 4.2), between 0.05 and 20.

    Args:
        probability: float (validation, classes).
        truth: int (validation,).
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        chosen = tempered(probability, float(np.exp(log_temperature)))[np.arange(len(truth)), truth]
        return float(-np.log(np.clip(chosen, 1e-12, 1)).mean())

    found: Any = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))
