"""Checks of trees and support vector machines read from files: scikit-learn follows their indices without checking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.svm import SVC
from sklearn.tree._tree import Tree

__all__ = ["require_sound"]


def require_sound(model: Any) -> None:
    """Check the indices of all trees and support vector machines in a fitted model against their arrays.

    In trees that scikit-learn makes, children come after their parents.

    Raises:
        AttributeError, ValueError: A node index is out of range or cyclic, or names a feature that the input lacks, or
            the arrays of a machine do not agree.
    """
    widths, trees = [], []
    for part in _parts(model):
        if isinstance(part, Tree | TreePredictor):
            trees.append(part)
        elif isinstance(part, SVC):
            if hasattr(part, "support_"):  # a fitted one, not the pattern it was cloned from
                _require_sound_machine(part)
        elif any(hasattr(part, name) for name in ("estimators_", "tree_", "_predictors")):
            widths.append(part.n_features_in_)  # the columns it requires of rows
            if getattr(part, "_preprocessor", None) is not None:  # then it requires nothing
                raise ValueError("boosted trees in it have a preprocessor, which no fit on numbers makes")
    if not all(_is_sound(tree, min(widths, default=0)) for tree in trees):
        raise ValueError("a tree in it has a node index or feature out of range")


def _parts(model: Any) -> Iterator[Any]:
    """Yield the model and everything it holds, each once."""
    rest, seen = [model], {}  # holds the objects, so that no id is used twice
    while rest:
        item = rest.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        yield item
        if isinstance(item, dict):
            rest += item.values()
        elif isinstance(item, list | tuple):
            rest += item
        elif isinstance(item, np.ndarray):
            rest += item.ravel().tolist() if item.dtype == object else []
        elif hasattr(item, "__dict__"):
            rest += vars(item).values()


def _is_sound(tree: Any, width: int) -> bool:
    if isinstance(tree, TreePredictor):
        nodes = tree.nodes
        left, right, column, leaf = (nodes[name] for name in ("left", "right", "feature_idx", "is_leaf"))
        inner = leaf == 0
        if nodes["is_categorical"].any():  # categories lie in a further table; embeddings have none
            return False
    else:
        left, right, column = tree.children_left, tree.children_right, tree.feature
        inner = left != -1
    place, count = np.flatnonzero(inner), len(inner)
    children = np.stack([left, right])[:, inner].astype(np.int64)
    columns = column[inner]
    return bool(
        count and (place < children).all() and (children < count).all() and (0 <= columns).all()
        and (columns < width).all()
    )  # fmt: skip


def _require_sound_machine(svc: Any) -> None:
    """Check that the arrays of a machine fitted on dense columns agree, since libsvm does not check their sizes."""
    classes, vectors, each = len(svc.classes_), len(svc.support_), svc._n_support
    sound = (
        svc.kernel in ("linear", "rbf")
        and svc._sparse is False
        and each.shape == (classes,)
        and bool((each >= 0).all())
        and int(each.sum(dtype=np.int64)) == vectors
        and svc.support_vectors_.shape == (vectors, svc.n_features_in_)
        and svc._dual_coef_.shape == svc.dual_coef_.shape == (classes - 1, vectors)
        and svc._intercept_.shape == svc.intercept_.shape == (classes * (classes - 1) // 2,)
        and len(svc._probA) == len(svc._probB) == 0
    )
    if not sound:
        raise ValueError("a support vector machine in it has arrays that do not agree")
