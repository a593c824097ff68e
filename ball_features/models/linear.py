"""Fitted classifiers as torch modules: for gradients, and for graphs that run elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.errors import DataError
from ball_features.models.base import PerViewClassifier, PipelineClassifier

if TYPE_CHECKING:
    from torch import nn

__all__ = ["logit_module", "view_modules"]


def logit_module(estimator: Any) -> nn.Module:
    """Return a fitted head or linear classifier as a module from float32 (images, dim) to logits (images, classes).

    The softmax of the logits is `estimator.predict_proba`, in the order of `estimator.classes_`. What standardises or
    projects before a linear model is folded into its weights in float64.

    Raises:
        DataError: The model is not mlp, logistic, robust-logistic or lda; for robust-views see `view_modules`.
    """
    import torch
    from torch import nn

    from ball_features.models.mlp import MLPHead
    from ball_features.models.network import absorb_norms

    if isinstance(estimator, MLPHead):
        layers: list[nn.Module] = []
        for weight, bias, slope in absorb_norms(estimator.state_, len(estimator.hidden), torch.float32):
            layers.append(_linear(weight.numpy(), bias.numpy()))
            if slope is not None:
                layers.append(nn.LeakyReLU(slope))
        return nn.Sequential(*layers).eval()
    weight, bias = _folded(estimator.to_pipeline() if isinstance(estimator, PipelineClassifier) else estimator)
    if len(weight) == 1:  # two classes: one row of logits, the other is 0
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
    return _linear(weight, bias).eval()


def view_modules(estimator: Any, views: int) -> list[nn.Module]:
    """Return the `logit_module` of each view: those of a `PerViewClassifier`'s parts, else the same one every time."""
    if isinstance(estimator, PerViewClassifier):
        if len(estimator.models_) != views:
            raise DataError(
                f"This model joins {views} views in {len(estimator.models_)} models, which a graph cannot "
                "follow. Save mlp, logistic, robust-logistic or lda and use its bundle."
            )
        return [logit_module(model) for model in estimator.models_]
    return [logit_module(estimator)] * views


def _folded(estimator: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (classes, dim) and bias (classes,) for embeddings that are not standardised."""
    from sklearn.pipeline import Pipeline

    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else []
    if len(steps) != 2 or not (hasattr(steps[0], "scale_") and hasattr(steps[1], "coef_")):
        raise DataError(
            "This model has no weights that a graph or a gradient could use, expected mlp, logistic, robust-logistic, "
            "robust-views or lda. Save one of them and use its bundle."
        )
    scaler, model = steps
    weight = model.coef_.astype(np.float64) / scaler.scale_
    return weight, model.intercept_ - weight @ scaler.mean_


def _linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    import torch
    from torch import nn

    with torch.device("meta"):  # without torch's own, globally seeded, initialisation
        module = nn.Linear(weight.shape[1], weight.shape[0])
    module.to_empty(device="cpu")
    module.weight.data.copy_(torch.from_numpy(weight))
    module.bias.data.copy_(torch.from_numpy(bias))
    module.requires_grad_(False)
    return module
