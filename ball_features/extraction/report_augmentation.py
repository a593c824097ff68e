"""The student report's augmentation: rotation, flips, brightness and contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["apply_report", "draw_report", "move_report"]


def draw_report(rng: np.random.Generator) -> np.ndarray:
    """Draw the angle in degrees, two flips (-1 or 1), the brightness factor and the contrast factor: float64 (5,)."""
    import numpy as np

    angle_deg = rng.uniform(-20, 20)
    flips = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    brightness, contrast = rng.uniform(0.9, 1.1, 2)
    return np.array([angle_deg, *flips, brightness, contrast])


def move_report(images: Tensor, parameters: Tensor) -> Tensor:
    """Rotate and flip images float32 (batch, 3, height, width) by parameters float32 (batch, 5); shape as `images`."""
    import torch
    import torch.nn.functional as F

    angle, flip_x, flip_y = parameters.unbind(1)[:3]
    cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    zero = torch.zeros_like(cos)
    theta = torch.stack(
        [torch.stack([cos * flip_x, -sin * flip_x, zero], 1), torch.stack([sin * flip_y, cos * flip_y, zero], 1)], 1
    )  # (batch, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Corners turned in from outside are black, as torchvision's RandomRotation leaves them.
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def apply_report(images: Tensor, parameters: Tensor) -> Tensor:
    """Apply the whole augmentation to images float32 (batch, 3, height, width) in [0, 1]; shape as `images`."""
    import torch

    brightness, contrast = parameters.unbind(1)[3:]
    images = move_report(images, parameters)
    images = (images * brightness[:, None, None, None]).clamp(0, 1)
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
    mean = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)  # (batch, 1, 1, 1)
    return torch.lerp(mean.expand_as(images), images, contrast[:, None, None, None]).clamp(0, 1)
