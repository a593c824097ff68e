"""What sets groups (slides, series) of one class apart, and weights that keep a large group from deciding alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["group_directions", "group_weights", "groups_to_leave_out"]

_LEAST_GROUP = 20  # images of a group whose mean is informative
_LEAST_CLASS = 50  # images that a class keeps when one of its groups is left out


def group_weights(y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return sample weights that give each class the same total, shared among its groups by the root of their size.

    Args:
        y: labels, (images,).
        group: group of each image, (images,).

    Returns:
        float64 (images,), mean 1.
    """
    weight = np.zeros(len(y))
    for name in np.unique(y):
        own = y == name
        _, code, count = np.unique(group[own], return_inverse=True, return_counts=True)
        share = 1 / np.sqrt(count[code])
        weight[own] = share / share.sum()
    return weight * len(y) / weight.sum()


def group_directions(X: np.ndarray, y: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Return the directions in which groups of one class differ most: they show the slide and not the disease.

    They are the principal components of the means of groups, each minus the mean of its class's groups (nuisance
    attribute projection, Solomonoff et al. 2005, with groups as channels).

    Args:
        X: embeddings, float (images, columns).
        y: labels, (images,).
        group: group of each image, (images,).
        count: number of directions wanted; fewer are returned if there are fewer groups.

    Returns:
        Orthonormal rows, float (directions, columns).

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"Got {count} directions to remove, expected at least 0.")
    apart = []
    for name in np.unique(y):
        own = y == name
        means = [
            X[own & (group == item)].mean(0)
            for item in np.unique(group[own])
            if (own & (group == item)).sum() >= _LEAST_GROUP
        ]
        if len(means) > 1:
            apart += [mean - np.mean(means, 0) for mean in means]
    if not apart or not count:
        return np.zeros((0, X.shape[1]), dtype=X.dtype)
    _, length, rows = np.linalg.svd(np.array(apart), full_matrices=False)
    return rows[: min(count, int((length > 1e-6 * length[0]).sum()))].astype(X.dtype)


def groups_to_leave_out(y: np.ndarray, group: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a mask, bool (images,), of each group that can be left out while every class in it keeps enough images."""
    for name in np.unique(group):
        test = group == name
        if test.sum() >= _LEAST_GROUP and all(
            (y[~test] == label).sum() >= _LEAST_CLASS for label in np.unique(y[test])
        ):
            yield test
