"""Views of the one cell in the middle of an image, at the scale of its nucleus.

Sites differ in magnification, light, stain and in what lies around a cell. A crop in units of the nucleus removes the
first, densities relative to the ground and to the nucleus remove the second and the third, and fading removes the last.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from ball_features.extraction.central_nucleus import CentralNucleus

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SIDE_PX", "apply_even_density", "apply_even_stain", "apply_fade", "crop_cell", "cropper"]

SIDE_PX = 128  # of a crop; ImageNet's filters suit it as well as 224, at a third of the cost
_NUCLEUS = (1.0, 1.25, 0.55)  # density of R, G, B that `apply_even_stain` gives a nucleus: purple
_DENSITY = 0.95  # mean density over R, G, B that `apply_even_density` gives a nucleus
_FACTOR = (0.4, 4.0)  # range of factors on a density
_MIN_DENSITY = 0.15  # of a nucleus
_MAX_DENSITY = 3.0  # of a pixel
_FADE = (0.3, 0.45)  # distance from the nucleus in diameters where fading begins and ends
_DARKEST = 1 / 255


def cropper(factor: float) -> functools.partial[tuple[Tensor, CentralNucleus]]:
    """Return `crop_cell` with a side of so many diameters of the nucleus."""
    return functools.partial(crop_cell, factor=factor)


def crop_cell(images: Tensor, cell: CentralNucleus, factor: float) -> tuple[Tensor, CentralNucleus]:
    """Crop a square around the nucleus, with the ground in white.

    Args:
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].
        cell: nucleus of each image.
        factor: side of the crop in diameters of the nucleus.

    Returns:
        Pixels relative to the ground, float32 (batch, 3, SIDE_PX, SIDE_PX), white beyond the edge of the image, and the
        nucleus in their coordinates.
    """
    import torch
    import torch.nn.functional as F

    half = (cell.diameter * (factor / 2)).clamp_min(0.1)  # in half sides
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = half
    theta[:, :, 2] = cell.centre

    def sample(plane: Tensor) -> Tensor:
        # Twice the side and then averaged, so that a crop larger than the output has no aliases.
        grid = F.affine_grid(theta, [*plane.shape[:2], 2 * SIDE_PX, 2 * SIDE_PX], align_corners=False)
        return F.avg_pool2d(F.grid_sample(plane, grid, padding_mode="zeros", align_corners=False), 2)

    relative = (sample(images / cell.ground[:, :, None, None] - 1) + 1).clamp(0, 1)
    # Nothing beyond the edge is near the nucleus.
    distance = sample(cell.distance - 1) + 1
    own = replace(
        cell,
        centre=torch.zeros_like(cell.centre),
        diameter=cell.diameter / half,
        distance=distance,
        ground=torch.ones_like(cell.ground),
    )
    return relative, own


def apply_even_stain(images: Tensor, cell: CentralNucleus) -> tuple[Tensor, CentralNucleus]:
    """Scale the density of each channel so that the nucleus has one colour in all images; shape as the images."""
    import torch

    factor = torch.tensor(_NUCLEUS, device=images.device) / cell.density.clamp_min(_MIN_DENSITY)
    return _scaled(images, cell, factor[:, :, None, None]), cell


def apply_even_density(images: Tensor, cell: CentralNucleus) -> tuple[Tensor, CentralNucleus]:
    """Scale the density so that the nucleus is equally dark in all images, with its own hue; shape as the images."""
    factor = _DENSITY / cell.density.mean(1).clamp_min(_MIN_DENSITY)
    return _scaled(images, cell, factor[:, None, None, None]), cell


def _scaled(images: Tensor, cell: CentralNucleus, factor: Tensor) -> Tensor:
    density = -(images / cell.ground[:, :, None, None]).clamp_min(_DARKEST).log()
    return (-(density * factor.clamp(*_FACTOR)).clamp_max(_MAX_DENSITY)).exp().clamp_max(1)


def apply_fade(images: Tensor, cell: CentralNucleus) -> tuple[Tensor, CentralNucleus]:
    """Fade what is far from the nucleus into a white ground; shape as the images."""
    import torch.nn.functional as F

    distance = cell.distance
    if distance.shape[-2:] != images.shape[-2:]:
        distance = F.interpolate(distance, images.shape[-2:], mode="bilinear", align_corners=False)
    begin, end = _FADE
    share = ((end - distance) / (end - begin)).clamp(0, 1)
    relative = (images / cell.ground[:, :, None, None]).clamp_min(_DARKEST)
    return relative.pow(share).clamp_max(1), cell
