"""Transforms that lower image quality: blur and JPEG compression.

Each `apply_*` maps images float32 (batch, 3, height, width) in [0, 1] and parameters float32 (batch, parameters) to
images of the same shape, row by row, on any device.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["apply_blur", "apply_jpeg", "apply_soft", "draw_blur", "draw_jpeg"]

_BLUR_RADIUS_PX = 6
_SOFT_SIGMA_PX = 1.5


def _gaussian(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Blur each plane of images (batch, planes, height, width) with its own sigma (planes,), one axis at a time."""
    import torch
    import torch.nn.functional as F

    ruler = torch.arange(-_BLUR_RADIUS_PX, _BLUR_RADIUS_PX + 1, device=images.device)
    kernel = torch.exp(-ruler.square() / (2 * sigma_px[:, None].square()))  # (planes, taps)
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None]  # (planes, 1, taps)
    wide = F.pad(images, [_BLUR_RADIUS_PX] * 4, mode="reflect")
    wide = F.conv2d(wide, kernel[:, :, :, None], groups=len(kernel))
    return F.conv2d(wide, kernel[:, :, None, :], groups=len(kernel))


def draw_blur(rng: np.random.Generator) -> np.ndarray:
    """Draw the standard deviation in pixels, float64 (1,)."""
    import numpy as np

    return np.array([rng.uniform(0.5, 2.0)])


def apply_blur(images: Tensor, parameters: Tensor) -> Tensor:
    """Blur each image with a Gaussian of its own width."""
    planes = images.flatten(0, 1)[None]  # each image has its own sigma
    return _gaussian(planes, parameters[:, 0].repeat_interleave(images.shape[1])).view(images.shape)


def apply_soft(images: Tensor, parameters: Tensor) -> Tensor:
    """Blur all images with one Gaussian of 1.5 px."""
    return _gaussian(images, images.new_full((images.shape[1],), _SOFT_SIGMA_PX))


def draw_jpeg(rng: np.random.Generator) -> np.ndarray:
    """Draw the JPEG quality, float64 (1,), from 30 to 90."""
    import numpy as np

    return np.array([rng.integers(30, 91)], dtype=np.float64)


def apply_jpeg(images: Tensor, parameters: Tensor) -> Tensor:
    """Encode each image as JPEG and decode it, with Pillow on the CPU."""
    import numpy as np
    import torch
    from PIL import Image

    rows = []
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    for image, quality in zip(pixels, parameters[:, 0].tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(quality))
        rows.append(np.array(Image.open(buffer)))
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).to(images.device).float() / 255
