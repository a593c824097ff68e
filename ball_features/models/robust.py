"""Training against series: what tells one slide from another is taken out, and no slide outvotes the others.

The options of `GroupRobustLogistic` are chosen on the training groups alone, by leaving each of them out in turn, since
that is what the model will be asked to do.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ball_features.models.alignment import Alignment

__all__ = ["GroupRobustDiscriminant", "GroupRobustLogistic", "ViewEnsemble", "group_directions", "group_weights"]

_LEAST_GROUP = 20  # images of a group whose mean says something
_LEAST_CLASS = 50  # images that a class keeps when one of its groups is left out


def group_weights(y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sample weights that give each class the same total, shared among its groups by the root of their size.

    Args:
        y: (images,) labels.
        group: (images,).

    Returns:
        float64 (images,), mean 1.
    """
    weight = np.zeros(len(y))
    for name in np.unique(y):
        own = y == name
        _, code, count = np.unique(group[own], return_inverse=True, return_counts=True)
        share = 1 / np.sqrt(count[code])
        weight[own] = share / share.sum()
    return weight * len(y) / weight.sum()


def group_directions(X: np.ndarray, y: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Directions in which groups of one class differ most: they tell the slide and not the disease.

    Principal components of the means of groups, each less the mean of its class's groups (the nuisance attribute
    projection of Solomonoff et al. 2005, with groups as channels).

    Args:
        X: float (images, columns).
        y: (images,) labels.
        group: (images,).
        count: Directions wanted; fewer where there are fewer groups.

    Returns:
        float (directions, columns), orthonormal rows.
    """
    if count < 0:
        raise ValueError(f"Got {count} directions to remove, expected at least 0.")
    apart = []
    for name in np.unique(y):
        own = y == name
        means = [
            X[own & (group == item)].mean(0)
            for item in np.unique(group[own])
            if (own & (group == item)).sum() >= _LEAST_GROUP
        ]
        if len(means) > 1:
            apart += [mean - np.mean(means, 0) for mean in means]
    if not apart or not count:
        return np.zeros((0, X.shape[1]), dtype=X.dtype)
    _, length, rows = np.linalg.svd(np.array(apart), full_matrices=False)
    return rows[: min(count, int((length > 1e-6 * length[0]).sum()))].astype(X.dtype)


class GroupRobustLogistic(ClassifierMixin, BaseEstimator):
    """Logistic regression made robust to the group (slide, series) that an image comes from.

    Standardise, remove `group_directions`, fit with `group_weights`. Without groups it is a plain logistic regression
    with balanced classes.

    Args:
        C: Candidates of the inverse strength of L2; of all candidates the first of equals is taken.
        directions: Candidates of the number of group directions to remove.
        balance: Candidates: whether groups are weighted.
        per_image: Standardise each embedding in itself first; see `Alignment`.

    Attributes:
        classes_: (C,) sorted labels.
        chosen_: The candidates that did best on training groups left out: C, directions and balance. Where no group can
            be left out, the first that remove no direction, since none has shown that it helps; else the first.
        inner_accuracy_: Share of right answers on a training group left out with them, the mean over groups; NaN where
            nothing could be left out, or there was nothing to choose.
        alignment_: The fitted `Alignment`.
        scaler_: The fitted `StandardScaler` of aligned embeddings.
        removed_: float32 (directions, D), orthonormal, taken from standardised embeddings; fewer than were chosen where
            there are fewer groups.
        model_: The fitted `LogisticRegression` on what is left.
        n_features_in_: D.
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

    def fit(self, X: Any, y: Any, *, groups: Any = None, kinds: Any = None) -> GroupRobustLogistic:
        """Fit on X (N, D), labels y (N,), the group of each row and the kind that it is centred with, (N,) or None.

        There is no sample_weight: rows weigh by class and group (`balance`).
        """
        X, y, group = _checked(self, X, y, groups)
        self.classes_ = np.unique(y)
        self.alignment_ = Alignment(self.per_image)
        X = self.alignment_.fit_transform(X, kinds)
        candidates = list(product(self.C, self.directions, self.balance))
        inner = list(_left_out(y, group))
        self.inner_accuracy_ = float("nan")
        best = candidates[0]
        if inner and len(candidates) > 1:
            # The first of equals, so that the order of the candidates decides, not noise.
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

    def predict_proba(self, X: Any, kinds: Any = None) -> np.ndarray:
        """Class probabilities of X (N, D), float64 (N, C); kinds (N,) where there were some in training."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float32, reset=False)
        Z: Any = self.scaler_.transform(self.alignment_.transform(checked, kinds))
        return self.model_.predict_proba(Z - (Z @ self.removed_.T) @ self.removed_).astype(np.float64)

    def predict(self, X: Any, kinds: Any = None) -> np.ndarray:
        """The most probable label of each row of X (N, D); for `kinds` see `predict_proba`."""
        probability = self.predict_proba(X, kinds)
        return self.classes_[probability.argmax(1)]

    def to_pipeline(self) -> Pipeline:
        """The same classifier as scikit-learn's own parts, the removed directions folded into the coefficients.

        Raises:
            ValueError: It aligns embeddings first, which those parts cannot.
        """
        check_is_fitted(self)
        _require_unaligned(self)
        return make_pipeline(self.scaler_, _folded(self.model_, self.removed_))


class GroupRobustDiscriminant(ClassifierMixin, BaseEstimator):
    """Linear discriminant analysis made robust to the group (slide, series) that an image comes from.

    Standardise, remove `group_directions`, then Fisher's discriminant with a shrunk covariance (Ledoit and Wolf 2004)
    and equal priors: what varies most within a class, such as light and focus, counts least.

    Args:
        directions: Group directions to remove.
        shrinkage: Of the covariance, 0 to 1, or "auto".
        per_image: Standardise each embedding in itself first; see `Alignment`.

    Attributes:
        classes_: (C,) sorted labels.
        alignment_: The fitted `Alignment`.
        scaler_: The fitted `StandardScaler` of aligned embeddings.
        used_: int (columns,), those that vary in training; the others say nothing.
        removed_: float32 (directions, columns), orthonormal, taken from the standardised columns used.
        model_: The fitted `LinearDiscriminantAnalysis` on what is left.
        n_features_in_: D.
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

    def fit(self, X: Any, y: Any, *, groups: Any = None, kinds: Any = None) -> GroupRobustDiscriminant:
        """Fit on X (N, D), labels y (N,), the group of each row and the kind that it is centred with, (N,) or None.

        There is no sample_weight, which scikit-learn's discriminant does not take either.
        """
        X, y, group = _checked(self, X, y, groups)
        self.classes_ = np.unique(y)
        self.alignment_ = Alignment(self.per_image)
        X = self.alignment_.fit_transform(X, kinds)
        self.scaler_ = StandardScaler().fit(X)
        # Short embeddings are filled up with zeros, which cost as much as numbers and say nothing.
        self.used_ = np.flatnonzero(np.asarray(self.scaler_.var_) > 0)
        Z = np.asarray(self.scaler_.transform(X))[:, self.used_]
        self.removed_ = group_directions(Z, y, group, self.directions)
        priors = np.full(len(self.classes_), 1 / len(self.classes_))
        model: Any = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=self.shrinkage, priors=priors)
        self.model_ = model.fit(Z - (Z @ self.removed_.T) @ self.removed_, y)
        return self

    def predict_proba(self, X: Any, kinds: Any = None) -> np.ndarray:
        """Class probabilities of X (N, D), float64 (N, C); kinds (N,) where there were some in training."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float32, reset=False)
        Z = np.asarray(self.scaler_.transform(self.alignment_.transform(checked, kinds)))[:, self.used_]
        return self.model_.predict_proba(Z - (Z @ self.removed_.T) @ self.removed_).astype(np.float64)

    def predict(self, X: Any, kinds: Any = None) -> np.ndarray:
        """The most probable label of each row of X (N, D); for `kinds` see `predict_proba`."""
        probability = self.predict_proba(X, kinds)
        return self.classes_[probability.argmax(1)]

    def to_pipeline(self) -> Pipeline:
        """The same classifier as scikit-learn's own parts, the removed directions folded into the coefficients.

        Raises:
            ValueError: It aligns embeddings first, which those parts cannot.
        """
        check_is_fitted(self)
        _require_unaligned(self)
        model: Any = _folded(self.model_, self.removed_)
        width = len(np.asarray(self.scaler_.scale_))
        coefficients = np.zeros((len(model.coef_), width), dtype=model.coef_.dtype)
        coefficients[:, self.used_] = model.coef_
        model.coef_, model.n_features_in_ = coefficients, width
        return make_pipeline(self.scaler_, model)


class ViewEnsemble(ClassifierMixin, BaseEstimator):
    """A model a view, their answers averaged: what one view misses about a slide, another may show.

    Each view gets a model of its own, since views (a stain alone, nuclei alone) lie in different places of the
    embedding; log-probabilities are averaged (a logarithmic opinion pool, Genest and Zidek 1986, section 3.2).

    Args:
        estimator: Of one view, cloned for each; None is `GroupRobustDiscriminant` for views of cells and
            `GroupRobustLogistic` (three directions, weights) for views of whole fields.
        whole_field: For each view, whether it shows what lies between the cells too; empty for views of cells alone.
            A discriminant trusts directions that hardly vary, and a background hardly varies within a slide.
        floor: Least probability that one view can give a class, so that none can veto: above 0, below 1 / classes.
        per_image: Of the estimators that None stands for.

    Attributes:
        classes_: (C,) sorted labels.
        models_: The fitted estimator of each view.
        n_features_in_: Length of X's second axis: views, or D where X is flat.
    """

    by_view = True

    def __init__(
        self,
        estimator: Any = None,
        *,
        whole_field: tuple[bool, ...] = (),
        floor: float = 1e-4,
        per_image: bool = False,
    ) -> None:
        self.estimator = estimator
        self.whole_field = whole_field
        self.floor = floor
        self.per_image = per_image

    def fit(self, X: Any, y: Any, *, groups: Any = None, kinds: Any = None) -> ViewEnsemble:
        """Fit on X (N, views, D), or (N, D) for one view, labels y (N,); groups and kinds go to each view's model.

        There is no sample_weight, since not every model of a view takes one.

        Raises:
            ValueError: `whole_field` does not match the views, or the floor the classes.
        """
        checked: Any = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        X, y = checked
        check_classification_targets(y)
        known = _given(groups=groups, kinds=kinds)
        whole = self.whole_field or (False,) * len(_views(X))
        if len(whole) != len(_views(X)):
            raise ValueError(f"ViewEnsemble got whole_field={whole} and {len(_views(X))} views, expected one for each.")
        classes = len(np.unique(y))
        if not 0 < self.floor < 1 / classes:
            raise ValueError(f"ViewEnsemble got floor={self.floor}, expected above 0 and below 1 / {classes} classes.")
        cells = GroupRobustDiscriminant(per_image=self.per_image)
        field = GroupRobustLogistic(directions=(3,), balance=(True,), per_image=self.per_image)
        self.models_: list[Any] = []
        for seen, part in zip(whole, _views(X), strict=True):
            own = (field if seen else cells) if self.estimator is None else self.estimator
            model: Any = clone(own)
            self.models_.append(model.fit(part, y, **known))
        self.classes_ = self.models_[0].classes_
        return self

    def view_proba(self, X: Any, kinds: Any = None) -> np.ndarray:
        """Class probabilities of each view's model on its own, float64 (N, views, C)."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)
        known = _given(kinds=kinds)
        pairs = zip(self.models_, _views(checked), strict=True)
        return np.stack([model.predict_proba(own, **known).astype(np.float64) for model, own in pairs], 1)

    def predict_proba(self, X: Any, kinds: Any = None) -> np.ndarray:
        """Class probabilities of X (N, views, D), float64 (N, C); kinds (N,) where there were some in training."""
        pooled = np.exp(np.log(np.clip(self.view_proba(X, kinds), self.floor, 1)).mean(1))
        return pooled / pooled.sum(1, keepdims=True)

    def predict(self, X: Any, kinds: Any = None) -> np.ndarray:
        """The most probable label of each row of X (N, views, D)."""
        probability = self.predict_proba(X, kinds)
        return self.classes_[probability.argmax(1)]


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _require_unaligned(estimator: Any) -> None:
    if estimator.per_image or estimator.alignment_.centers_ is not None:
        name = type(estimator).__name__
        raise ValueError(f"{name} got per_image or kinds, expected neither: no pipeline of scikit-learn's does that.")


