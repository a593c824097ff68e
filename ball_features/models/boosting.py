"""XGBoost as a scikit-learn classifier for labels of any type."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["XGBoost"]


class XGBoost(ClassifierMixin, BaseEstimator):
    """XGBoost (Chen and Guestrin 2016, doi 10.1145/2939672.2939785) for labels of any type.

    Args:
        n_estimators: number of boosting rounds.
        learning_rate: shrinkage of each tree.
        max_depth: greatest depth of a tree.
        max_bin: number of bins in the histogram of each column.
        colsample_bytree: share of the columns that each tree uses.
        random_state: seed of the choice of columns.

    Attributes:
        classes_: sorted labels, (C,).
        booster_: fitted `xgboost.XGBClassifier`.
        n_features_in_: number of columns D.
    """

    def __init__(
        self,
        n_estimators: int = 100,
        learning_rate: float = 0.2,
        max_depth: int = 4,
        max_bin: int = 32,
        colsample_bytree: float = 0.1,
        random_state: int | None = 0,
    ) -> None:
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.max_bin = max_bin
        self.colsample_bytree = colsample_bytree
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> XGBoost:
        """Fit on X (N, D) and labels y (N,)."""
        from xgboost import XGBClassifier

        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.booster_ = XGBClassifier(
            n_estimators=self.n_estimators,
            learning_rate=self.learning_rate,
            max_depth=self.max_depth,
            max_bin=self.max_bin,
            colsample_bytree=self.colsample_bytree,
            tree_method="hist",
            n_jobs=1,
            random_state=self.random_state,
        ).fit(X, codes)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, float64 (N, C), of X (N, D)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return self.booster_.predict_proba(X).astype(np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row of X (N, D)."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]
