"""The flag for unusual images: scores that grow with the distance to the training images, and their thresholds.

For each view, the plain one among them, the Mahalanobis distance of the embedding at unit length to the nearest class
mean (Lee et al. 2018, arXiv 1807.03888), with one covariance for all classes: its largest directions as they are, the
rest as one variance (Moghaddam and Pentland 1997, doi 10.1109/34.598227). The same for the histogram of the image's
colours, which sees what a deep view looks past: the stain, the ground, a picture that is no smear. Beside them stands
the distance to the nearest training images in the mean of the model's views (Sun et al. 2022, arXiv 2204.06507).
Relative Mahalanobis distance (Ren et al. 2021, arXiv 2106.09022) does worse here; `benchmarks/unusual.py` compares
them.

Logarithms of the scores are brought to one scale by calibration images, and the largest of an image counts, so that a
view in which the image is ordinary does not hide another in which it is not. Each predicted class has a threshold of
its own. Where calibration images are many, a score beyond all of theirs is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.bundles.calibration import outlier_threshold

__all__ = [
    "ClassGaussians",
    "Novelty",
    "Scale",
    "colour_shares",
    "fit_colours",
    "fit_gaussians",
    "fit_scale",
    "score_parts",
]

_DIRECTIONS = 64
_COLOUR_DIRECTIONS = 16
_ROWS = 5000  # training images that a covariance is estimated on; more change it little
_LEAST_REST = 1e-3  # of the smallest variance kept, so that rounding does not count as distance
# A view can be the same for all images, such as one of nuclei where there are none; it is stored with 16 bits, whose
# rounding must not count as distance. Views that say something have variances above this one.
_LEAST_VARIANCE = 1e-7
_LEAST_DISTANCE = 1.0  # squared Mahalanobis distance: one direction's share of what is expected
_TINY = 1e-12
_ROUND = 1e-9
_ROUND_LOG = 1e-3  # the same for logarithms: scores that all lie within a thousandth tell nothing apart
_LEAST_SCORE = 1e-6
_BEYOND = 10  # calibration images above the upper end of the scale
_CHANNELS = 3
_SMOOTH = np.array([1, 2, 3, 2, 1]) / 9  # of neighbouring bins, so that a slightly lighter stain is no other colour


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """Gaussians of the classes in each view, of embeddings at unit length.

    Attributes:
        mean: means of the classes, float32 (views, classes, dim).
        basis: directions of the largest variance within classes, float32 (views, directions, dim).
        variance: variance of each direction, float32 (views, directions).
        rest: variance of any other direction, float32 (views,); infinite where there is none.
    """

    mean: np.ndarray
    basis: np.ndarray
    variance: np.ndarray
    rest: np.ndarray

    def score(self, X: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of X (images, views, dim) to the nearest class mean, float64 (images, views)."""
        found = np.empty(X.shape[:2])
        for view in range(X.shape[1]):
            unit = _unit(X[:, view])
            distances = []
            for mean in self.mean[view]:
                apart = unit - mean
                along = apart @ self.basis[view].T
                left = np.maximum((apart**2).sum(1) - (along**2).sum(1), 0)
                distances.append((along**2 / self.variance[view]).sum(1) + left / self.rest[view])
            found[:, view] = np.min(distances, 0)
        return found


