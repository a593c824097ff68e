"""Linear discriminant analysis with a shrunk covariance, also of many classes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

__all__ = ["ShrunkDiscriminant", "class_covariance"]

CLASSES_ONE_BY_ONE = 100  # most classes whose covariances scikit-learn computes one after the other


class ShrunkDiscriminant(LinearDiscriminantAnalysis):
    """scikit-learn's discriminant with `solver="lsqr"` and `shrinkage="auto"`, which many classes do not slow down.

    scikit-learn computes a covariance (D, D) for each class (Ledoit and Wolf 2004), minutes for 1,000 classes. With
    more than `CLASSES_ONE_BY_ONE` classes their mean is computed at once, see `class_covariance`.

    Args:
        priors: probability of each class, (C,); shares of the training rows if None.
    """

    def __init__(self, priors: Any = None) -> None:
        super().__init__(solver="lsqr", shrinkage="auto", priors=priors)

    def fit(self, X: Any, y: Any) -> ShrunkDiscriminant:
        """Fit on X (N, D) and labels y (N,)."""
        classes, code, count = np.unique(y, return_inverse=True, return_counts=True)
        if len(classes) <= CLASSES_ONE_BY_ONE:
            super().fit(X, y)
            return self
        checked: Any = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_ = classes
        self.priors_ = count / count.sum() if self.priors is None else np.asarray(self.priors) / np.sum(self.priors)
        self.means_ = _class_means(checked.astype(np.float64), code, count)
        self.covariance_ = class_covariance(checked, code, self.priors_)
        self.coef_ = _solve(self.covariance_, self.means_.T).T
        self.intercept_ = -0.5 * np.einsum("ij,ij->i", self.means_, self.coef_) + np.log(self.priors_)
        return self

    def to_scikit_learn(self) -> LinearDiscriminantAnalysis:
        """Return the same fitted classifier as scikit-learn's own type."""
        own = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=self.priors)
        own.__dict__ |= {name: value for name, value in vars(self).items() if name.endswith("_")}
        return own


def _solve(covariance: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Solve covariance x = targets; least squares, which take ten times as long, where it is singular."""
    from scipy.linalg import LinAlgError, LinAlgWarning, lstsq, solve

    with warnings.catch_warnings():
        warnings.simplefilter("error", LinAlgWarning)
        try:
            return solve(covariance, targets, assume_a="pos")
        except (LinAlgError, LinAlgWarning):
            found: Any = lstsq(covariance, targets)
            return found[0]


def class_covariance(X: np.ndarray, code: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """Compute the mean over classes of shrunk covariances, as `LinearDiscriminantAnalysis` has it with "auto".

    Each class is standardised, its covariance is shrunk by the lemma of Ledoit and Wolf (2004, doi
    10.1016/S0047-259X(03)00096-4), and scaled back. The amount follows from products between the rows of the class
    alone, so that the only product over all columns is one for all classes together.

    Args:
        X: rows, float (N, D).
        code: class of each row, int (N,), from 0 without gaps.
        priors: weight of each class, (C,).

    Returns:
        float64 (D, D).
    """
    rows = X.astype(np.float64)
    count = np.bincount(code)
    rows -= _class_means(rows, code, count)[code]
    columns = rows.shape[1]
    weight, diagonal = np.zeros(len(rows)), np.zeros(columns)
    order = np.argsort(code, kind="stable")
    for own, prior in zip(np.split(order, np.cumsum(count)[:-1]), priors, strict=True):
        part, images = rows[own], len(own)
        scale = np.sqrt((part**2).mean(0))
        scale[scale < 10 * np.finfo(np.float64).eps * np.maximum(np.abs(X[own]).max(0), 1e-300)] = 1.0
        part = part / scale
        gram = part @ part.T
        mean = np.trace(gram) / images / columns
        squares = (gram**2).sum() / images**2  # squared Frobenius norm of the covariance
        fourth = (np.square(part).sum(1) ** 2).sum() / images
        beta = (fourth - squares) / (columns * images)
        delta = (squares - columns * mean**2) / columns
        shrinkage = 0.0 if beta <= 0 else min(beta, delta) / delta
        weight[own] = prior * (1 - shrinkage) / images
        diagonal += prior * shrinkage * mean * scale**2
    rows *= np.sqrt(weight)[:, None]
    covariance = rows.T @ rows
    covariance[np.diag_indices(columns)] += diagonal
    return covariance


def _class_means(rows: np.ndarray, code: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean of each class, float64 (C, D)."""
    order = np.argsort(code, kind="stable")
    starts = np.concatenate([[0], np.cumsum(count)[:-1]])
    return np.add.reduceat(rows[order], starts, axis=0) / count[:, None]
