"""Linear classifiers that are robust to the group (slide, series) an image comes from.

What tells one group from another is removed, and no group outvotes the others. The options of `GroupRobustLogistic` are
chosen on the training groups alone by leaving each of them out in turn, which is the task that the model will face.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from itertools import product
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ball_features.models.alignment import Alignment
from ball_features.models.base import AlignedClassifier, PipelineClassifier
from ball_features.models.group_effects import group_directions, group_weights, groups_to_leave_out
from ball_features.models.shrunk import ShrunkDiscriminant

__all__ = ["GroupRobustDiscriminant", "GroupRobustLogistic"]

_CHOOSE_UP_TO = 100  # classes up to which options are chosen on groups left out, a fit each; more take hours


class _GroupRobustClassifier(PipelineClassifier, AlignedClassifier, ClassifierMixin, BaseEstimator):
    """Linear model on standardised embeddings from which group directions are removed."""

    classes_: np.ndarray
    per_image: bool
    removed_: np.ndarray
    model_: Any

    @abstractmethod
    def _standardised(self, X: np.ndarray) -> np.ndarray:
        """Return what directions are removed from, float (N, columns), of aligned embeddings X (N, D)."""

    def predict_proba(self, X: Any, center: Any = None) -> np.ndarray:
        """Return class probabilities of X (N, D), float64 (N, C).

        Args:
            X: embeddings, float (N, D).
            center: what each row is centred with, (N,), if rows were centred in training.
        """
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float32, reset=False)
        Z = self._standardised(self.alignment_.transform(checked, center))
        return self.model_.predict_proba(Z - (Z @ self.removed_.T) @ self.removed_).astype(np.float64)

    def predict(self, X: Any, center: Any = None) -> np.ndarray:
        """Return the most probable label of each row of X (N, D); for `center` see `predict_proba`."""
        probability = self.predict_proba(X, center)
        return self.classes_[probability.argmax(1)]

    def to_pipeline(self) -> Pipeline:
        """Return the same classifier as scikit-learn's own parts; the coefficients remove the directions.

        Raises:
            ValueError: The classifier aligns embeddings first, which those parts cannot do.
        """
        check_is_fitted(self)
        if self.aligns:
            raise ValueError(
                f"{type(self).__name__} got per_image or center, expected neither: no pipeline of scikit-learn's does "
                "that."
            )
        return self._to_parts()

    @abstractmethod
    def _to_parts(self) -> Pipeline: ...

    def _folded(self) -> Any:
        """Return the linear model with coefficients that remove the directions from its input."""
        folded = copy.copy(self.model_)
        folded.coef_ = folded.coef_ - (folded.coef_ @ self.removed_.T) @ self.removed_
        return folded

    def _aligned(self, X: Any, y: Any, groups: Any, center: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Learn the classes and the alignment.

        Returns:
            Aligned X, float32 (N, D), the labels (N,) and the group of each row, one group for all if None.
        """
        name = type(self).__name__
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"{name} got one class, {self.classes_[0]!r}, expected at least two classes.")
        group = np.zeros(len(y), dtype=np.int64) if groups is None else np.asarray(groups)
        if group.shape != y.shape:
            raise ValueError(f"{name} got groups of shape {group.shape}, expected {y.shape}: one a row.")
        self.alignment_ = Alignment(self.per_image)
        return self.alignment_.fit_transform(X, center), y, group


