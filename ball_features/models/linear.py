"""Fitted classifiers as torch modules: for gradients, and for graphs that run elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.errors import DataError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["logit_module", "view_modules"]


def logit_module(estimator: Any) -> nn.Module:
    """A fitted head or linear classifier: float32 embeddings (images, dim) -> logits (images, classes).

    Their softmax is `estimator.predict_proba`, in the order of `estimator.classes_`. Whatever standardises or projects
    before a linear model is folded into its weights in float64.

    Raises:
        DataError: The model is none of the head, logistic, robust-logistic and lda; for robust-views see
            `view_modules`.
    """
    import torch
    from torch import nn

    if hasattr(estimator, "state_"):
        from ball_features.models.training import absorb_norms

        layers: list[nn.Module] = []
        for weight, bias, slope in absorb_norms(estimator.state_, len(estimator.hidden), torch.float32):
            layers.append(_linear(weight.numpy(), bias.numpy()))
            if slope is not None:
                layers.append(nn.LeakyReLU(slope))
        return nn.Sequential(*layers).eval()
    weight, bias = _folded(estimator.to_pipeline() if hasattr(estimator, "to_pipeline") else estimator)
    if len(weight) == 1:  # two classes: one row against nothing
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
    return _linear(weight, bias).eval()


def view_modules(estimator: Any, views: int) -> list[nn.Module]:
    """`logit_module` of each view: of a model that tells views apart its parts, else the same one every time."""
    if getattr(estimator, "by_view", False):
        return [logit_module(model) for model in estimator.models_]
    return [logit_module(estimator)] * views


def _folded(estimator: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weight (classes, dim) and bias (classes,) on embeddings as they come."""
    steps = [step for _, step in getattr(estimator, "steps", [])]
    if len(steps) != 2 or not (hasattr(steps[0], "scale_") and hasattr(steps[1], "coef_")):
        raise DataError(
            "This model has no weights that a graph or a gradient could use, expected mlp, logistic, "
            "robust-logistic, robust-views or lda. Save one of them: ball fit ... --save logistic"
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
