"""Classical models on embeddings, each a scikit-learn estimator on one thread.

Settings are chosen for some thousands of rows of 1,000 to 2,000 columns, and for speed where accuracy does not suffer:
`benchmarks/fit.py --defaults` holds both against the libraries' own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ball_features.models.kernel import KernelSVM

__all__ = ["BASELINES", "XGBoost"]


class XGBoost(ClassifierMixin, BaseEstimator):
    """XGBoost (Chen and Guestrin 2016, doi 10.1145/2939672.2939785) for labels of any type.

    Args:
        n_estimators: Boosting rounds.
        learning_rate: Shrinkage of each tree.
        max_depth: Of a tree.
        max_bin: Bins of the histogram of each column.
        colsample_bytree: Share of columns that each tree looks at.
        random_state: Seeds the choice of columns.

    Attributes:
        classes_: (C,) sorted labels.
        booster_: The fitted `xgboost.XGBClassifier`.
        n_features_in_: D.
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
        """Class probabilities of X (N, D), float64 (N, C)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return self.booster_.predict_proba(X).astype(np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row of X (N, D)."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]


def _scaled(model: Any) -> Pipeline:
    return make_pipeline(StandardScaler(), model)


def _boosting(seed: int) -> HistGradientBoostingClassifier:
    # Few bins, a tenth of the columns a node, no inner validation: a tenth of the default's time.
    settings: dict[str, Any] = {"max_bins": 32, "max_features": 0.1, "early_stopping": False}
    return HistGradientBoostingClassifier(learning_rate=0.2, max_iter=60, max_depth=4, random_state=seed, **settings)


def _forest(seed: int) -> Pipeline:
    # Sixteen levels a column: sorting it for each split is most of a forest's time, and quick where values repeat.
    levels = KBinsDiscretizer(16, encode="ordinal", strategy="uniform", random_state=seed)
    forest = RandomForestClassifier(100, max_features="sqrt", n_jobs=1, random_state=seed)
    return make_pipeline(VarianceThreshold(), levels, forest)


BASELINES: dict[str, Callable[[int], Any]] = {
    "logistic": lambda seed: _scaled(LogisticRegression(C=0.01, max_iter=200, tol=1e-3)),
    "linear-svm": lambda seed: _scaled(KernelSVM("linear", C=0.01)),
    "rbf-svm": lambda seed: _scaled(KernelSVM("rbf", C=10.0)),
    "knn": lambda seed: _scaled(KNeighborsClassifier(n_neighbors=5, weights="distance")),
    "lda": lambda seed: _scaled(LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
    "random-forest": _forest,
    "extra-trees": lambda seed: ExtraTreesClassifier(100, max_features="sqrt", n_jobs=1, random_state=seed),
    "hist-gradient-boosting": _boosting,
    "xgboost": lambda seed: XGBoost(random_state=seed),
}
