"""What colours a map of embeddings beside class and prediction: the columns that are known of the images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ball_features.cache import Cache, read_rows
from ball_features.config.paths import is_address
from ball_features.dataset.grouping import read_groups
from ball_features.errors import DataError

__all__ = ["known_columns", "plane", "unit_length"]

_FIRST = ("group", "patient", "site", "series", "batch", "overlay", "encoding")  # they colour the map before others
_MOST = 10


def known_columns(cache: Cache, groups: str | None, group: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Columns of the cache and of the groups file, if still there, that tell some images apart, not each from all.

    Args:
        cache: images.
        groups: path of the groups file, or None.
        group: path -> group, for a groups file that is gone.
    """
    found: dict[str, np.ndarray] = {}
    for column in _FIRST if groups and not is_address(groups) else ():  # a run's address, which nobody gave here
        try:
            found[column] = read_groups(str(groups), column, cache.path.tolist())
        except DataError:  # no such file any more, or no such column
            continue
    if groups and "group" not in found and set(cache.path.tolist()) <= group.keys():
        found["group"] = np.array([group[path] for path in cache.path.tolist()])
    own = cache.columns
    for column in [*(name for name in _FIRST if name in own), *(name for name in own if name not in _FIRST)]:
        if column not in found:
            found[column] = np.where(own[column] == "", "(empty)", own[column])
    most = {name: len(cache.path) - 1 if name in _FIRST else len(cache.path) // 2 for name in found}
    several = {name: values for name, values in found.items() if 1 < len(np.unique(values)) <= most[name]}
    return dict(list(several.items())[:_MOST])


def unit_length(cache: Cache, rows: np.ndarray) -> np.ndarray:
    """Embeddings of the plain view at unit length, float32 (rows, dim); rows: images, increasing, int (rows,)."""
    unit = read_rows(cache.embeddings, rows)[:, 0].astype(np.float32)
    return unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)


def plane(unit: np.ndarray) -> np.ndarray:
    """First two principal components, (images, dim) -> (images, 2)."""
    from sklearn.decomposition import PCA

    with np.errstate(invalid="ignore", divide="ignore"):  # embeddings that are all the same have no variance
        return PCA(2, svd_solver="randomized", random_state=0).fit_transform(unit)
