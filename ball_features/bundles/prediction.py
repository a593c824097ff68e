"""The prediction on one image, computed by a bundle from embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ball_features.bundles.bundle import Bundle

__all__ = ["Prediction", "describe"]


@dataclass(frozen=True)
class Prediction:
    """Prediction on one image.

    Attributes:
        path: path as it was given.
        predicted: most probable class.
        probability: calibrated probability of each class, class -> probability.
        set: classes that include the true one with the requested coverage, the most probable first.
        distance: mean cosine distance to the nearest training images.
        unusual: True for an image unlike the training images (see `Bundle.unusual`): do not trust the class.
        nearest: ids of the nearest training images.
        nearest_class: class of each of them; empty where the bundle does not say, since an earlier version made it.
    """

    path: str
    predicted: str
    probability: dict[str, float]
    set: tuple[str, ...]
    distance: float
    unusual: bool
    nearest: tuple[str, ...]
    nearest_class: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        lists = {"set": list(self.set), "nearest": list(self.nearest), "nearest_class": list(self.nearest_class)}
        return vars(self) | lists


def describe(
    bundle: Bundle, paths: Sequence[str], X: np.ndarray, coverage: float, histogram: np.ndarray | None = None
) -> list[Prediction]:
    """Predict from embeddings.

    Args:
        bundle: bundle from `read_bundle`.
        paths: name of each image.
        X: embeddings, float32 (images, views, dim).
        coverage: coverage of the prediction sets.
        histogram: colours of the images, as `Bundle.unusual` takes them.
    """
    probability = bundle.probability(X)
    inside = bundle.sets(probability, coverage)
    distance, rows = bundle.distance(X)
    unusual = bundle.unusual(X, probability, histogram)
    known = len(bundle.train_class) > 0
    result = []
    for image, path in enumerate(paths):
        order = np.argsort(-probability[image], kind="stable")  # of equals the first, as everywhere
        result.append(
            Prediction(
                path=path,
                predicted=bundle.classes[order[0]],
                probability=dict(zip(bundle.classes, probability[image].tolist(), strict=True)),
                set=tuple(bundle.classes[code] for code in order if inside[image, code]),
                distance=float(distance[image]),
                unusual=bool(unusual[image]),
                nearest=tuple(bundle.train_path[row] for row in rows[image]),
                nearest_class=tuple(bundle.classes[bundle.train_class[row]] for row in rows[image] if known),
            )
        )
    return result
