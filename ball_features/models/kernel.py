"""A support vector machine that computes its Gram matrix once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["KernelSVM"]

FOLDS = 3  # of the calibration
# Most rows for which the Gram matrix is held, at 8 bytes a pair. With more, libsvm computes parts of it repeatedly.
GRAM_ROWS = 6000


class KernelSVM(ClassifierMixin, BaseEstimator):
    """A support vector machine with Platt's probabilities (Platt 1999).

    As scikit-learn's `SVC` and `CalibratedClassifierCV` (sigmoid on out-of-fold decisions, then one machine on all
    rows), but the Gram matrix, which takes most of the time, is computed once for all machines. The calibration has
    three folds, or two if a class has two rows. They know no groups: copies and views of a training image may lie in
    several of them, which can make probabilities too sure, but never reaches a test image.

    Args:
        kernel: "linear", or "rbf" with gamma 1 / (columns x variance), scikit-learn's "scale".
        C: inverse strength of regularisation.

    Attributes:
        classes_: sorted labels, (C,).
        gamma_: gamma of the kernel.
        rows_: training rows, float64 (N, D).
        codes_: class of each training row, int (N,).
        calibrated_: fitted `CalibratedClassifierCV`, on kernel values if the Gram matrix was held.
        n_features_in_: number of columns D.
    """

    def __init__(self, kernel: str = "rbf", C: float = 1.0) -> None:
        self.kernel = kernel
        self.C = C

    def fit(self, X: Any, y: Any) -> KernelSVM:
        """Fit on X (N, D), standardised or with columns of similar scale, and labels y (N,).

        Raises:
            ValueError: The kernel is unknown, there is one class, or a class has one row, which cannot be calibrated.
        """
        if self.kernel not in ("linear", "rbf"):
            raise ValueError(f"Got the kernel {self.kernel!r}, expected linear or rbf.")
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, self.codes_, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Got one class, {self.classes_[0]!r}, expected at least 2.")
        if counts.min() < 2:
            raise ValueError(
                f"KernelSVM got one row of the class {self.classes_[counts.argmin()]}, expected at least 2 of each."
            )
        self.rows_: np.ndarray = X.astype(np.float64)
        self.gamma_ = 1 / max(self.rows_.shape[1] * self.rows_.var(), 1e-12)
        svm, seen = self._machine(self.kernel), self.rows_
        if self._held:
            svm, seen = self._machine("precomputed"), self._values(self.rows_, self.rows_ @ self.rows_.T)
        settings: dict[str, Any] = {"method": "sigmoid", "cv": min(FOLDS, int(counts.min())), "ensemble": False}
        self.calibrated_ = CalibratedClassifierCV(svm, **settings).fit(seen, self.codes_)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities of X (N, D), float64 (N, C)."""
        check_is_fitted(self)
        rows = np.asarray(validate_data(self, X, dtype=(np.float64, np.float32), reset=False), dtype=np.float64)
        return self.calibrated_.predict_proba(self._values(rows, rows @ self.rows_.T) if self._held else rows)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row of X (N, D)."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]

    def to_calibrated(self) -> CalibratedClassifierCV:
        """Return the same classifier as scikit-learn's own parts; the last machine is fitted again, on columns."""
        check_is_fitted(self)
        calibrated: Any = copy.deepcopy(self.calibrated_)
        (inner,) = calibrated.calibrated_classifiers_
        calibrated.estimator = self._machine(self.kernel)
        inner.estimator = self._machine(self.kernel).fit(self.rows_, self.classes_[self.codes_])
        inner.classes, calibrated.classes_ = self.classes_, self.classes_
        calibrated.n_features_in_ = self.rows_.shape[1]
        return calibrated

    @property
    def _held(self) -> bool:
        return len(self.rows_) <= GRAM_ROWS

    def _machine(self, kernel: str) -> SVC:
        gamma: Any = self.gamma_
        return SVC(kernel=kernel, C=self.C, gamma=gamma, cache_size=500)

    def _values(self, rows: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Return kernel values of rows (N, D) with the training rows, from their products (N, training rows)."""
        if self.kernel == "linear":
            return products
        squares = np.square(self.rows_).sum(1)
        distance = np.square(rows).sum(1)[:, None] + squares[None] - 2 * products
        return np.exp(-self.gamma_ * np.maximum(distance, 0))
