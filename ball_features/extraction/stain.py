"""Views against colour and overlays: what a stain, an exposure or a burned-in scale bar tells of the slide.

Every function maps float32 (batch, 3, height, width) in [0, 1] to the same shape, row by row, on any device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["apply_stain", "draw_stain", "fill_mask", "grey", "haematoxylin", "reinhard"]

# Optical density of haematoxylin, eosin and DAB in R, G, B (Ruifrok and Johnston 2001, table 1), normalised.
_STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
_LEAST = 1 / 255
_LUMA = (0.299, 0.587, 0.114)
_FILL_PX = 63  # side of the neighbourhood that background is taken from
# Reinhard et al. 2001: R, G, B to cones (eq. 4), and logarithmic cones to decorrelated axes (eq. 6).
_CONES = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_AXES = ((1.0, 1.0, 1.0), (1.0, 1.0, -2.0), (1.0, -1.0, 0.0))
# Mean and standard deviation of the axes l, alpha, beta of a drawn, well-exposed smear.
_REFERENCE = ((-0.35, 0.03, 0.01), (0.22, 0.04, 0.015))


def _density(images: Tensor) -> Tensor:
    return -images.clamp_min(_LEAST).log()


def _mix(images: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel's (3,) row vector times matrix (3, 3)."""
    return (images.permute(0, 2, 3, 1) @ matrix).permute(0, 3, 1, 2)


def _unit_rows(rows: tuple[tuple[float, ...], ...]) -> np.ndarray:
    matrix = np.array(rows)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _matrix(values: np.ndarray, images: Tensor) -> Tensor:
    import torch

    return torch.tensor(values.tolist(), device=images.device)


def _standardised(plane: Tensor) -> Tensor:
    """(batch, 1, height, width) with mean 0.5 and a standard deviation of 0.2, three times over."""
    import torch

    # From its first pixel on: of a flat picture (no nucleus found) nothing is left, where the rounding of its mean,
    # divided by next to no deviation, would be brightness.
    plane = plane - plane[:, :, :1, :1]
    variance, mean = torch.var_mean(plane, dim=(2, 3), keepdim=True, correction=0)
    return (0.5 + 0.2 * (plane - mean) / (variance.sqrt() + 1e-4)).clamp(0, 1).expand(-1, 3, -1, -1)


def grey(images: Tensor, parameters: Tensor) -> Tensor:
    """Luma (ITU-R BT.601), standardised in each image."""
    import torch

    luma = torch.tensor(_LUMA, device=images.device)[:, None, None]
    return _standardised((images * luma).sum(1, keepdim=True))


def haematoxylin(images: Tensor, parameters: Tensor) -> Tensor:
    """Amount of the nuclear stain by colour deconvolution (Ruifrok and Johnston 2001), standardised in each image.

    Dark where there is much of it, as in a smear.
    """
    amount = _mix(_density(images), _matrix(np.linalg.inv(_unit_rows(_STAINS)), images))[:, :1]
    return _standardised(-amount)


def draw_stain(rng: np.random.Generator) -> np.ndarray:
    """Factor and offset of each of three stains (Tellez et al. 2018, doi 10.1109/TMI.2018.2820199, eq. 3)."""
    return np.concatenate([rng.uniform(0.75, 1.25, 3), rng.uniform(-0.05, 0.05, 3)])


def apply_stain(images: Tensor, parameters: Tensor) -> Tensor:
    """Each stain made thicker or thinner in optical density."""
    import torch

    stains = _unit_rows(_STAINS)
    amount = _mix(_density(images), _matrix(np.linalg.inv(stains), images))
    amount = amount * parameters[:, :3, None, None] + parameters[:, 3:, None, None]
    return torch.exp(-_mix(amount, _matrix(stains, images))).clamp(0, 1)


def reinhard(images: Tensor, parameters: Tensor) -> Tensor:
    """Mean and standard deviation of l, alpha and beta as in a reference (Reinhard et al. 2001, section 3)."""
    import torch

    cones, axes = np.array(_CONES).T, _unit_rows(_AXES).T
    lab = _mix(_mix(images, _matrix(cones, images)).clamp_min(_LEAST).log10(), _matrix(axes, images))
    variance, mean = torch.var_mean(lab, dim=(2, 3), keepdim=True, correction=0)
    target, spread = (torch.tensor(row, device=images.device)[:, None, None] for row in _REFERENCE)
    lab = (lab - mean) / (variance.sqrt() + 1e-4) * spread + target
    return _mix(10 ** _mix(lab, _matrix(axes.T, images)), _matrix(np.linalg.inv(cones), images)).clamp(0, 1)


def fill_mask(images: Tensor, mask: Tensor) -> Tensor:
    """Fill the masked places of every image with the bright background around them.

    All images are filled alike, whether they show an overlay or not, so that the filling tells nothing.

    Args:
        images: float32 (batch, 3, height, width) in [0, 1].
        mask: bool (height, width), True where some image of the collection has an overlay.
    """
    import torch

    luma = torch.tensor(_LUMA, device=images.device)[:, None, None]
    # Powers favour what is bright: background, not the cell that an overlay may touch.
    weight = ((images * luma).sum(1, keepdim=True) ** 8 + 1e-6) * ~mask
    stacked = torch.cat([images * weight, weight], 1)
    near = _box_sum(stacked, _FILL_PX // 2)
    everywhere = stacked.sum((2, 3), keepdim=True)
    total = torch.where(near[:, 3:] > 1e-6, near, everywhere)  # the middle of a large overlay sees nothing near
    fill = total[:, :3] / total[:, 3:].clamp_min(1e-12)
    return torch.where(mask, fill.clamp(0, 1), images)


def _box_sum(x: Tensor, reach_px: int) -> Tensor:
    """Sum over a square of 2 * reach_px + 1 around each pixel, by an integral image; shape as x."""
    import torch
    import torch.nn.functional as F

    height, width = x.shape[2:]
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # differences of large sums
    total = F.pad(x.to(wide).cumsum(2).cumsum(3), (1, 0, 1, 0))
    rows, columns = (torch.arange(length, device=x.device) for length in (height, width))
    top, bottom = (rows - reach_px).clamp_min(0), (rows + reach_px + 1).clamp_max(height)
    left, right = (columns - reach_px).clamp_min(0), (columns + reach_px + 1).clamp_max(width)
    band = total[:, :, bottom] - total[:, :, top]
    return (band[..., right] - band[..., left]).to(x.dtype)
