"""Distance to the nearest training images in units of the distance between these and their own neighbours.

Where the training images come from several sites, images of one lie close together and those of another far apart, so
that one threshold for a plain distance is too wide for the first. The ratio is that of the local outlier factor
(Breunig et al. 2000, doi 10.1145/342009.335388) in its simplified form (Schubert et al. 2014,
doi 10.1007/s10618-012-0300-z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.bundles.class_gaussians import at_scale

__all__ = ["Neighbourhood", "fit_neighbourhood"]

_NEIGHBOURS = 40  # more than the copies of one photograph that a collection may hold
_LEAST_PER_NEIGHBOUR = 5  # training images for each neighbour, so that few images have few
_ROWS = 5000  # training images that are kept; more change it little
_BLOCK = 1000  # images compared at once
_LEAST_SPACING = 0.1  # of the median, so that copies do not make all else unusual
_ROUND = 1e-5  # distance that rounding to 16 bits can make


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Training images in the first view of a bundle, the plain one, and how far apart they lie.

    Attributes:
        train: their embeddings at unit length, or divided by `length`, float16 (train, dim).
        spacing: mean distance of each to its nearest others, float32 (train,): half the squared Euclidean one, which is
            the cosine distance at unit length.
        length: what embeddings are divided by, float32 (1,); None where each is taken at unit length.
    """

    train: np.ndarray
    spacing: np.ndarray
    length: np.ndarray | None = None

    def score(self, X: np.ndarray) -> np.ndarray:
        """Mean distance to the nearest training images over their mean spacing, float64 (images,).

        Args:
            X: embeddings, float (images, views, dim); the first view counts.
        """
        length = None if self.length is None else self.length[0]
        own, train = at_scale(X[:, 0], length), self.train.astype(np.float32)
        distance, rows = _nearest(own, train, _count(len(train)), same=False, unit=length is None)
        return distance / self.spacing[rows].mean(1, dtype=np.float64)


def fit_neighbourhood(X: np.ndarray, length: np.ndarray | None = None) -> Neighbourhood:
    """Keep training images and measure the distances between them.

    Args:
        X: embeddings of training images, float (images, views, dim).
        length: what embeddings of each view are divided by, float (views,); None where each is taken at unit length.
    """
    rows = np.arange(len(X)) if len(X) <= _ROWS else np.sort(np.random.default_rng(0).permutation(len(X))[:_ROWS])
    length = None if length is None else length[:1].astype(np.float32)
    train = at_scale(X[rows, 0], None if length is None else length[0]).astype(np.float16)
    known = train.astype(np.float32)
    spacing = np.ones(1)
    if len(rows) > 1:
        spacing = _nearest(known, known, _count(len(rows)), same=True, unit=length is None)[0]
    least = max(_LEAST_SPACING * float(np.median(spacing)), _ROUND)
    return Neighbourhood(train, np.maximum(spacing, least).astype(np.float32), length)


def _count(images: int) -> int:
    return min(_NEIGHBOURS, max(1, images // _LEAST_PER_NEIGHBOUR))


def _nearest(
    new: np.ndarray, train: np.ndarray, count: int, *, same: bool, unit: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance to the nearest rows of `train`, float64 (images,), and these rows, (images, count).

    Args:
        new: embeddings, float32 (images, dim).
        train: the same of training images.
        count: number of neighbours.
        same: both are the same images, and none is its own neighbour.
        unit: all are at unit length.
    """
    distance, rows = np.empty(len(new)), np.empty((len(new), count), dtype=np.int64)
    level, half = (np.ones(len(new)), None) if unit else (_half(new), _half(train))
    for start in range(0, len(new), _BLOCK):
        near = new[start : start + _BLOCK] @ train.T
        own = np.arange(start, start + len(near))
        if half is not None:
            near -= half.astype(np.float32)
        if same:
            near[np.arange(len(near)), own] = -np.inf
        rows[own] = np.argpartition(-near, count - 1, 1)[:, :count]
        distance[own] = level[own] - np.take_along_axis(near, rows[own], 1).mean(1, dtype=np.float64)
    return np.maximum(distance, 0), rows


def _half(X: np.ndarray) -> np.ndarray:
    """Half the squared length of each row, float64 (rows,)."""
    return (X.astype(np.float64) ** 2).sum(1) / 2
