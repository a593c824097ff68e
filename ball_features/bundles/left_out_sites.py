"""Scores of the flag for unusual images where a site is new, for the thresholds of a site-adapted model.

Images of a new site differ from those of training sites by more than their offset. What is usual of a new site is known
from training sites that are left out in turn: images of each are scored by measures of the other sites' images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ball_features.bundles.novelty import Measures, fit_measures

__all__ = ["LabelledEmbeddings", "score_left_out", "score_within"]

_FOLDS = 5
_LEAST_IMAGES = 20  # of the other sites


@dataclass(frozen=True, eq=False)
class LabelledEmbeddings:
    """Embeddings of images whose classes are known.

    Attributes:
        X: embeddings of the tested views, float (images, views, dim).
        truth: class numbers, int (images,).
        unit: unit of each image, int (images,): images that an interval draws together; None where each is its own.
        histogram: share of the pixels in each bin of colour, float (images, bins); None where it is not known.
        site: site of each image, str (images,), for a site-adapted model; then `X` is less the offset of the site.
        length: mean length of the embeddings of each view before that, float32 (views,); None without sites.
    """

    X: np.ndarray = field(default_factory=lambda: np.empty((0, 1, 0)))
    truth: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    unit: np.ndarray | None = None
    histogram: np.ndarray | None = None
    site: np.ndarray | None = None
    length: np.ndarray | None = None

    def measures(self, rows: np.ndarray | None = None) -> Measures:
        """Measures of how far images lie from these, or from those in `rows`, bool (images,)."""
        X, truth, histogram = (
            part if part is None or rows is None else part[rows] for part in (self.X, self.truth, self.histogram)
        )
        assert X is not None and truth is not None
        return fit_measures(X, truth, histogram, self.length)


def score_left_out(train: LabelledEmbeddings, held: LabelledEmbeddings) -> np.ndarray | None:
    """Scores of held-out images by the training images of other sites, float64 (images, scores).

    Args:
        train: training images of a site-adapted model.
        held: images that the model was not fitted on.

    Returns:
        The scores; None where the model is not adapted, or too few images would be left without a site.
    """
    if train.site is None or held.site is None:
        return None
    names, counts = np.unique(train.site, return_counts=True)
    if len(names) < 2 or len(train.X) - counts.max() < _LEAST_IMAGES:
        return None
    # The largest sites first, so that folds are about equal; images of other sites are new to every fold.
    fold_of = {str(names[row]): place % _FOLDS for place, row in enumerate(np.argsort(-counts, kind="stable"))}
    own, new = (np.array([fold_of.get(str(name), 0) for name in part]) for part in (train.site, held.site))
    return _score(train, own, held, new)


def score_within(
    train: LabelledEmbeddings, held: LabelledEmbeddings, units: tuple[np.ndarray, np.ndarray], seed: int
) -> np.ndarray:
    """Scores of held-out images by training images that leave out units, not sites, float64 (images, scores).

    Args:
        train: training images.
        held: images to score, among them training images.
        units: units of the training images and of the others, int (images,): images that belong together.
        seed: seed of the folds.
    """
    names = np.unique(np.concatenate(units))
    fold = np.random.default_rng(seed).permutation(len(names)) % _FOLDS
    own, new = (fold[np.searchsorted(names, part)] for part in units)
    return _score(train, own, held, new)


def _score(train: LabelledEmbeddings, own: np.ndarray, held: LabelledEmbeddings, new: np.ndarray) -> np.ndarray:
    """Scores of held-out images of each fold by training images of the others; fold numbers are int (images,)."""
    found = np.empty((0, 0))
    for fold in np.unique(new).tolist():
        rest, part = train.measures(own != fold), new == fold
        scores = rest.score(held.X[part], None if held.histogram is None else held.histogram[part])
        found = found if found.size else np.empty((len(held.X), scores.shape[1]))
        found[part] = scores
    return found
