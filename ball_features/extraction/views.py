"""Named recipes of deterministic views.

A view is a pure function of (image content, view index, recipe, seed): its parameters come from a generator
seeded by those four and nothing else, and it is applied row by row. View 0 is the plain image in every recipe.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ball_features.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NORMALIZATIONS", "RECIPES", "Recipe", "get_recipe", "make_view", "normalize", "view_names"]

# Mean and standard deviation of R, G, B in [0, 1].
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class Recipe:
    """How views after the first are made.

    Attributes:
        draw: Generator -> parameters of one view, float64 (parameters,).
        apply: (images float32 (batch, 3, height, width) in [0, 1], parameters float32 (batch, parameters)) ->
            images of the same shape.
        version: Raised when the numbers change; part of a cache's fingerprint.
    """

    draw: Callable[[np.random.Generator], np.ndarray]
    apply: Callable[[Tensor, Tensor], Tensor]
    version: int = 1


def _draw_report(rng: np.random.Generator) -> np.ndarray:
    angle_deg = rng.uniform(-20, 20)
    flips = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    brightness, contrast = rng.uniform(0.9, 1.1, 2)
    return np.array([angle_deg, *flips, brightness, contrast])


def _apply_report(images: Tensor, parameters: Tensor) -> Tensor:
    import torch
    import torch.nn.functional as F

    angle, flip_x, flip_y, brightness, contrast = parameters.unbind(1)
    cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    zero = torch.zeros_like(cos)
    theta = torch.stack(
        [torch.stack([cos * flip_x, -sin * flip_x, zero], 1), torch.stack([sin * flip_y, cos * flip_y, zero], 1)], 1
    )  # (batch, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Corners turned in from outside are black, as torchvision's RandomRotation leaves them.
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    images = (images * brightness[:, None, None, None]).clamp(0, 1)
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
    mean = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)  # (batch, 1, 1, 1)
    return torch.lerp(mean.expand_as(images), images, contrast[:, None, None, None]).clamp(0, 1)


RECIPES: dict[str, Recipe] = {
    # Rotation within 20 degrees, horizontal and vertical flips, brightness and contrast jitter of 0.1.
    "report": Recipe(_draw_report, _apply_report),
}


def get_recipe(name: str) -> Recipe:
    """Look a recipe up; raises `ConfigError` with the valid names."""
    if name not in RECIPES:
        raise ConfigError(f"Unknown recipe {name!r}. Valid: {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]


def view_names(recipe: str, views: int) -> tuple[str, ...]:
    """Names of the views of a cache: "plain", then the recipe's, numbered."""
    return ("plain", *(f"{recipe}-{index}" for index in range(1, views)))


def make_view(images: Tensor, sha256: Sequence[str], index: int, recipe: str, seed: int) -> Tensor:
    """Make one view of every image of a batch, on the images' device.

    Args:
        images: float32 (batch, 3, height, width) in [0, 1].
        sha256: Content hash of each image, hexadecimal.
        index: 0 for the plain image.
        recipe: Key of `RECIPES`.
        seed: The recipe's seed.

    Returns:
        float32, the same shape.
    """
    import torch

    if index == 0:
        return images
    chosen = get_recipe(recipe)
    words = (index, seed, zlib.crc32(recipe.encode()))
    rows = [chosen.draw(np.random.default_rng([int(digest[:32] or "0", 16), *words])) for digest in sha256]
    parameters = torch.as_tensor(np.stack(rows), dtype=torch.float32).to(images.device)
    return chosen.apply(images, parameters)


def normalize(images: Tensor, name: str) -> Tensor:
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
        images: float (batch, 3, height, width) in [0, 1].
        name: Key of `NORMALIZATIONS`.
    """
    import torch

    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in NORMALIZATIONS[name])
    return (images - mean) / std
