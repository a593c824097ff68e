"""A linear discriminant in which every site counts the same, and within a site every class."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ball_features.models.base import PipelineClassifier

__all__ = ["BalancedDiscriminant", "balanced_weights"]

_FULL_WEIGHT = 20  # images from which a class of a group has its full weight: the mean of fewer says little
_TINY = 1e-6  # deviation of a column that does not vary


def balanced_weights(y: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return sample weights with which groups count the same, and within a group its classes.

    Args:
        y: labels, (images,).
        groups: group of each image, (images,), or None for one group.

    Returns:
        Weights, float64 (images,), that sum to 1. A class of a group that has few images counts less.
    """
    group = np.zeros(len(y), dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    weight = np.zeros(len(y))
    for code in range(group.max() + 1):
        own = group == code
        classes, count = np.unique(y[own], return_counts=True)
        for name, images in zip(classes, count, strict=True):
            weight[own & (y == name)] = min(1.0, images / _FULL_WEIGHT) / (images * len(classes))
    return weight / weight.sum()


class BalancedDiscriminant(PipelineClassifier, ClassifierMixin, BaseEstimator):
    """Linear discriminant analysis with a shrunk covariance, equal priors and balanced sample weights.

    Columns are standardised. The covariance within classes is shrunk towards a multiple of the identity (Friedman 1989,
    doi 10.1080/01621459.1989.10478752, eq. 18); the discriminant is Fisher's with the weights of `balanced_weights`.

    Args:
        shrinkage: share of the identity in the covariance, above 0 and at most 1.

    Attributes:
        classes_: sorted labels, (C,).
        coef_: coefficients for rows as they come, float64 (C, D).
        intercept_: float64 (C,).
        n_features_in_: number of columns D.
    """

    def __init__(self, shrinkage: float = 0.5) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> BalancedDiscriminant:
        """Fit.

        Args:
            X: embeddings, float (N, D).
            y: labels, (N,).
            groups: group (site, series) of each row, (N,), or None.

        Raises:
            ValueError: There is one class, `shrinkage` is out of its range, or groups do not match the rows.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, code = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"BalancedDiscriminant got one class, {self.classes_[0]!r}, expected at least two.")
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"BalancedDiscriminant got shrinkage={self.shrinkage}, expected above 0 and at most 1.")
        if groups is not None and len(groups) != len(y):
            raise ValueError(f"BalancedDiscriminant got {len(groups)} groups for {len(y)} rows, expected one a row.")
        weight = balanced_weights(code, None if groups is None else np.asarray(groups))
        rows = X.astype(np.float64)
        mean = weight @ rows
        rows -= mean
        scale = np.sqrt(weight @ rows**2) + _TINY
        rows /= scale
        means = np.stack([weight[code == k] @ rows[code == k] / weight[code == k].sum() for k in range(code.max() + 1)])
        within = (rows - means[code]) * np.sqrt(weight)[:, None]
        direction = _solve(within, means.T, self.shrinkage)  # (D, C)
        self.coef_ = (direction / scale[:, None]).T
        self.intercept_ = -0.5 * (means.T * direction).sum(0) - self.coef_ @ mean
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the discriminant score of each class up to a constant per row, float64 (N, C)."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float32, reset=False)
        return checked.astype(np.float64) @ self.coef_.T + self.intercept_

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities of X (N, D), float64 (N, C)."""
        score = self.decision_function(X)
        odds = np.exp(score - score.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row of X (N, D)."""
        return self.classes_[self.decision_function(X).argmax(1)]

    def to_pipeline(self) -> Pipeline:
        """Return a logistic regression of scikit-learn's with the same coefficients, which gives the same answers."""
        check_is_fitted(self)
        linear: Any = LogisticRegression()
        two = len(self.classes_) == 2
        linear.coef_ = self.coef_[1:] - self.coef_[:1] if two else self.coef_
        linear.intercept_ = self.intercept_[1:] - self.intercept_[:1] if two else self.intercept_
        linear.classes_, linear.n_features_in_ = self.classes_, self.coef_.shape[1]
        linear.n_iter_ = np.zeros(1, dtype=np.int32)
        return make_pipeline(linear)


def _solve(rows: np.ndarray, targets: np.ndarray, shrinkage: float) -> np.ndarray:
    """Solve covariance x = targets for the shrunk covariance of rows (N, D) by the smaller Gram matrix."""
    from scipy.linalg import cho_factor, cho_solve

    ridge = max(shrinkage * float((rows**2).sum()) / rows.shape[1], np.finfo(float).tiny)
    share = 1 - shrinkage
    if share == 0:
        return targets / ridge
    if rows.shape[0] >= rows.shape[1]:
        gram = share * (rows.T @ rows)
        gram[np.diag_indices_from(gram)] += ridge
        return cho_solve(cho_factor(gram), targets)
    # Woodbury: (ridge I + share R'R)^-1 = (I - R'(ridge/share I + RR')^-1 R) / ridge
    gram = rows @ rows.T
    gram[np.diag_indices_from(gram)] += ridge / share
    return (targets - rows.T @ cho_solve(cho_factor(gram), rows @ targets)) / ridge
