"""Class activation maps: which regions of an image support a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.bundles.predictor import Predictor
from ball_features.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from ball_features.extraction.readouts import Readout

__all__ = ["activation_map"]


def activation_map(predictor: Predictor, image: Tensor, sha256: str, code: int) -> np.ndarray | None:
    """Compute the class activation map of an image (Zhou et al. 2016, eq. 2).

    It uses the first tested view that leaves pixels at their positions. Each value is the contribution of a position of
    the feature map to the logit of the class minus the mean of all logits; for a head of several layers the gradient at
    this image stands for its weights (Selvaraju et al. 2017, eq. 1), and signs are kept.

    Args:
        predictor: bundle with its network.
        image: pixels, uint8 (3, input_px, input_px).
        sha256: content hash of the image, which seeds random views.
        code: number of the class in the bundle's `classes`.

    Returns:
        Contributions, float32 (height, width) of the feature map, or None if the network, the views or the model have
        no such map.
    """
    import torch
    import torch.nn.functional as F

    from ball_features.extraction.readouts import pooling_weights, read_maps
    from ball_features.models.linear import view_modules

    estimator, preprocessing = predictor.bundle.estimator, predictor.preprocessing
    own = predictor.bundle.facts.model_views
    preprocessing = preprocessing.select(own) if own else preprocessing
    known = estimator.classes_.tolist()
    kept = [position for position, view in enumerate(preprocessing.plan.views) if view.keeps_positions]
    maps_of: Any = getattr(predictor.engine, "maps", None)
    if maps_of is None or code not in known or not kept:
        return None
    try:
        head = view_modules(estimator, len(preprocessing.plan))[kept[0]]
    except DataError:
        return None
    weighted: list[Tensor] = []  # for each channel, float32 (height, width, dim): the summands of the embedding

    def read(view: Tensor, readouts: Sequence[Readout], nuclei: Tensor | None) -> list[Tensor]:
        readout = readouts[0]
        maps = maps_of(view, (readout.block,))
        activations = maps[readout.block][0].float().cpu()
        height, width, _ = activations.shape
        weight = pooling_weights(nuclei if readout.nuclei else None, 1, height, width).cpu()
        weighted.append(activations * weight.view(height, width, 1))
        return read_maps(maps, readouts, nuclei)

    pixels = image[None].to(predictor.device).float().div_(255)
    x = preprocessing.select(kept[:1]).embed(pixels, [sha256], read)[:, 0].cpu().clone()
    if predictor.bundle.offset is not None:
        x -= torch.from_numpy(predictor.bundle.offset[own[kept[0]] if own else kept[0]])
    x.requires_grad_()
    logits = head(x)[0]
    (slope,) = torch.autograd.grad(logits[known.index(code)] - logits.mean(), x)
    if preprocessing.combine == "mean":
        slope = slope.repeat(1, len(weighted)) / len(weighted)
    dim = slope.shape[1] // len(weighted)  # a shorter map was padded with zeros
    summands = torch.cat([F.pad(part, (0, dim - part.shape[2])) for part in weighted], 2)
    return (summands @ slope[0]).numpy()
