"""Normalisation of pixel values: mean and standard deviation of R, G and B."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ball_features.errors import ConfigError
from ball_features.extraction.backbones import Backbone

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NORMALIZATIONS", "choose_normalization", "mean_std", "normalize"]

# Mean and standard deviation of R, G, B in [0, 1].
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def mean_std(normalization: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of R, G and B, from a key of `NORMALIZATIONS` or from the text "m,m,m/s,s,s".

    Raises:
        ConfigError: The text is neither.
    """
    if normalization in NORMALIZATIONS:
        return NORMALIZATIONS[normalization]
    try:
        mean, std = (tuple(map(float, part.split(","))) for part in normalization.split("/"))
        if len(mean) == len(std) == 3 and np.isfinite([*mean, *std]).all() and min(std) > 0:
            return mean, std
    except ValueError:
        pass
    raise ConfigError(
        f"Got the normalisation {normalization!r}, expected {', '.join(NORMALIZATIONS)}, or means and standard "
        "deviations of R, G and B such as 0.7,0.6,0.7/0.2,0.2,0.2"
    )


def choose_normalization(normalization: str, backbone: Backbone) -> str:
    """The normalisation that is asked for, or that of the backbone if "auto" is.

    Raises:
        ConfigError: The name is unknown, or the backbone does not state its normalisation.
    """
    if normalization != "auto":
        mean_std(normalization)
        return normalization
    if not backbone.normalization:
        raise ConfigError(
            f"{backbone.name} does not state how its input is normalised. Give normalize: imagenet, half, unit, or "
            "means and standard deviations of R, G and B such as 0.7,0.6,0.7/0.2,0.2,0.2"
        )
    return backbone.normalization


def normalize(images: Tensor, normalization: str) -> Tensor:
    """Subtract the mean of each channel and divide by its standard deviation.

    Args:
        images: pixels, float (batch, 3, height, width) in [0, 1].
        normalization: normalisation as `mean_std` takes it.

    Returns:
        Normalised images, float of the same shape.
    """
    import torch

    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in mean_std(normalization))
    return (images - mean) / std
