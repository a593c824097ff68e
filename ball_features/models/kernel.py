"""Support vector machines that compute their Gram matrix once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_memory, validate_data

__all__ = ["KernelSVM"]

FOLDS = 3
# Rows up to which the Gram matrix is held, 8 bytes a pair; more are left to libsvm, which computes parts of it again.
GRAM_ROWS = 6000


class KernelSVM(ClassifierMixin, BaseEstimator):
    """A support vector machine with Platt's probabilities (Platt 1999).

    As scikit-learn's `SVC` and `CalibratedClassifierCV` (sigmoid on out-of-fold decisions, then one machine on all
    rows), but the Gram matrix is computed once for all four machines, which is most of their time.

    Args:
        kernel: "linear", or "rbf" with gamma 1 / (columns x variance), scikit-learn's "scale".
        C: Inverse strength of regularisation.
        memory: As of scikit-learn's `Pipeline`: None, a folder, or an object with joblib.Memory's interface, which
            keeps the products of the training rows for other machines on the same ones.

    Attributes:
        classes_: (C,) sorted labels.
        gamma_: Of the kernel.
        rows_: float64 (N, D), training rows.
        codes_: int (N,), their classes.
        calibrated_: The fitted `CalibratedClassifierCV`, on kernel values where the Gram matrix was held.
        n_features_in_: D.
    """

    def __init__(self, kernel: str = "rbf", C: float = 1.0, memory: Any = None) -> None:
        self.kernel = kernel
        self.C = C
        self.memory = memory

    def fit(self, X: Any, y: Any) -> KernelSVM:
        """Fit on X (N, D), standardised or of like columns, and labels y (N,).

        Raises:
            ValueError: One class only, or an unknown kernel.
        """
        if self.kernel not in ("linear", "rbf"):
            raise ValueError(f"Got the kernel {self.kernel!r}, expected linear or rbf.")
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, self.codes_ = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Got one class, {self.classes_[0]!r}, expected at least 2.")
        memory: Any = check_memory(self.memory)
        # Of many rows a copy for each machine, gone with it, costs less than one for all that stays.
        widen = memory.cache(_widened) if len(X) <= GRAM_ROWS else _widened
        self.rows_: np.ndarray = widen(X)
        self.gamma_ = 1 / max(self.rows_.shape[1] * self.rows_.var(), 1e-12)
        svm, seen = self._machine(self.kernel), self.rows_
        if self._held:
            svm, seen = self._machine("precomputed"), self._values(self.rows_, memory.cache(_gram)(self.rows_))
        settings: dict[str, Any] = {"method": "sigmoid", "cv": FOLDS, "ensemble": False}
        self.calibrated_ = CalibratedClassifierCV(svm, **settings).fit(seen, self.codes_)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities of X (N, D), float64 (N, C)."""
        check_is_fitted(self)
        rows = np.asarray(validate_data(self, X, dtype=(np.float64, np.float32), reset=False), dtype=np.float64)
        return self.calibrated_.predict_proba(self._values(rows, rows @ self.rows_.T) if self._held else rows)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row of X (N, D)."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]

    def to_calibrated(self) -> CalibratedClassifierCV:
        """The same classifier as scikit-learn's own parts: the last machine is fitted again, on columns."""
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
        """Kernel values of rows (N, D) with the training rows, from their products (N, training rows)."""
        if self.kernel == "linear":
            return products
        squares = np.square(self.rows_).sum(1)
        distance = np.square(rows).sum(1)[:, None] + squares[None] - 2 * products
        return np.exp(-self.gamma_ * np.maximum(distance, 0))


def _widened(X: np.ndarray) -> np.ndarray:
    """float64 (N, D)."""
    return X.astype(np.float64)


def _gram(rows: np.ndarray) -> np.ndarray:
    """Products of all pairs of rows (N, D): (N, N)."""
    return rows @ rows.T
