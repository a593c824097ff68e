"""The flag for unusual images: scores of each view that grow with the distance to the training images.

For each view, the plain one among them, the Mahalanobis distance of the embedding at unit length to the nearest class
mean (Lee et al. 2018, arXiv 1807.03888), with one covariance for all classes: its largest directions as they are, the
rest as one variance (Moghaddam and Pentland 1997, doi 10.1109/34.598227). Beside them stands the distance to the
nearest training images in the mean of the model's views (Sun et al. 2022, arXiv 2204.06507). Relative Mahalanobis
distance (Ren et al. 2021, arXiv 2106.09022) does worse here; `benchmarks/unusual.py` compares them.

Scores are brought to one scale by calibration images, and the largest of an image counts, so that a view in which the
image is ordinary does not hide another in which it is not. Each predicted class has a threshold of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.bundles.calibration import outlier_threshold

__all__ = ["ClassGaussians", "Novelty", "Scale", "fit_gaussians", "fit_scale"]

_DIRECTIONS = 64
_ROWS = 5000  # training images that a covariance is estimated on; more change it little
_LEAST_REST = 1e-3  # of the smallest variance kept, so that rounding does not count as distance
_TINY = 1e-12
_ROUND = 1e-9


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


def fit_gaussians(X: np.ndarray, codes: np.ndarray) -> ClassGaussians:
    """Estimate the Gaussians of the classes.

    Args:
        X: embeddings of training images, float (images, views, dim).
        codes: class numbers, int (images,).
    """
    from sklearn.utils.extmath import randomized_svd

    rows = np.arange(len(X)) if len(X) <= _ROWS else np.random.default_rng(0).permutation(len(X))[:_ROWS]
    classes, own = np.unique(codes[rows], return_inverse=True)
    count = max(1, min(_DIRECTIONS, len(rows) // 3, X.shape[2]))
    parts: list[tuple[np.ndarray, ...]] = []
    for view in range(X.shape[1]):
        unit = _unit(X[rows, view])
        mean = np.stack([unit[own == code].mean(0) for code in range(len(classes))])
        apart = unit - mean[own]
        _, values, basis = randomized_svd(apart, count, random_state=0)
        variance = values**2 / len(rows)
        others = X.shape[2] - count
        rest = (float((apart**2).sum()) / len(rows) - variance.sum()) / others if others else np.inf
        variance = np.maximum(variance, _TINY)
        parts.append((mean, basis, variance, np.maximum(rest, _LEAST_REST * variance.min())))
    mean, basis, variance, rest = (np.stack(part).astype(np.float32) for part in zip(*parts, strict=True))
    return ClassGaussians(mean, basis, variance, rest)


@dataclass(frozen=True, eq=False)
class Scale:
    """One scale for several scores, and the calibration images on it.

    Attributes:
        middle: median of each score over calibration images, float64 (scores,).
        high: its 95th percentile, float64 (scores,).
        values: largest scaled score of each calibration image, float64 (images,).
        predicted: class that each of them is given, int (images,).
    """

    middle: np.ndarray
    high: np.ndarray
    values: np.ndarray
    predicted: np.ndarray

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Largest scaled score of each image, float64 (images,), of scores (images, scores)."""
        return ((scores - self.middle) / np.maximum(self.high - self.middle, _ROUND)).max(1)

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

    Args:
        scores: their scores, float (images, scores).
        predicted: class that each is given, int (images,).
    """
    middle, high = np.quantile(scores, 0.5, axis=0), np.quantile(scores, 0.95, axis=0)
    empty = Scale(middle, high, np.empty(0), predicted)
    return Scale(middle, high, empty(scores), predicted)


@dataclass(frozen=True, eq=False)
class Novelty:
    """What flags unusual images.

    Attributes:
        gaussians: Gaussians of the classes, of every view of the bundle.
        scale: scale of their scores and of the distance to the nearest training images, which is the last.
    """

    gaussians: ClassGaussians
    scale: Scale

    def values(self, X: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Largest scaled score of each image, float64 (images,).

        Args:
            X: embeddings of all views of the bundle, float (images, views, dim).
            distance: distance to the nearest training images, float (images,).
        """
        return self.scale(np.column_stack([self.gaussians.score(X), distance]))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays by name, for a file."""
        own = {f"gaussian_{name}": value for name, value in vars(self.gaussians).items()}
        return own | {f"scale_{name}": value for name, value in vars(self.scale).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Novelty | None:
        """Read what `to_arrays` gave; None where a bundle of an earlier version has none of it."""
        parts = [
            {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
            for start in ("gaussian_", "scale_")
        ]
        return cls(ClassGaussians(**parts[0]), Scale(**parts[1])) if all(parts) else None


def _unit(X: np.ndarray) -> np.ndarray:
    X = X.astype(np.float32)
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), _TINY)
