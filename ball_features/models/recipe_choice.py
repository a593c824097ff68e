"""The model `robust`: a choice among whole recipes by leaving training groups out.

Which views hold up on groups never seen differs from data set to data set, and a choice of single views by a few
training groups does worse than no choice. So the model chooses among few whole recipes, each with its own model:
the plain view with a logistic regression, whole fields, single cells, all of them averaged, or a logistic regression
for each of the plain view and the whole fields, averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ball_features.models.base import PerViewClassifier, ViewRole
from ball_features.models.recipe_members import (
    CELLS,
    PLAIN,
    Member,
    candidates,
    find_members,
    fit_member,
    fresh,
    group_folds,
    rows_of,
)

__all__ = ["RecipeChoice"]

_MIN_GROUPS = 3  # that can be left out; fewer say nothing about a choice
_VARIES = 1e-6  # least deviation of an embedding that says anything


class RecipeChoice(PerViewClassifier, ClassifierMixin, BaseEstimator):
    """Choose among the plain view, whole fields, single cells and averages of them, and average the models chosen.

    Candidates are scored by the balanced recall on training groups left out, each in turn (several at a time if there
    are many). The best one is taken, or the plain view if it is within one standard error of the best (Breiman et al.
    1984, section 3.4.3). With fewer than three groups there is no choice: single cells if the images show such, else
    the plain view. Log-probabilities are averaged (a logarithmic opinion pool, Genest and Zidek 1986, section 3.2).

    Args:
        roles: role of each view in X; empty if all are plain, of which the first is used.
        floor: least probability that one model can give a class, so that none has a veto.

    Attributes:
        classes_: sorted labels, (C,).
        chosen_: recipe that was chosen.
        reason_: why, in a sentence.
        scores_: mean balanced recall of each candidate on groups left out, recipe -> share; empty without a choice.
        left_out_: names of views that are the same for every training image and are not used.
        members_: fitted models of the choice.
        models_: their estimators.
        weights_: weight of each in the average, float64 (members,).
        n_features_in_: length of X's second axis: number of views, or D if X is (N, D).
    """

    def __init__(self, roles: tuple[ViewRole, ...] = (), *, floor: float = 1e-4) -> None:
        self.roles = roles
        self.floor = floor

    def fit(self, X: Any, y: Any, *, groups: Any = None, center: Any = None) -> RecipeChoice:
        """Choose and fit.

        Args:
            X: embeddings, float (N, views, D), or (N, D) for the plain view.
            y: labels, (N,).
            groups: group of each image, (N,), or None.
            center: None; embeddings are centred beforehand, see `SiteAdapter`.

        Raises:
            ValueError: The roles do not match the views, there is one class, or rows are to be centred.
        """
        checked: Any = validate_data(self, X, y, dtype=np.float32, allow_nd=True)
        X, y = checked
        if center is not None:
            raise ValueError("RecipeChoice got center, expected none. Adapt to sites instead.")
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"RecipeChoice got one class, {self.classes_[0]!r}, expected at least two.")
        X = _by_view(X)
        members = self._members(X)
        options = candidates(members)
        group = None if groups is None else np.asarray(groups)
        self.scores_: dict[str, float] = {}
        folds = [] if group is None else list(group_folds(y, group))
        if len(options) == 1:
            self.chosen_, self.reason_ = PLAIN, "the images have the plain view alone"
        elif len(folds) < _MIN_GROUPS:
            self.chosen_ = CELLS if CELLS in options else PLAIN
            self.reason_ = f"{len(folds)} training groups can be left out, expected {_MIN_GROUPS} for a choice"
        else:
            recall = np.array([self._scores(X, y, group, members, options, test) for test in folds])
            self.chosen_, self.reason_ = self._choose(options, recall)
        weights = options[self.chosen_]
        used = [number for number, weight in enumerate(weights) if weight]
        self.members_ = [members[number] for number in used]
        self.weights_ = np.array([weights[number] for number in used])
        for member in self.members_:
            fit_member(member, X, y, group)
        self.models_: list[Any] = [member.model for member in self.members_]
        return self

    def _members(self, X: np.ndarray) -> list[Member]:
        roles = self.roles or (ViewRole("plain", PLAIN),) * X.shape[1]
        if len(roles) != X.shape[1]:
            raise ValueError(f"RecipeChoice got {len(roles)} roles and {X.shape[1]} views, expected one for each.")
        varies = np.array([X[:, view].std(0).max() > _VARIES for view in range(X.shape[1])])
        self.left_out_ = tuple(role.name for role, seen in zip(roles, varies, strict=True) if not seen)
        return find_members(roles, np.flatnonzero(varies).tolist())

    def _scores(
        self,
        X: np.ndarray,
        y: np.ndarray,
        group: np.ndarray | None,
        members: Sequence[Member],
        options: dict[str, np.ndarray],
        test: np.ndarray,
    ) -> list[float]:
        """Return the balanced recall of each candidate on these images, fitted on the others."""
        fitted = [fresh(member) for member in members]
        for member in fitted:
            fit_member(member, X[~test], y[~test], None if group is None else group[~test])
        own = self._logs(fitted, X[test])
        truth = np.searchsorted(self.classes_, y[test])
        classes = np.unique(truth)
        scores = []
        for weights in options.values():
            called = np.tensordot(own, weights, (1, 0)).argmax(1)
            scores.append(float(np.mean([(called[truth == code] == code).mean() for code in classes])))
        return scores

    def _choose(self, options: dict[str, np.ndarray], recall: np.ndarray) -> tuple[str, str]:
        names = list(options)
        mean = recall.mean(0)
        self.scores_ = dict(zip(names, mean.tolist(), strict=True))
        best = int(mean.argmax())
        # The error of the difference, since both are measured on the same groups.
        apart = recall[:, best] - recall[:, 0]
        error = float(apart.std(ddof=1) / np.sqrt(len(apart)))
        told = ", ".join(f"{name} {100 * score:.1f}" for name, score in self.scores_.items())
        told = f"balanced recall on {len(recall)} parts of the training groups left out: {told} %"
        if best and apart.mean() <= error:
            return PLAIN, f"{told}; {names[best]} is within one standard error of plain"
        return names[best], told

    def _logs(self, members: Sequence[Member], X: np.ndarray) -> np.ndarray:
        """Return log-probabilities of each member, float64 (N, members, C)."""
        out = np.full((len(X), len(members), len(self.classes_)), self.floor)
        for number, member in enumerate(members):
            own = np.searchsorted(self.classes_, member.model.classes_)
            out[:, number, own] = member.model.predict_proba(rows_of(X, member.views))
        return np.log(np.clip(out, self.floor, 1))

    def compact(self) -> tuple[tuple[int, ...], RecipeChoice]:
        """Return the positions of the views that the choice uses, and the classifier for these views alone."""
        check_is_fitted(self)
        used = tuple(sorted({view for member in self.members_ for view in member.views}))
        own: Any = RecipeChoice(tuple(self.roles[view] for view in used) if self.roles else (), floor=self.floor)
        own.__dict__ |= {name: value for name, value in vars(self).items() if name.endswith("_")}
        own.members_ = [
            Member(member.recipe, tuple(used.index(view) for view in member.views), member.model)
            for member in self.members_
        ]
        own.n_features_in_ = len(used)
        return used, own

    def view_proba(self, X: Any, center: Any = None) -> np.ndarray:
        """Return the class probabilities of each member, float64 (N, members, C)."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False)
        X = _by_view(checked)
        return np.stack([member.model.predict_proba(rows_of(X, member.views)) for member in self.members_], 1)

    def predict_proba(self, X: Any, center: Any = None) -> np.ndarray:
        """Return class probabilities of X (N, views, D), float64 (N, C)."""
        own = self.view_proba(X)
        if own.shape[1] == 1:
            return own[:, 0].astype(np.float64)
        pooled = np.exp(np.tensordot(np.log(np.clip(own, self.floor, 1)), self.weights_, (1, 0)))
        return pooled / pooled.sum(1, keepdims=True)

    def predict(self, X: Any, center: Any = None) -> np.ndarray:
        """Return the most probable label of each row of X (N, views, D)."""
        return self.classes_[self.predict_proba(X).argmax(1)]


def _by_view(X: np.ndarray) -> np.ndarray:
    return X[:, None] if X.ndim == 2 else X
