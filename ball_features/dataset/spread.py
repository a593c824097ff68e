"""Rows chosen evenly over a collection, or over its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ball_features.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["spread_classes", "spread_rows"]


def spread_rows(count: int, most: int) -> np.ndarray:
    """Choose at most `most` of `count` rows, evenly spread: int, increasing."""
    import numpy as np

    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def spread_classes(label: Sequence[str], limit: int) -> list[int]:
    """Choose `limit` rows, shared out by class size with at least one each, evenly spaced within a class.

    Args:
        label: class of each row.
        limit: number of rows to choose.

    Returns:
        Row numbers, increasing.

    Raises:
        DataError: There are more classes than rows to choose.
    """
    classes = sorted(set(label))
    if limit < len(classes):
        raise DataError(f"Got a limit of {limit} images for {len(classes)} classes, expected at least one a class.")
    if limit >= len(label):
        return list(range(len(label)))
    count = Counter(label)
    share = {name: max(1, limit * count[name] // len(label)) for name in classes}
    while sum(share.values()) != limit:
        step = 1 if sum(share.values()) < limit else -1
        # The class that is furthest from its exact share gives or takes one.
        movable = [name for name in classes if 1 <= share[name] + step <= count[name]]
        chosen = max(movable, key=lambda name: step * (limit * count[name] / len(label) - share[name]))
        share[chosen] += step
    kept = []
    for name in classes:
        own = [row for row, other in enumerate(label) if other == name]
        kept += [own[(2 * place + 1) * len(own) // (2 * share[name])] for place in range(share[name])]
    return sorted(kept)