def fit_gaussians(X: np.ndarray, codes: np.ndarray, directions: int = _DIRECTIONS) -> ClassGaussians:
    """Estimate the Gaussians of the classes.

    Args:
        X: embeddings of training images, float (images, views, dim).
        codes: class numbers, int (images,).
        directions: largest number of directions that keep a variance of their own.
    """
    from sklearn.utils.extmath import randomized_svd

    rows = np.arange(len(X)) if len(X) <= _ROWS else np.random.default_rng(0).permutation(len(X))[:_ROWS]
    classes, own = np.unique(codes[rows], return_inverse=True)
    count = max(1, min(directions, len(rows) // 3, X.shape[2]))
    parts: list[tuple[np.ndarray, ...]] = []
    for view in range(X.shape[1]):
        unit = _unit(X[rows, view])
        mean = np.stack([unit[own == code].mean(0) for code in range(len(classes))])
        apart = unit - mean[own]
        _, values, basis = randomized_svd(apart, count, random_state=0)
        variance = values**2 / len(rows)
        others = X.shape[2] - count
        rest = (float((apart**2).sum()) / len(rows) - variance.sum()) / others if others else np.inf
        variance = np.maximum(variance, _LEAST_VARIANCE)
        parts.append((mean, basis, variance, max(rest, _LEAST_REST * variance.min(), _LEAST_VARIANCE)))
    mean, basis, variance, rest = (np.stack(part).astype(np.float32) for part in zip(*parts, strict=True))
    return ClassGaussians(mean, basis, variance, rest)


def colour_shares(histogram: np.ndarray) -> np.ndarray:
    """Square roots of smoothed shares of colours, float32 (images, 1, bins), as one view for `ClassGaussians`.

    Euclidean distance between square roots of shares is Hellinger's.

    Args:
        histogram: share of the pixels in each bin, float (images, bins), one channel after the other.
    """
    shares = histogram.reshape(len(histogram), _CHANNELS, -1).astype(np.float32)
    wide = np.pad(shares, ((0, 0), (0, 0), (2, 2)))
    smooth = sum(weight * wide[:, :, start : start + shares.shape[2]] for start, weight in enumerate(_SMOOTH))
    return np.sqrt(np.asarray(smooth)).reshape(len(histogram), 1, -1).astype(np.float32)


def fit_colours(histogram: np.ndarray, codes: np.ndarray) -> ClassGaussians:
    """Estimate the Gaussians of the classes in histograms of colours; arguments as `colour_shares`."""
    return fit_gaussians(colour_shares(histogram), codes, _COLOUR_DIRECTIONS)


@dataclass(frozen=True, eq=False)
class Scale:
    """One scale for several scores, and the calibration images on it.

    Attributes:
        middle: median of the logarithm of each score over calibration images, float64 (scores,).
        high: an upper quantile of it, float64 (scores,).
        values: largest scaled score of each calibration image, float64 (images,).
        predicted: class that each of them is given, int (images,).
        largest: largest score of any calibration image, float64 (scores,); None in bundles of earlier versions, whose
            scale is that of the scores themselves.
    """

    middle: np.ndarray
    high: np.ndarray
    values: np.ndarray
    predicted: np.ndarray
    largest: np.ndarray | None = None

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Largest scaled score of each image, float64 (images,).

        Args:
            scores: scores, float (images, scores); NaN where one is not known.
        """
        if self.largest is None:
            scaled = (scores - self.middle) / np.maximum(self.high - self.middle, _ROUND)
        else:
            scaled = (_log(scores) - self.middle) / np.maximum(self.high - self.middle, _ROUND_LOG)
        return np.fmax.reduce(scaled, axis=1)

    def beyond_share(self, share: float) -> float:
        """Largest share of images like the calibration images with a score beyond all of theirs.

        Args:
            share: the most that may be; where it is exceeded, for few images, the rule is off and the result is 0.
        """
        found = 0.0 if self.largest is None else len(self.middle) / (len(self.values) + 1)
        return found if found <= share else 0.0

    def flags(self, scores: np.ndarray, predicted: np.ndarray, classes: int, share: float) -> np.ndarray:
        """Whether images are unusual, bool (images,).

        Args:
            scores: scores of the images, float (images, scores).
            predicted: class that each is given, int (images,).
            classes: number of classes.
            share: largest share of images like the calibration images that may exceed a threshold.
        """
        found = self(scores) > self.limits(classes, share)[predicted]
        if self.largest is not None and self.beyond_share(share):
            found |= (scores > self.largest).any(1)
        return found

    def limits(self, classes: int, share: float) -> np.ndarray:
        """Value beyond which an image is unusual, by predicted class, float64 (classes,).

        A class with too few calibration images to resolve the share takes the threshold of all.

        Args:
            classes: number of classes.
            share: largest share of images like the calibration images that may be flagged.
        """
        pooled = outlier_threshold(self.values, share)[0]
        found = np.full(classes, pooled)
        for code in range(classes):
            own = self.values[self.predicted == code]
            if len(own) and outlier_threshold(own, share)[1] <= share + _ROUND:
                found[code] = outlier_threshold(own, share)[0]
        return found


def fit_scale(scores: np.ndarray, predicted: np.ndarray) -> Scale:
    """Take the scale from calibration images, which no score was fitted on.

    The upper end of the scale lies as near to the thresholds as the number of images lets it be known, so that scores
    with a longer tail than others do not hide these.

    Args:
        scores: their scores, float (images, scores).
        predicted: class that each is given, int (images,).
    """
    upper = min(0.99, max(0.75, 1 - _BEYOND / len(scores)))
    middle, high = (np.quantile(_log(scores), level, axis=0) for level in (0.5, upper))
    empty = Scale(middle, high, np.empty(0), predicted, scores.max(0))
    return Scale(middle, high, empty(scores), predicted, scores.max(0))


@dataclass(frozen=True, eq=False)
class Novelty:
    """What flags unusual images.

    Attributes:
        gaussians: Gaussians of the classes, of every view of the bundle.
        scale: scale of their scores, of that of the colours where there is one, and of the distance to the nearest
            training images, which is the last.
        colours: Gaussians of the classes in histograms of colours; None where the training images have none, or where
            the model is adapted to sites, which differ in colour.
    """

    gaussians: ClassGaussians
    scale: Scale
    colours: ClassGaussians | None = None

    def scores(self, X: np.ndarray, distance: np.ndarray, histogram: np.ndarray | None = None) -> np.ndarray:
        """Scores of each image, float64 (images, scores).

        Args:
            X: embeddings of all views of the bundle, float (images, views, dim).
            distance: distance to the nearest training images, float (images,).
            histogram: share of the pixels in each bin of colour, float (images, bins); None where it is not known.
        """
        return np.column_stack([score_parts(self.gaussians, self.colours, X, histogram), distance])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays by name, for a file."""
        parts = {"gaussian": self.gaussians, "colour": self.colours, "scale": self.scale}
        return {
            f"{start}_{name}": value
            for start, part in parts.items()
            for name, value in ({} if part is None else vars(part)).items()
            if value is not None
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Novelty | None:
        """Read what `to_arrays` gave; None where a bundle of an earlier version has none of it."""
        views, colours, scale = (
            {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
            for start in ("gaussian_", "colour_", "scale_")
        )
        if not views or not scale:
            return None
        return cls(ClassGaussians(**views), Scale(**scale), ClassGaussians(**colours) if colours else None)


def score_parts(
    views: ClassGaussians, colours: ClassGaussians | None, X: np.ndarray, histogram: np.ndarray | None
) -> np.ndarray:
    """Scores of the views and, where there are Gaussians of them, of the colours; arguments as `Novelty.scores`."""
    found = np.maximum(views.score(X), _LEAST_DISTANCE)
    if colours is None:
        return found
    if histogram is None:
        return np.column_stack([found, np.full(len(X), np.nan)])
    return np.column_stack([found, np.maximum(colours.score(colour_shares(histogram)), _LEAST_DISTANCE)])


def _log(scores: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(scores, _LEAST_SCORE))


def _unit(X: np.ndarray) -> np.ndarray:
    X = X.astype(np.float32)
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), _TINY)
