"""Rows of the tables of a run that say what holds elsewhere: sites, and distance to the training images."""

from __future__ import annotations

from dataclasses import dataclass

from ball_features.evaluation.rows import Row
from ball_features.evaluation.site_measures import ViewMeasures

__all__ = ["DistanceRow", "SiteRow"]


@dataclass(frozen=True)
class SiteRow(ViewMeasures, Row):
    """What a view tells of the site.

    Attributes:
        chance_index: robustness index of embeddings that tell neither class nor site.
        chance_accuracy: balanced accuracy of guessing the site.
        images: number of images measured.
        sites: number of sites.
    """

    chance_index: float
    chance_accuracy: float
    images: int
    sites: int


@dataclass(frozen=True)
class DistanceRow(Row):
    """A model on images of one range of distance to the training images.

    Attributes:
        model: name of the model.
        low: smallest distance: mean cosine distance to the nearest training images, plain view.
        high: largest distance.
        images: number of predictions.
        accuracy: share of correct predictions.
        accuracy_low: lower end of its 95 % interval.
        accuracy_high: upper end.
        confidence: mean probability of the predicted class.
    """

    model: str
    low: float
    high: float
    images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    confidence: float
