"""Gaussians of the classes in embeddings, and in histograms of colours: Mahalanobis distances to the class means.

Embeddings are taken at unit length. Those of a site-adapted model, which are less the offset of their site, are divided
by one number instead: what is left of a foreign image is long, of an own one short, and unit length would hide that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ClassGaussians", "at_scale", "colour_shares", "fit_colours", "fit_gaussians"]

_DIRECTIONS = 64
_COLOUR_DIRECTIONS = 16
_ROWS = 5000  # training images that a covariance is estimated on; more change it little
_LEAST_REST = 1e-3  # of the smallest variance kept, so that rounding does not count as distance
# A view can be the same for all images, such as one of nuclei where there are none; it is stored with 16 bits, whose
# rounding must not count as distance. Views that say something have variances above this one.
_LEAST_VARIANCE = 1e-7
_TINY = 1e-12
_CHANNELS = 3
_SMOOTH = np.array([1, 2, 3, 2, 1]) / 9  # of neighbouring bins, so that a slightly lighter stain is no other colour


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """Gaussians of the classes in each view.

    Attributes:
        mean: means of the classes, float32 (views, classes, dim).
        basis: directions of the largest variance within classes, float32 (views, directions, dim).
        variance: variance of each direction, float32 (views, directions).
        rest: variance of any other direction, float32 (views,); infinite where there is none.
        length: what embeddings are divided by, float32 (views,); None where each is taken at unit length.
    """

    mean: np.ndarray
    basis: np.ndarray
    variance: np.ndarray
    rest: np.ndarray
    length: np.ndarray | None = None

    def score(self, X: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of X (images, views, dim) to the nearest class mean, float64 (images, views)."""
        found = np.empty(X.shape[:2])
        for view in range(X.shape[1]):
            unit = at_scale(X[:, view], None if self.length is None else self.length[view])
            distances = []
            for mean in self.mean[view]:
                apart = unit - mean
                along = apart @ self.basis[view].T
                left = np.maximum((apart**2).sum(1) - (along**2).sum(1), 0)
                distances.append((along**2 / self.variance[view]).sum(1) + left / self.rest[view])
            found[:, view] = np.min(distances, 0)
        return found


def fit_gaussians(
    X: np.ndarray, codes: np.ndarray, directions: int = _DIRECTIONS, length: np.ndarray | None = None
) -> ClassGaussians:
    """Estimate the Gaussians of the classes.

    Args:
        X: embeddings of training images, float (images, views, dim).
        codes: class numbers, int (images,).
        directions: largest number of directions that keep a variance of their own.
        length: what embeddings are divided by, as in `ClassGaussians`.
    """
    from sklearn.utils.extmath import randomized_svd

    rows = np.arange(len(X)) if len(X) <= _ROWS else np.random.default_rng(0).permutation(len(X))[:_ROWS]
    classes, own = np.unique(codes[rows], return_inverse=True)
    count = max(1, min(directions, len(rows) // 3, X.shape[2]))
    parts: list[tuple[np.ndarray, ...]] = []
    for view in range(X.shape[1]):
        unit = at_scale(X[rows, view], None if length is None else length[view])
        mean = np.stack([unit[own == code].mean(0) for code in range(len(classes))])
        apart = unit - mean[own]
        _, values, basis = randomized_svd(apart, count, random_state=0)
        variance = values**2 / len(rows)
        others = X.shape[2] - count
        rest = (float((apart**2).sum()) / len(rows) - variance.sum()) / others if others else np.inf
        variance = np.maximum(variance, _LEAST_VARIANCE)
        parts.append((mean, basis, variance, max(rest, _LEAST_REST * variance.min(), _LEAST_VARIANCE)))
    mean, basis, variance, rest = (np.stack(part).astype(np.float32) for part in zip(*parts, strict=True))
    return ClassGaussians(mean, basis, variance, rest, None if length is None else length.astype(np.float32))


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


def at_scale(X: np.ndarray, length: float | None = None) -> np.ndarray:
    """Embeddings (images, dim) divided by a length, float32; each by its own where none is given."""
    X = X.astype(np.float32)
    own = np.linalg.norm(X, axis=1, keepdims=True) if length is None else np.float32(length)
    return X / np.maximum(own, _TINY)
