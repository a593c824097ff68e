"""Parts of the model `robust`: its candidates, their models, and the training groups that choose among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ball_features.models.base import ViewRole

__all__ = ["CELLS", "PLAIN", "Member", "candidates", "find_members", "fit_member", "fresh", "group_folds", "rows_of"]

PLAIN, FIELDS, CELLS, ALL = "plain", "fields", "cells", "all"
_STRENGTHS = {"views-0.1": 0.1, "views-1": 1.0}  # weaker penalties than plain's: an average regularises as well
_MAX_FOLDS = 6  # more groups are left out several at a time
_KEEP_CLASS = 20  # training images that a class must keep when groups are left out


@dataclass(frozen=True, eq=False)
class Member:
    """One model of the ensemble.

    Attributes:
        recipe: recipe that it belongs to.
        views: positions of the views whose embeddings it sees, one behind the other.
        model: estimator.
    """

    recipe: str
    views: tuple[int, ...]
    model: Any


def find_members(roles: Sequence[ViewRole], views: Sequence[int]) -> list[Member]:
    """The models of all candidates, unfitted, plain first.

    Args:
        roles: role of each view.
        views: positions of the views that differ between images.
    """
    plain = [view for view in views if roles[view].recipe == PLAIN][:1] or [0]
    fields = [view for view in views if roles[view].recipe == FIELDS]
    members = [Member(PLAIN, tuple(plain), _logistic(0.01))]
    members += [Member(FIELDS, (view,), _field_model(roles[view].whole_field)) for view in fields]
    pictures: dict[str, list[int]] = {}
    for view in views:
        if roles[view].recipe == CELLS:
            pictures.setdefault(roles[view].pixels, []).append(view)
    members += [Member(CELLS, tuple(own), _cell_model()) for own in pictures.values()]
    if fields:
        for name, strength in _STRENGTHS.items():
            members += [Member(name, (view,), _logistic(strength)) for view in plain + fields]
    return members


def candidates(members: Sequence[Member]) -> dict[str, np.ndarray]:
    """Weights of the members in each candidate, plain first; recipes of `all` count the same."""
    recipe = np.array([member.recipe for member in members])
    own = {name: (recipe == name) / (recipe == name).sum() for name in (PLAIN, FIELDS, CELLS) if (recipe == name).any()}
    if len(own) > 1:
        own[ALL] = np.mean(list(own.values()), axis=0)
    return own | {name: (recipe == name) / (recipe == name).sum() for name in _STRENGTHS if (recipe == name).any()}


def group_folds(y: np.ndarray, group: np.ndarray) -> Iterator[np.ndarray]:
    """Yield test images, bool (N,): each group in turn that leaves enough of every class, or several at a time."""
    names, images = np.unique(group, return_counts=True)
    if len(names) > _MAX_FOLDS:
        # Greatest first, each to the smallest part, as scikit-learn's GroupKFold; single-class groups are spread.
        order = np.argsort(-images, kind="stable")
        part = np.zeros(_MAX_FOLDS)
        fold_of: dict[Any, int] = {}
        for number in order:
            fold_of[names[number]] = int(part.argmin())
            part[fold_of[names[number]]] += images[number]
        fold = np.array([fold_of[name] for name in group])
    else:
        fold = np.searchsorted(names, group)
    classes = np.unique(y)
    for number in range(int(fold.max()) + 1):
        test = fold == number
        if all(((y == name) & ~test).sum() >= min(_KEEP_CLASS, (y == name).sum() // 2 + 1) for name in classes):
            yield test


def _logistic(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200, tol=1e-3))


def _field_model(whole_field: bool) -> Any:
    from ball_features.models.robust import GroupRobustDiscriminant, GroupRobustLogistic

    return GroupRobustLogistic(directions=(3,), balance=(True,)) if whole_field else GroupRobustDiscriminant()


def _cell_model() -> Any:
    from ball_features.models.discriminant import BalancedDiscriminant

    return BalancedDiscriminant()


def fresh(member: Member) -> Member:
    """The same member, unfitted."""
    from sklearn.base import clone

    return Member(member.recipe, member.views, clone(member.model))


def fit_member(member: Member, X: np.ndarray, y: np.ndarray, group: np.ndarray | None) -> None:
    """Fit a member on X (N, views, D)."""
    rows = rows_of(X, member.views)
    if member.recipe in (FIELDS, CELLS):
        member.model.fit(rows, y, groups=group)
    else:
        member.model.fit(rows, y)


def rows_of(X: np.ndarray, views: tuple[int, ...]) -> np.ndarray:
    """Embeddings of these views, one behind the other, (N, views * D)."""
    return X[:, list(views)].reshape(len(X), -1)
