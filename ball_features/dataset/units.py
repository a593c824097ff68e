"""Units of a split: connected components of images that belong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["merge_units"]


def merge_units(*keys: Sequence[str] | np.ndarray) -> np.ndarray:
    """Number the connected components of images that share the value of any key.

    Args:
        keys: arrays (images,); images with an equal value in one of them belong together.

    Returns:
        int (images,), numbered in order of first appearance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(keys[0])
    sources, targets, offset = [], [], count
    for key in keys:
        _, code = np.unique(np.asarray(key), return_inverse=True)
        sources.append(np.arange(count))
        targets.append(code + offset)
        offset += int(code.max(initial=-1)) + 1
    edges = (np.ones(count * len(keys)), (np.concatenate(sources), np.concatenate(targets)))
    _, component = connected_components(coo_array(edges, shape=(offset, offset)), directed=False)
    _, first, code = np.unique(component[:count], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code]
