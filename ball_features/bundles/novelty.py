"""The flag for unusual images: scores that grow with the distance to the training images, and their thresholds.

For each view, the plain one among them, the Mahalanobis distance of the embedding at unit length to the nearest class
mean (Lee et al. 2018, arXiv 1807.03888), with one covariance for all classes: its largest directions as they are, the
rest as one variance (Moghaddam and Pentland 1997, doi 10.1109/34.598227). The same for the histogram of the image's
colours, which sees what a deep view looks past: the stain, the ground, a picture that is no smear. Beside them stands
the distance to the nearest training images in the plain view, in units of the distances between these
(`bundles.neighbourhood`), which holds where sites are pooled. `benchmarks/unusual.py` compares these with others.

Logarithms of the scores are brought to one scale by calibration images and joined by a norm between the sum and the
maximum: a score in which the image is ordinary does not hide another in which it is not, and scores in all of which it
is somewhat odd add up. The model's views, which say much the same, count as one, by the largest. Each predicted class
has a threshold of its own. Where calibration images are many, a score beyond all of theirs is enough.

A site-adapted model is measured on embeddings less the offset of their site, at one scale and not at unit length. For
a site that it is adapted to, and that is not far from those of training, thresholds come from training sites that the
measures have not seen (`bundles.left_out_sites`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.bundles.class_gaussians import ClassGaussians, colour_shares, fit_colours, fit_gaussians
from ball_features.bundles.neighbourhood import Neighbourhood, fit_neighbourhood
from ball_features.bundles.score_scale import Scale

__all__ = ["Measures", "Novelty", "fit_measures"]

_LEAST_DISTANCE = 1.0  # squared Mahalanobis distance: one direction's share of what is expected


@dataclass(frozen=True, eq=False)
class Measures:
    """What measures how far images lie from training images.

    Attributes:
        gaussians: Gaussians of the classes, of every view of the bundle.
        colours: Gaussians of the classes in histograms of colours; None where the training images have none, or where
            the model is adapted to sites, which differ in colour.
        near: training images and their spacing; None in bundles of earlier versions, where the last score is the
            distance to the nearest training images in the mean of the model's views.
    """

    gaussians: ClassGaussians
    colours: ClassGaussians | None = None
    near: Neighbourhood | None = None

    @property
    def groups(self) -> np.ndarray:
        """Groups of the scores, int64 (scores,): the plain view, the other views, the colours, the neighbours."""
        others = len(self.gaussians.mean) - 1
        return np.array([0, *[1] * others, *([] if self.colours is None else [2]), 3], dtype=np.int64)

    def score(
        self, X: np.ndarray, histogram: np.ndarray | None = None, distance: np.ndarray | None = None
    ) -> np.ndarray:
        """Scores of each image: of each view, of the colours where there are Gaussians of them, of the neighbours.

        Args:
            X: embeddings of all views of the bundle, float (images, views, dim).
            histogram: share of the pixels in each bin of colour, float (images, bins); None where it is not known.
            distance: distance to the nearest training images, float (images,), in place of `near`.

        Returns:
            Scores, float64 (images, scores); NaN where one is not known.
        """
        found = [np.maximum(self.gaussians.score(X), _LEAST_DISTANCE)]
        if self.colours is not None and histogram is not None:
            found.append(np.maximum(self.colours.score(colour_shares(histogram)), _LEAST_DISTANCE))
        elif self.colours is not None:
            found.append(np.full((len(X), 1), np.nan))
        last = distance if self.near is None else self.near.score(X)
        return np.column_stack([*found, *([] if last is None else [last])])


def fit_measures(
    X: np.ndarray, codes: np.ndarray, histogram: np.ndarray | None = None, length: np.ndarray | None = None
) -> Measures:
    """Fit the measures to training images; arguments as `fit_gaussians` and `colour_shares`."""
    colours = None if histogram is None else fit_colours(histogram, codes)
    return Measures(fit_gaussians(X, codes, length=length), colours, fit_neighbourhood(X, length))


@dataclass(frozen=True, eq=False)
class Novelty:
    """What flags unusual images.

    Attributes:
        measures: what gives the scores.
        scale: scale of these scores.
        elsewhere: scale for sites that a model is adapted to, by training sites that were left out; None where all
            sites have one.
    """

    measures: Measures
    scale: Scale
    elsewhere: Scale | None = None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays by name, for a file."""
        own = self.measures
        parts = {"gaussian": own.gaussians, "colour": own.colours, "near": own.near, "scale": self.scale}
        parts |= {"elsewhere": self.elsewhere}
        return {
            f"{start}_{name}": value
            for start, part in parts.items()
            for name, value in ({} if part is None else vars(part)).items()
            if value is not None
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Novelty | None:
        """Read what `to_arrays` gave; None where a bundle of an earlier version has none of it."""
        views, colours, near, scale, elsewhere = (
            {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
            for start in ("gaussian_", "colour_", "near_", "scale_", "elsewhere_")
        )
        if not views or not scale:
            return None
        measures = Measures(
            ClassGaussians(**views),
            ClassGaussians(**colours) if colours else None,
            Neighbourhood(**near) if near else None,
        )
        return cls(measures, Scale(**scale), Scale(**elsewhere) if elsewhere else None)
