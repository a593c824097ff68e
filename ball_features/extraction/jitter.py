"""Views against geometry, focus and compression.

Every `apply` maps float32 (batch, 3, height, width) in [0, 1] and parameters (batch, numbers) to the same shape, row by
row, on any device.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from ball_features.audit.orientation import turned

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "apply_blur",
    "apply_dihedral",
    "apply_jpeg",
    "apply_zoom",
    "draw_blur",
    "draw_jpeg",
    "draw_zoom",
    "enlarge",
    "soft",
    "turn_dihedral",
]

_BLUR_RADIUS_PX = 6
_SOFT_SIGMA_PX = 1.5


def turn_dihedral(rng: np.random.Generator, number: int) -> np.ndarray:
    """One of the eight positions other than the upright one: seven views of an image are the seven, in any order."""
    return np.array([1 + rng.permutation(7)[number % 7]], dtype=np.float64)


def apply_dihedral(images: Tensor, parameters: Tensor) -> Tensor:
    """One of the eight `positions` of each; images must be square."""
    import torch

    places = parameters[:, 0].long().tolist()
    return torch.stack([turned(image, place) for image, place in zip(images, places, strict=True)])


def draw_zoom(rng: np.random.Generator) -> np.ndarray:
    """Share of the side that is seen, and where its middle lies in what is left over, -1 to 1."""
    return np.array([rng.uniform(0.8, 1.0), *rng.uniform(-1, 1, 2)])


def apply_zoom(images: Tensor, parameters: Tensor) -> Tensor:
    """A crop, resized to the whole."""
    import torch
    import torch.nn.functional as F

    share, x, y = parameters.unbind(1)
    zero = torch.zeros_like(share)
    theta = torch.stack(
        [torch.stack([share, zero, x * (1 - share)], 1), torch.stack([zero, share, y * (1 - share)], 1)], 1
    )
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _gaussian(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Separable blur of each plane of (batch, planes, height, width) with its own sigma (planes,)."""
    import torch
    import torch.nn.functional as F

    ruler = torch.arange(-_BLUR_RADIUS_PX, _BLUR_RADIUS_PX + 1, device=images.device)
    kernel = torch.exp(-ruler.square() / (2 * sigma_px[:, None].square()))  # (planes, taps)
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None]  # (planes, 1, taps)
    wide = F.pad(images, [_BLUR_RADIUS_PX] * 4, mode="reflect")
    wide = F.conv2d(wide, kernel[:, :, :, None], groups=len(kernel))
    return F.conv2d(wide, kernel[:, :, None, :], groups=len(kernel))


def draw_blur(rng: np.random.Generator) -> np.ndarray:
    """Sigma in pixels."""
    return np.array([rng.uniform(0.5, 2.0)])


def apply_blur(images: Tensor, parameters: Tensor) -> Tensor:
    """Gaussian blur."""
    planes = images.flatten(0, 1)[None]  # each image has its own sigma
    return _gaussian(planes, parameters[:, 0].repeat_interleave(images.shape[1])).view(images.shape)


def soft(images: Tensor, parameters: Tensor) -> Tensor:
    """Gaussian blur of one width for all."""
    return _gaussian(images, images.new_full((images.shape[1],), _SOFT_SIGMA_PX))


def enlarge(images: Tensor, parameters: Tensor) -> Tensor:
    """Twice the side, bilinear."""
    import torch.nn.functional as F

    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)


def draw_jpeg(rng: np.random.Generator) -> np.ndarray:
    """Quality."""
    return np.array([rng.integers(30, 91)], dtype=np.float64)


def apply_jpeg(images: Tensor, parameters: Tensor) -> Tensor:
    """Encode and decode by Pillow, on the CPU."""
    import torch
    from PIL import Image

    rows = []
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    for image, quality in zip(pixels, parameters[:, 0].tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(quality))
        rows.append(np.array(Image.open(buffer)))
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).to(images.device).float() / 255
