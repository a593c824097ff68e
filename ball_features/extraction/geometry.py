"""Geometric transforms of views: flips and quarter turns, crop and zoom, enlargement.

Each `apply_*` maps images float32 (batch, 3, height, width) in [0, 1] and parameters float32 (batch, parameters) to
images of the same shape unless it says otherwise, row by row, on any device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["apply_dihedral", "apply_enlarge", "apply_zoom", "draw_dihedral", "draw_zoom"]


def draw_dihedral(rng: np.random.Generator, number: int) -> np.ndarray:
    """Draw the position of view `number`, float64 (1,), from 1 to 7; seven consecutive views take each of them once."""
    import numpy as np

    return np.array([1 + rng.permutation(7)[number % 7]], dtype=np.float64)


def apply_dihedral(images: Tensor, parameters: Tensor) -> Tensor:
    """Flip and turn each square image to one of the eight positions of `audit.orientation`."""
    import torch

    from ball_features.audit.orientation import turned

    positions = parameters[:, 0].long().tolist()
    return torch.stack([turned(image, position) for image, position in zip(images, positions, strict=True)])


def draw_zoom(rng: np.random.Generator) -> np.ndarray:
    """Draw the visible share of the side and the crop's offset in x and y, from -1 to 1: float64 (3,)."""
    import numpy as np

    return np.array([rng.uniform(0.8, 1.0), *rng.uniform(-1, 1, 2)])


def apply_zoom(images: Tensor, parameters: Tensor) -> Tensor:
    """Crop each image and resize the crop to the whole side."""
    import torch
    import torch.nn.functional as F

    share, x, y = parameters.unbind(1)
    zero = torch.zeros_like(share)
    theta = torch.stack(
        [torch.stack([share, zero, x * (1 - share)], 1), torch.stack([zero, share, y * (1 - share)], 1)], 1
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def apply_enlarge(images: Tensor, parameters: Tensor) -> Tensor:
    """Double both sides by bilinear interpolation: (batch, 3, 2 * height, 2 * width)."""
    import torch.nn.functional as F

    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