def _checked(estimator: Any, X: Any, y: Any, groups: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X float32 (N, D), labels (N,) of two classes or more, and the group of each row, one for all if None."""
    X, y = validate_data(estimator, X, y, dtype=np.float32)
    check_classification_targets(y)
    classes = np.unique(y)
    if len(classes) < 2:
        name = type(estimator).__name__
        raise ValueError(f"{name} got one class, {classes[0]!r}, expected at least two classes.")
    group = np.zeros(len(y), dtype=np.int64) if groups is None else np.asarray(groups)
    if group.shape != y.shape:
        raise ValueError(
            f"{type(estimator).__name__} got groups of shape {group.shape}, expected {y.shape}: one a row."
        )
    return X, y, group


def _folded(model: Any, removed: np.ndarray) -> Any:
    """A linear model that removes directions from its input by its own coefficients."""
    folded = copy.copy(model)
    folded.coef_ = model.coef_ - (model.coef_ @ removed.T) @ removed
    return folded


def _views(X: np.ndarray) -> list[np.ndarray]:
    return [X] if X.ndim == 2 else [X[:, view] for view in range(X.shape[1])]


def _left_out(y: np.ndarray, group: np.ndarray) -> Iterator[np.ndarray]:
    """Masks of groups that can be left out while every class they hold keeps enough images."""
    for name in np.unique(group):
        test = group == name
        if test.sum() >= _LEAST_GROUP and all(
            (y[~test] == label).sum() >= _LEAST_CLASS for label in np.unique(y[test])
        ):
            yield test
