"""Support vector machines that compute their Gram matrix once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["KernelSVM"]

FOLDS = 3
# Rows up to which the Gram matrix is held, 8 bytes a pair; more are left to libsvm, which computes parts of it again.
GRAM_ROWS = 6000


class KernelSVM(ClassifierMixin, BaseEstimator):
    """A support vector machine on standardised columns with Platt's probabilities (Platt 1999).

    As scikit-learn's `StandardScaler`, `SVC` and `CalibratedClassifierCV` (sigmoid on out-of-fold decisions, then one
    machine on all rows), but the Gram matrix is computed once for all four machines, which is most of their time.

    Args:
        kernel: "linear", or "rbf" with gamma 1 / (columns x variance), scikit-learn's "scale".
        C: Inverse strength of regularisation.

    Attributes:
        classes_: (C,) sorted labels.
        scaler_: The fitted `StandardScaler`.
        gamma_: Of the kernel.
        rows_: float64 (N, D), standardised training rows.
        codes_: int (N,), their classes.
        calibrated_: The fitted `CalibratedClassifierCV`, on kernel values where the Gram matrix was held.
        n_features_in_: D.
    """

    def __init__(self, kernel: str = "rbf", C: float = 1.0) -> None:
        self.kernel = kernel
        self.C = C

    def fit(self, X: Any, y: Any) -> KernelSVM:
        """Fit on X (N, D) and labels y (N,)."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, self.codes_ = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Got one class, {self.classes_[0]!r}, expected at least 2.")
        self.scaler_ = StandardScaler().fit(X)
        self.rows_ = np.asarray(self.scaler_.transform(X), dtype=np.float64)
        self.gamma_ = 1 / max(self.rows_.shape[1] * self.rows_.var(), 1e-12)
        held = len(self.rows_) <= GRAM_ROWS
        svm = self._machine("precomputed" if held else self.kernel)
        settings: dict[str, Any] = {"method": "sigmoid", "cv": FOLDS, "ensemble": False}
        self.calibrated_ = CalibratedClassifierCV(svm, **settings)
        self.calibrated_.fit(self._gram(self.rows_) if held else self.rows_, self.codes_)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities of X (N, D), float64 (N, C)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        rows = np.asarray(self.scaler_.transform(X), dtype=np.float64)
        held = len(self.rows_) <= GRAM_ROWS
        return self.calibrated_.predict_proba(self._gram(rows) if held else rows)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row of X (N, D)."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]

    def to_pipeline(self) -> Pipeline:
        """The same classifier as scikit-learn's own parts: the last machine is fitted again, on columns."""
        check_is_fitted(self)
        calibrated: Any = copy.deepcopy(self.calibrated_)
        (inner,) = calibrated.calibrated_classifiers_
        inner.estimator = self._machine(self.kernel).fit(self.rows_, self.classes_[self.codes_])
        inner.classes, calibrated.classes_ = self.classes_, self.classes_
        calibrated.n_features_in_ = self.rows_.shape[1]
        return make_pipeline(self.scaler_, calibrated)

    def _machine(self, kernel: str) -> SVC:
        return SVC(kernel=kernel, C=self.C, gamma=self.gamma_, cache_size=500)

    def _gram(self, rows: np.ndarray) -> np.ndarray:
        """Kernel values of rows (N, D) with the training rows, (N, training rows)."""
        products = rows @ self.rows_.T
        if self.kernel == "linear":
            return products
        if self.kernel != "rbf":
            raise ValueError(f"Got the kernel {self.kernel!r}, expected linear or rbf.")
        squares = np.square(self.rows_).sum(1)
        distance = np.square(rows).sum(1)[:, None] + squares[None] - 2 * products
        return np.exp(-self.gamma_ * np.maximum(distance, 0))
