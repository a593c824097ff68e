"""Checks of boosters in XGBoost's JSON: XGBoost follows the indices in it without checking, and writes by some."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.files import read_whole

__all__ = ["require_sound_booster"]

_MOST_BYTES = 1 << 28
_MOST_COLUMNS = 1 << 20
_OBJECTIVES = {"binary:logistic": "reg_loss_param", "multi:softprob": "softmax_multiclass_param"}
_LISTS = {  # of a tree, one value for each node -> its type
    **dict.fromkeys(("left_children", "right_children", "parents", "split_indices", "split_type", "default_left"), int),
    **dict.fromkeys(("base_weights", "loss_changes", "split_conditions", "sum_hessian"), float),
}
_EMPTY = ("categories", "categories_nodes", "categories_segments", "categories_sizes")  # embeddings have none


def require_sound_booster(path: Path, classes: int) -> None:
    """Check that a file holds trees on numbers, for so many classes, whose indices lie within them.

    Raises:
        OSError: The file cannot be read.
        KeyError, TypeError, ValueError: It holds anything else.
    """
    text = read_whole(path, _MOST_BYTES).decode()
    try:
        learner = json.loads(text, object_pairs_hook=_once, parse_int=_whole)["learner"]
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    boosted, settings = learner["gradient_booster"], learner["learner_model_param"]
    model, name = boosted["model"], learner["objective"]["name"]
    width = _number(settings["num_feature"], 1, _MOST_COLUMNS)
    groups = 1 if name == "binary:logistic" else classes
    _require(boosted["name"] == "gbtree" and name in _OBJECTIVES and set(learner["attributes"]) <= {"scikit_learn"})
    _require(not learner["feature_names"] and not learner["feature_types"] and (groups == 1) == (classes == 2))
    counts = [settings["num_class"], *(own["num_class"] for own in learner["objective"].values() if "num_class" in own)]
    _require(all(_number(own, 0, classes) in ((0, 1) if groups == 1 else (classes,)) for own in counts))
    _number(settings["num_target"], 1, 1)
    trees, group = model["trees"], _integers(model["tree_info"], len(model["trees"]))
    ends = _integers(model["iteration_indptr"], len(model["iteration_indptr"]))
    _number(model["gbtree_model_param"]["num_trees"], len(trees), len(trees))
    _number(model["gbtree_model_param"]["num_parallel_tree"], 1, 1)
    _require(len(trees) > 0 and ends.size > 0 and ends[0] == 0 and ends[-1] == len(trees))
    _require(bool((np.diff(ends) == groups).all()) and bool(((group >= 0) & (group < groups)).all()))
    _require(not any(map(len, model.get("cats", {}).values())))
    for tree in trees:
        _require_sound_tree(tree, width)


def _require_sound_tree(tree: Mapping[str, Any], width: int) -> None:
    count, settings = len(tree["left_children"]), tree["tree_param"]
    _require(count > 0 and not any(len(tree[name]) for name in _EMPTY))
    _number(settings["num_nodes"], count, count)
    _number(settings["num_feature"], width, width)
    _number(settings["num_deleted"], 0, count - 1)
    _number(settings["size_leaf_vector"], 0, 1)
    own = {name: (_integers if kind is int else _floats)(tree[name], count) for name, kind in _LISTS.items()}
    left, right, column = own["left_children"], own["right_children"], own["split_indices"]
    inner = left != -1
    children = np.concatenate([left[inner], right[inner]])
    _require(bool((inner == (right != -1)).all()) and bool(((children > 0) & (children < count)).all()))
    _require(len(np.unique(children)) == len(children))  # each has one parent, and the root none: no way leads back
    _require(bool(((column >= 0) & (column < width)).all()) and not own["split_type"].any())
    _require(bool(np.isin(own["default_left"], (0, 1)).all()))


def _require(sound: bool) -> None:
    if not sound:
        raise ValueError("the booster in it has indices or sizes out of range")


def _once(pairs: list[tuple[str, Any]]) -> Any:
    """A mapping none of whose keys is given twice: another reader may take the other value."""
    found = dict(pairs)
    _require(len(found) == len(pairs))
    return found


def _whole(text: str) -> int:
    _require(len(text) < 20)
    return int(text)


def _number(text: Any, least: int, most: int) -> int:
    _require(isinstance(text, str) and re.fullmatch("[0-9]{1,9}", text) is not None)
    _require(least <= int(text) <= most)
    return int(text)


def _integers(values: Any, count: int) -> np.ndarray:
    _require(isinstance(values, list) and len(values) == count and all(type(own) is int for own in values))
    return np.array(values, dtype=np.int64)


def _floats(values: Any, count: int) -> np.ndarray:
    _require(isinstance(values, list) and len(values) == count and {type(own) for own in values} <= {int, float})
    found = np.array(values, dtype=np.float64)
    _require(bool(np.isfinite(found).all()))
    return found
