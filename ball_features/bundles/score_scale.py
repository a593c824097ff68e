"""One scale for the scores of the flag for unusual images, and the thresholds on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ball_features.bundles.calibration import outlier_threshold

__all__ = ["Scale", "fit_scale"]

_ROUND = 1e-9
_ROUND_LOG = 1e-3  # the same for logarithms: scores that all lie within a thousandth tell nothing apart
_LEAST_SCORE = 1e-6
_BEYOND = 10  # calibration images above the upper end of the scale
_ORDER = 1.5  # of the norm that joins scores


@dataclass(frozen=True, eq=False)
class Scale:
    """One scale for several scores, and the calibration images on it.

    Attributes:
        middle: median of the logarithm of each score over calibration images, float64 (scores,).
        high: an upper quantile of it, float64 (scores,).
        values: joined score of each calibration image, float64 (images,).
        predicted: class that each of them is given, int (images,).
        largest: largest score of any calibration image, float64 (scores,); None in bundles of earlier versions, whose
            scale is that of the scores themselves.
        order: order of the norm of the scaled scores above the median that joins them, float64 (1,); None in bundles of
            earlier versions, in which the largest counts.
        groups: number of the group of each score, int64 (scores,); the largest of a group stands for it. None where
            each is its own.
    """

    middle: np.ndarray
    high: np.ndarray
    values: np.ndarray
    predicted: np.ndarray
    largest: np.ndarray | None = None
    order: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Joined scaled scores of each image, float64 (images,).

        Args:
            scores: scores, float (images, scores); NaN where one is not known.
        """
        if self.largest is None:
            scaled = (scores - self.middle) / np.maximum(self.high - self.middle, _ROUND)
        else:
            scaled = (_log(scores) - self.middle) / np.maximum(self.high - self.middle, _ROUND_LOG)
        if self.order is None:
            return np.fmax.reduce(scaled, axis=1)
        if self.groups is not None:
            own = (scaled[:, self.groups == number] for number in np.unique(self.groups))
            scaled = np.column_stack([np.fmax.reduce(part, axis=1) for part in own])
        order = float(self.order[0])
        return np.nansum(np.maximum(scaled, 0) ** order, axis=1) ** (1 / order)

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


def fit_scale(scores: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None = None) -> Scale:
    """Take the scale from calibration images, which no score was fitted on.

    The upper end of the scale lies as near to the thresholds as the number of images lets it be known, so that scores
    with a longer tail than others do not hide these.

    Args:
        scores: their scores, float (images, scores).
        predicted: class that each is given, int (images,).
        groups: number of the group of each score, int64 (scores,), as in `Scale`.
    """
    upper = min(0.99, max(0.75, 1 - _BEYOND / len(scores)))
    middle, high = (np.quantile(_log(scores), level, axis=0) for level in (0.5, upper))
    empty = Scale(middle, high, np.empty(0), predicted, scores.max(0), np.array([_ORDER]), groups)
    return replace(empty, values=empty(scores))


def _log(scores: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(scores, _LEAST_SCORE))
