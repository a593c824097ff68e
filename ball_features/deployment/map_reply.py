"""The server's activation map of one image."""

from __future__ import annotations

from typing import Any

from ball_features.bundles.prediction import Prediction
from ball_features.bundles.predictor import Predictor
from ball_features.deployment.activation import activation_map
from ball_features.deployment.replies import ActivationMap

__all__ = ["reply_with_map"]


def reply_with_map(predictor: Predictor, found: Prediction, image: Any, digest: str) -> ActivationMap | None:
    """The map of the predicted class; None where network, views or model have none.

    Args:
        predictor: predictor with its network.
        found: prediction on the image.
        image: pixels, uint8 (3, side, side).
        digest: content hash of the image.
    """
    values = activation_map(predictor, image, digest, predictor.bundle.classes.index(found.predicted))
    if values is None:
        return None
    flat = [round(float(value), 5) for value in values.ravel()]
    return ActivationMap(height=values.shape[0], width=values.shape[1], values=flat)
