"""Doubt about given labels, from out-of-fold probabilities and neighbours.

Doubt is 1 less the mean probability of the given class (its self-confidence, Northcutt, Jiang and Chuang 2021,
"Confident learning: estimating uncertainty in dataset labels", doi 10.1613/jair.1.12125) over several models and the
vote of the nearest neighbours, which counts as one more model. `benchmarks/labels.md` compares it with cleanlab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["NEIGHBOURS", "Doubts", "doubts", "neighbour_votes", "thresholds"]

NEIGHBOURS = 10
_CONFIDENT = 0.8  # where models are surer on average, an image is counted to another class from here on
_CELLS = 20_000_000  # similarities that are held at once


@dataclass(frozen=True, eq=False)
class Doubts:
    """What models and neighbours think of the given labels.

    Attributes:
        probability: mean probability of each class, float64 (images, classes).
        doubt: 1 less the mean probability of the given class, float64 (images,), in [0, 1].
        suggested: class index with the highest mean probability among the others, int (images,).
        flagged: bool (images,); True where confident learning counts the image to another class.
        nearest: number of the most similar image that bears the suggested label, int (images,); -1 where none is among
            the neighbours.
    """

    probability: np.ndarray
    doubt: np.ndarray
    suggested: np.ndarray
    flagged: np.ndarray
    nearest: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Numbers of the images, the most doubtful first, int (images,)."""
        return np.argsort(-self.doubt, kind="stable")


def neighbour_votes(
    embeddings: np.ndarray, codes: np.ndarray, units: np.ndarray, classes: int, *, count: int = NEIGHBOURS
) -> tuple[np.ndarray, np.ndarray]:
    """Let the nearest images vote on the class of each, by the cosine of embeddings.

    Args:
        embeddings: float (images, columns).
        codes: given class of each image, int (images,).
        units: int (images,); images of one unit do not vote on each other: a copy repeats its own label.
        classes: number of classes.
        count: number of neighbours.

    Returns:
        Share of the neighbours of each class, float64 (images, classes), and the numbers of the neighbours, nearest
        first, int (images, count); -1 for a missing one.
    """
    images = len(codes)
    unit = np.asarray(embeddings, dtype=np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    count = min(count, images - 1)
    found = np.empty((images, count), dtype=np.int64)
    rows = max(1, _CELLS // images)
    for start in range(0, images, rows):
        block = slice(start, start + rows)
        similar = unit[block] @ unit.T
        similar[units[block][:, None] == units] = -np.inf
        near = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        value = np.take_along_axis(similar, near, 1)
        order = np.argsort(-value, axis=1, kind="stable")
        near, value = np.take_along_axis(near, order, 1), np.take_along_axis(value, order, 1)
        found[block] = np.where(np.isfinite(value), near, -1)
    known = found >= 0
    votes = np.zeros((images, classes))
    place = np.repeat(np.arange(images), count).reshape(images, count)
    np.add.at(votes, (place[known], codes[found[known]]), 1.0)
    total = known.sum(1, keepdims=True)
    return np.divide(votes, total, out=np.full_like(votes, 1 / classes), where=total > 0), found


def thresholds(probability: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Mean probability of each class among the images that bear its label, 0.8 at most, float64 (classes,)."""
    means = [probability[codes == code, code].mean() for code in range(probability.shape[1])]
    return np.minimum(means, _CONFIDENT)


def doubts(probabilities: Sequence[np.ndarray], votes: np.ndarray, neighbours: np.ndarray, codes: np.ndarray) -> Doubts:
    """Rank the given labels by doubt, and flag those that confident learning counts to another class.

    An image is counted to the most probable of the classes whose probability reaches that class's threshold, the mean
    among its own images (Northcutt et al. 2021, equation 1), but 0.8 at most: where nearly all labels are right, that
    mean is so high that no error would be counted. It is flagged if that class is not the given one.

    Args:
        probabilities: out-of-fold probabilities of each model, float (images, classes) each.
        votes: array from `neighbour_votes`.
        neighbours: numbers of the neighbours from `neighbour_votes`.
        codes: given class of each image, int (images,).
    """
    mean = np.mean([*probabilities, votes], axis=0)
    rows = np.arange(len(codes))
    others = mean.copy()
    others[rows, codes] = -1.0
    suggested = others.argmax(1)
    reached = np.where(mean >= thresholds(mean, codes) - 1e-12, mean, -1.0)
    counted = reached.argmax(1)
    flagged = (reached.max(1) >= 0) & (counted != codes)
    bears = (neighbours >= 0) & (codes[neighbours] == suggested[:, None])
    nearest = np.where(bears.any(1), neighbours[rows, bears.argmax(1)], -1)
    return Doubts(mean, 1 - mean[rows, codes], np.where(flagged, counted, suggested), flagged, nearest)
