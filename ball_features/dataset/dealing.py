"""Units dealt out to the parts of a split, so that each part gets its share of every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["deal", "train_every_class"]


def deal(
    units: np.ndarray, codes: np.ndarray, shares: Sequence[float], path: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Deal out units at random, large ones first, each to the part that lacks its classes most.

    Args:
        units: int (images,), numbers of the units.
        codes: int (images,), numbers of the classes.
        shares: share of each part; they add up to 1.
        path: str (images,), ids, which make the result independent of the order of rows.
        rng: source of randomness.

    Returns:
        int (images,), number of the part of each image.
    """
    _, units = np.unique(units, return_inverse=True)
    counts = np.zeros((units.max() + 1, codes.max() + 1))  # (units, classes)
    np.add.at(counts, (units, codes), 1)
    target = np.outer(shares, counts.sum(0))  # (parts, classes)
    lacking = target.copy()
    first = np.full(len(counts), len(path))
    rank = np.argsort(np.argsort(path))
    np.minimum.at(first, units, rank)
    order = rng.permutation(np.argsort(first))
    # A tie goes to a random part; otherwise the first part would take every odd image.
    jitter = np.empty((len(counts), len(shares)))
    jitter[order] = rng.uniform(0, 1e-9, jitter.shape)
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    chosen = np.empty(len(counts), dtype=np.int64)
    scale = 1 / np.maximum(target, 1e-9)
    for unit in order:
        own = counts[unit]
        part = int(np.argmax((lacking * scale) @ own + jitter[unit]))
        chosen[unit] = part
        lacking[part] -= own
    return chosen[units]


def train_every_class(part: np.ndarray, units: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Let a class that went to validation as a whole, because it has a single unit, train instead.

    Args:
        part: part of each image: 0 trains, 1 validates, int (images,).
        units: int (images,), numbers of the units.
        codes: int (images,), numbers of the classes.

    Returns:
        int (images,), part of each image.
    """
    lost = np.setdiff1d(codes[part == 1], codes[part == 0])
    return np.where(np.isin(units, units[np.isin(codes, lost)]), 0, part)
