"""Models out of files: scikit-learn follows the indices in trees and support vector machines wherever they lead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.svm import SVC
from sklearn.tree._tree import Tree

__all__ = ["require_sound"]


def require_sound(model: Any) -> None:
    """Look for trees and machines in all parts of a fitted model, and hold their indices against their arrays.

    Trees that scikit-learn makes have children behind their parents.

    Raises:
        AttributeError, ValueError: A part would be followed out of its memory, or in circles, or to a column that
            rows need not have.
    """
    widths, trees = [], []
    for part in _parts(model):
        if isinstance(part, Tree | TreePredictor):
            trees.append(part)
        elif isinstance(part, SVC):
            if hasattr(part, "support_"):  # not the pattern it was cloned from
                _require_sound_machine(part)
        elif any(hasattr(part, name) for name in ("estimators_", "tree_", "_predictors")):
            widths.append(part.n_features_in_)  # what it asks of rows, if it has it
            if getattr(part, "_preprocessor", None) is not None:  # then it asks nothing
                raise ValueError("boosted trees in it have a part that no fit on numbers makes")
    if not all(_is_sound(tree, min(widths, default=0)) for tree in trees):
        raise ValueError("a tree in it leads nowhere")


def _parts(model: Any) -> Iterator[Any]:
    """The model and whatever it holds, each once."""
    rest, seen = [model], {}  # the objects themselves, so that no other takes the place of one
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
        if nodes["is_categorical"].any():  # of categories in a further table; embeddings have none
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
    """The arrays of a machine fitted on dense columns agree with each other; libsvm takes their sizes on trust."""
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
