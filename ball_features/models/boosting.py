"""XGBoost as a scikit-learn classifier for labels of any type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ball_features.models.row_stream import RowStream

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
        self.booster_ = XGBClassifier(n_estimators=self.n_estimators, **self._settings()).fit(X, codes)
        return self

    def fit_stream(self, rows: RowStream, files: str | None = None) -> XGBoost:
        """Fit on rows that are read when they are used, by XGBoost's iterator over blocks.

        Args:
            rows: training rows.
            files: start of the names of files that hold the binned rows, or None to hold them in memory.
        """
        import xgboost

        self.classes_, self.n_features_in_ = np.unique(rows.codes[rows.images]), rows.columns
        blocks: Any = _blocks(rows, self.classes_, files)
        if files is None:
            binned = xgboost.QuantileDMatrix(blocks, max_bin=self.max_bin, nthread=1)
        else:
            binned = xgboost.ExtMemQuantileDMatrix(blocks, max_bin=self.max_bin, nthread=1)
        several = len(self.classes_) > 2
        settings = self._settings() | {"objective": "multi:softprob" if several else "binary:logistic"}
        settings |= {"num_class": len(self.classes_)} if several else {}
        settings |= {"nthread": settings.pop("n_jobs"), "seed": settings.pop("random_state") or 0}
        booster = xgboost.train(settings, binned, self.n_estimators)
        self.booster_ = xgboost.XGBClassifier()
        self.booster_.load_model(booster.save_raw("ubj"))
        return self

    def _settings(self) -> Any:
        return {
            "learning_rate": self.learning_rate,
            "max_depth": self.max_depth,
            "max_bin": self.max_bin,
            "colsample_bytree": self.colsample_bytree,
            "tree_method": "hist",
            "n_jobs": 1,
            "random_state": self.random_state,
        }

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities, float64 (N, C), of X (N, D)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return self.booster_.predict_proba(X).astype(np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row of X (N, D)."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]


def _blocks(rows: RowStream, classes: np.ndarray, files: str | None) -> Any:
    """Return an iterator over blocks of rows, as XGBoost takes it; it goes over them several times."""
    import xgboost

    class Blocks(xgboost.DataIter):
        def __init__(self) -> None:
            self.left: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
            super().__init__(cache_prefix=files, release_data=True)

        def reset(self) -> None:
            self.left = rows.blocks()

        def next(self, input_data: Callable[..., object]) -> bool:
            block = next(self.left, None)
            if block is None:
                return False
            input_data(data=block[0].astype(np.float32), label=np.searchsorted(classes, block[1]))
            return True

    return Blocks()