class GroupRobustLogistic(_GroupRobustClassifier):
    """Logistic regression made robust to the group (slide, series) that an image comes from.

    Standardise, remove `group_directions`, fit with `group_weights`. Without groups it is a plain logistic regression
    with balanced classes.

    Args:
        C: candidates of the inverse strength of L2. The first of equally good candidates is taken.
        directions: candidates of the number of group directions to remove.
        balance: candidates of whether groups are weighted.
        per_image: True standardises each embedding by its own mean and deviation first; see `Alignment`.

    Attributes:
        classes_: sorted labels, (C,).
        chosen_: C, directions and balance that did best on training groups left out. If no group is left out, the
            first candidate that removes no direction, since none has shown that it helps; if there is none, the first.
        inner_accuracy_: accuracy of the chosen candidate on training groups left out, the mean over groups; NaN if no
            group can be left out, there is one candidate, or there are over 100 classes.
        alignment_: fitted `Alignment`.
        scaler_: fitted `StandardScaler` of aligned embeddings.
        removed_: orthonormal rows removed from standardised embeddings, float32 (directions, D); fewer than chosen if
            there are fewer groups.
        model_: `LogisticRegression` fitted on what is left.
        n_features_in_: number of columns D.
    """

    def __init__(
        self,
        C: tuple[float, ...] = (0.01,),
        *,
        directions: tuple[int, ...] = (3, 0),
        balance: tuple[bool, ...] = (True, False),
        per_image: bool = False,
    ) -> None:
        self.C = C
        self.directions = directions
        self.balance = balance
        self.per_image = per_image

    def fit(self, X: Any, y: Any, *, groups: Any = None, center: Any = None) -> GroupRobustLogistic:
        """Fit. There is no sample_weight: rows are weighted by class and group (`balance`).

        Args:
            X: embeddings, float (N, D).
            y: labels, (N,).
            groups: group of each row, (N,), or None.
            center: what each row is centred with, (N,), or None; see `Alignment`.

        Raises:
            ValueError: There is one class, or groups or center do not match the rows.
        """
        X, y, group = self._aligned(X, y, groups, center)
        candidates = list(product(self.C, self.directions, self.balance))
        inner = list(groups_to_leave_out(y, group)) if len(self.classes_) <= _CHOOSE_UP_TO else []
        self.inner_accuracy_ = float("nan")
        best = candidates[0]
        if inner and len(candidates) > 1:
            # argmax takes the first of equals, so that the order of the candidates decides and not noise.
            scores = [np.mean([self._accuracy(X, y, group, test, c) for test in inner]) for c in candidates]
            best, self.inner_accuracy_ = candidates[int(np.argmax(scores))], float(np.max(scores))
        elif not inner:
            best = next((own for own in candidates if own[1] == 0), best)
        self.chosen_ = dict(zip(("C", "directions", "balance"), best, strict=True))
        self.scaler_, self.removed_, self.model_ = self._fit(X, y, group, best)
        return self

    def _fit(
        self, X: np.ndarray, y: np.ndarray, group: np.ndarray, candidate: tuple[float, int, bool]
    ) -> tuple[StandardScaler, np.ndarray, LogisticRegression]:
        strength, count, balance = candidate
        scaler = StandardScaler().fit(X)
        Z: Any = scaler.transform(X)
        removed = group_directions(Z, y, group, count)
        weight = group_weights(y, group if balance else np.zeros(len(y)))
        model = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        return scaler, removed, model.fit(Z - (Z @ removed.T) @ removed, y, sample_weight=weight)

    def _accuracy(
        self, X: np.ndarray, y: np.ndarray, group: np.ndarray, test: np.ndarray, candidate: tuple[float, int, bool]
    ) -> float:
        scaler, removed, model = self._fit(X[~test], y[~test], group[~test], candidate)
        Z: Any = scaler.transform(X[test])
        return float(np.mean(model.predict(Z - (Z @ removed.T) @ removed) == y[test]))

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.scaler_.transform(X))

    def _to_parts(self) -> Pipeline:
        return make_pipeline(self.scaler_, self._folded())


class GroupRobustDiscriminant(_GroupRobustClassifier):
    """Linear discriminant analysis made robust to the group (slide, series) that an image comes from.

    Standardise, remove `group_directions`, then Fisher's discriminant with a shrunk covariance (Ledoit and Wolf 2004)
    and equal priors: what varies most within a class, such as light and focus, has the least weight.

    Args:
        directions: number of group directions to remove.
        shrinkage: shrinkage of the covariance, 0 to 1, or "auto".
        per_image: True standardises each embedding by its own mean and deviation first; see `Alignment`.

    Attributes:
        classes_: sorted labels, (C,).
        alignment_: fitted `Alignment`.
        scaler_: fitted `StandardScaler` of aligned embeddings.
        used_: columns that vary in training, int (columns,); the others carry no information.
        removed_: orthonormal rows removed from the standardised columns used, float32 (directions, columns).
        model_: `LinearDiscriminantAnalysis` fitted on what is left.
        n_features_in_: number of columns D.
    """

    def __init__(
        self,
        directions: int = 3,
        *,
        shrinkage: float | str = "auto",
        per_image: bool = False,
    ) -> None:
        self.directions = directions
        self.shrinkage = shrinkage
        self.per_image = per_image

    def fit(self, X: Any, y: Any, *, groups: Any = None, center: Any = None) -> GroupRobustDiscriminant:
        """Fit. There is no sample_weight, which scikit-learn's discriminant does not take either.

        Args:
            X: embeddings, float (N, D).
            y: labels, (N,).
            groups: group of each row, (N,), or None.
            center: what each row is centred with, (N,), or None; see `Alignment`.

        Raises:
            ValueError: There is one class, no more rows than classes, or groups or center do not match the rows.
        """
        X, y, group = self._aligned(X, y, groups, center)
        self.scaler_ = StandardScaler().fit(X)
        # Short embeddings are padded with zeros, which take as long as other columns and carry no information.
        self.used_ = np.flatnonzero(np.asarray(self.scaler_.var_) > 0)
        Z = self._standardised(X)
        self.removed_ = group_directions(Z, y, group, self.directions)
        priors = np.full(len(self.classes_), 1 / len(self.classes_))
        model: Any = ShrunkDiscriminant(priors)
        if self.shrinkage != "auto":
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=self.shrinkage, priors=priors)
        self.model_ = model.fit(Z - (Z @ self.removed_.T) @ self.removed_, y)
        return self

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.scaler_.transform(X))[:, self.used_]

    def _to_parts(self) -> Pipeline:
        model: Any = self._folded()
        if isinstance(model, ShrunkDiscriminant):
            model = model.to_scikit_learn()
        width = len(np.asarray(self.scaler_.scale_))
        coefficients = np.zeros((len(model.coef_), width), dtype=model.coef_.dtype)
        coefficients[:, self.used_] = model.coef_
        model.coef_, model.n_features_in_ = coefficients, width
        return make_pipeline(self.scaler_, model)
