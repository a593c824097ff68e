"""Distance to the nearest training images in units of the distance between these and their own neighbours.

Where the training images come from several sites, images of one lie close together and those of another far apart, so
that one threshold for a plain distance is too wide for the first. The ratio is that of the local outlier factor
(Breunig et al. 2000, doi 10.1145/342009.335388) in its simplified form (Schubert et al. 2014,
doi 10.1007/s10618-012-0300-z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.bundles.class_gaussians import to_unit

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
        train: their embeddings at unit length, float16 (train, dim).
        spacing: mean cosine distance of each to its nearest others, float32 (train,).
    """

    train: np.ndarray
    spacing: np.ndarray

    def score(self, X: np.ndarray) -> np.ndarray:
        """Mean distance to the nearest training images over their mean spacing, float64 (images,).

        Args:
            X: embeddings, float (images, views, dim); the first view counts.
        """
        distance, rows = _nearest(to_unit(X[:, 0]), self.train.astype(np.float32), _count(len(self.train)), False)
        return distance / self.spacing[rows].mean(1, dtype=np.float64)


def fit_neighbourhood(X: np.ndarray) -> Neighbourhood:
    """Keep training images and measure the distances between them.

    Args:
        X: embeddings of training images, float (images, views, dim).
    """
    rows = np.arange(len(X)) if len(X) <= _ROWS else np.sort(np.random.default_rng(0).permutation(len(X))[:_ROWS])
    train = to_unit(X[rows, 0]).astype(np.float16)
    known = train.astype(np.float32)
    spacing = np.ones(1) if len(rows) == 1 else _nearest(known, known, _count(len(rows)), True)[0]
    least = max(_LEAST_SPACING * float(np.median(spacing)), _ROUND)
    return Neighbourhood(train, np.maximum(spacing, least).astype(np.float32))


def _count(images: int) -> int:
    return min(_NEIGHBOURS, max(1, images // _LEAST_PER_NEIGHBOUR))


def _nearest(unit: np.ndarray, train: np.ndarray, count: int, same: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine distance to the nearest rows of `train`, float64 (images,), and these rows, (images, count).

    Args:
        unit: embeddings at unit length, float32 (images, dim).
        train: the same of training images.
        count: number of neighbours.
        same: both are the same images, and none is its own neighbour.
    """
    distance, rows = np.empty(len(unit)), np.empty((len(unit), count), dtype=np.int64)
    for start in range(0, len(unit), _BLOCK):
        cosine = unit[start : start + _BLOCK] @ train.T
        own = np.arange(start, start + len(cosine))
        if same:
            cosine[np.arange(len(cosine)), own] = -np.inf
        rows[own] = np.argpartition(-cosine, count - 1, 1)[:, :count]
        distance[own] = 1 - np.take_along_axis(cosine, rows[own], 1).mean(1, dtype=np.float64)
    return np.maximum(distance, 0), rows
