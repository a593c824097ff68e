"""An ensemble with one model for each view of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ball_features.models.base import PerViewClassifier
from ball_features.models.robust import GroupRobustDiscriminant, GroupRobustLogistic

__all__ = ["ViewEnsemble"]


class ViewEnsemble(PerViewClassifier, ClassifierMixin, BaseEstimator):
    """One model for each view, whose answers are averaged: what one view hides about a slide, another may show.

    Each view has its own model, since views (a stain alone, nuclei alone) lie in different regions of the embedding.
    Log-probabilities are averaged (a logarithmic opinion pool, Genest and Zidek 1986, section 3.2).

    Args:
        estimator: estimator of one view, cloned for each. None uses `GroupRobustDiscriminant` for views of cells and
            `GroupRobustLogistic` (three directions, weighted groups) for views of whole fields.
        whole_field: for each view, whether it shows the space between the cells too; empty if all views show cells
            alone. A discriminant trusts directions that hardly vary, and a background hardly varies within a slide.
        floor: least probability that one view can give a class, above 0 and below 1 / classes, so that no view has a
            veto.
        per_image: `per_image` of the estimators that None stands for.

    Attributes:
        classes_: sorted labels, (C,).
        models_: fitted estimator of each view.
        n_features_in_: length of X's second axis: number of views, or D if X is (N, D).
    """

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

    def fit(self, X: Any, y: Any, *, groups: Any = None, center: Any = None) -> ViewEnsemble:
        """Fit. There is no sample_weight, since not every model of a view takes one.

        Args:
            X: embeddings, float (N, views, D), or (N, D) for one view.
            y: labels, (N,).
            groups: group of each image, (N,), passed to each view's model, or None.
            center: what each image is centred with, (N,), passed to each view's model, or None.

        Raises:
            ValueError: `whole_field` does not match the views, or `floor` does not match the classes.
        """
        checked: Any = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        X, y = checked
        check_classification_targets(y)
        known = _given(groups=groups, center=center)
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

    def view_proba(self, X: Any, center: Any = None) -> np.ndarray:
        """Return the class probabilities of each view's own model, float64 (N, views, C)."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)
        known = _given(center=center)
        pairs = zip(self.models_, _views(checked), strict=True)
        return np.stack([model.predict_proba(own, **known).astype(np.float64) for model, own in pairs], 1)

    def predict_proba(self, X: Any, center: Any = None) -> np.ndarray:
        """Return class probabilities of X (N, views, D), float64 (N, C); center (N,) as in training."""
        pooled = np.exp(np.log(np.clip(self.view_proba(X, center), self.floor, 1)).mean(1))
        return pooled / pooled.sum(1, keepdims=True)

    def predict(self, X: Any, center: Any = None) -> np.ndarray:
        """Return the most probable label of each row of X (N, views, D)."""
        probability = self.predict_proba(X, center)
        return self.classes_[probability.argmax(1)]


def _given(**options: np.ndarray | None) -> dict[str, np.ndarray]:
    return {name: value for name, value in options.items() if value is not None}


def _views(X: np.ndarray) -> list[np.ndarray]:
    return [X] if X.ndim == 2 else [X[:, view] for view in range(X.shape[1])]
