"""Trees out of files: scikit-learn follows the indices in their nodes without looking where they lead."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree._tree import Tree

__all__ = ["require_sound_trees"]


def require_sound_trees(model: Any) -> None:
    """Look for trees in all parts of a fitted model; those that scikit-learn makes have children behind their parents.

    Raises:
        ValueError: A tree leads out of itself, in circles, or to a column that rows need not have.
    """
    rest, seen = [model], {}  # the objects themselves, so that no other takes the place of one
    widths, trees = [], []
    while rest:
        item = rest.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, dict):
            rest += item.values()
        elif isinstance(item, list | tuple):
            rest += item
        elif isinstance(item, np.ndarray):
            rest += item.ravel().tolist() if item.dtype == object else []
        elif isinstance(item, Tree | TreePredictor):
            trees.append(item)
        elif hasattr(item, "__dict__"):
            rest += vars(item).values()
            if any(hasattr(item, name) for name in ("estimators_", "tree_", "_predictors")):
                widths.append(item.n_features_in_)  # what it asks of rows, if it has it
    if not all(_is_sound(tree, min(widths, default=0)) for tree in trees):
        raise ValueError("a tree in it leads nowhere")


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
