"""Detection of the nucleus in the middle of a single-cell image.

The nucleus is where the density of red light is high: nuclear stains absorb red, red cells and the granules of
eosinophils hardly do. Otsu's threshold (1979), with pixels weighted towards the middle, separates it from the rest;
lobes close to the main component belong to it. The mean width of its convex hull is the unit of scale: a crop in that
unit has the same content at every magnification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["CentralNucleus", "find_central_nucleus", "optical_density", "single_cell_share"]

GRID_PX = 112  # side of the map in which the nucleus is searched
_LEVELS = 128  # of the histogram of densities
_MAX_DENSITY = 2.5  # densities above it count as it
_SIGMA = 0.5  # of the weight towards the middle, in half sides
_GROUND = (0.85, 0.995)  # quantiles of brightness between which pixels are ground
_DIRECTIONS = 16  # in which the width of the hull is measured
_LOBE_AREA = 0.06  # of the main component's area: smaller components are no lobes
_LOBE_GAP = 0.8  # of the main component's radius: components farther away belong to another cell
_LOBE_SCORE = 0.08  # of the main component's score
_MIN_CONTRAST = 0.7  # share of the variance of the densities that the threshold explains
_MIN_AREA = 0.01  # of the picture's area
_MAX_AREA = 0.6
_MIN_DOMINANCE = 0.9  # share of the weighted density above the threshold that belongs to the nucleus
_MIN_COLOUR = 0.15  # spread of the three densities of a stained nucleus; it is 0 in a grey image
_BLACK = 0.08  # pixels darker than this in all channels are a border or an aperture, not a nucleus
_OFF_CENTRE = 0.6  # largest distance from the middle, in half sides


@dataclass(frozen=True, eq=False)
class CentralNucleus:
    """The central nucleus of each image of a batch.

    Attributes:
        found: whether a dominant stained nucleus is there, bool (batch,). The other attributes are finite either way.
        centre: centre of the hull, x and y in [-1, 1], float32 (batch, 2).
        diameter: mean width of the hull in units of half the side, float32 (batch,).
        distance: distance of each pixel from the nucleus in diameters, 0 on it, float32 (batch, 1, GRID_PX, GRID_PX).
        ground: colour of the ground, float32 (batch, 3).
        density: mean optical density of the nucleus relative to the ground, float32 (batch, 3).
    """

    found: Tensor
    centre: Tensor
    diameter: Tensor
    distance: Tensor
    ground: Tensor
    density: Tensor


def optical_density(images: Tensor, ground: Tensor) -> Tensor:
    """Return the optical density relative to the ground (Ruifrok and Johnston 2001), natural logarithm.

    Args:
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].
        ground: colour of the ground, float32 (batch, 3).
    """
    return -(images.clamp_min(1 / 255) / ground[:, :, None, None]).log()


def find_central_nucleus(images: Tensor) -> CentralNucleus:
    """Find the nucleus in the middle of each image.

    Args:
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    device = images.device
    small = F.adaptive_avg_pool2d(images.float(), (GRID_PX, GRID_PX)).cpu()
    ground = _ground(small)
    density = optical_density(small, ground).clamp(0, _MAX_DENSITY)
    seen = small.amax(1) >= _BLACK  # (batch, GRID_PX, GRID_PX)
    red = F.avg_pool2d(density[:, :1], 3, 1, 1, count_include_pad=False)[:, 0] * seen
    weight = _centre_weight()
    threshold, contrast = _otsu(red.flatten(1), (weight * seen).flatten(1) + 1e-9)
    rows = []
    for own, plane, limit in zip(density.numpy(), red.numpy(), threshold.tolist(), strict=True):
        rows.append(_measure(own, plane, limit, weight.numpy()))
    distance, centre, diameter, colour, dominance, area = (np.stack(part) for part in zip(*rows, strict=True))
    found = (
        (contrast.numpy() >= _MIN_CONTRAST)
        & (area >= _MIN_AREA)
        & (area <= _MAX_AREA)
        & (dominance >= _MIN_DOMINANCE)
        & (colour.max(1) - colour.min(1) >= _MIN_COLOUR)
        & (np.abs(centre).max(1) <= _OFF_CENTRE)
    )

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(device)

    return CentralNucleus(
        torch.from_numpy(found).to(device),
        tensor(centre),
        tensor(diameter),
        tensor(distance)[:, None],
        ground.to(device),
        tensor(colour),
    )


def _ground(small: Tensor) -> Tensor:
    """Mean colour of the bright pixels, float32 (batch, 3)."""
    import torch
    import torch.nn.functional as F

    flat = F.avg_pool2d(small, 2).flatten(2)
    brightness = flat.mean(1)
    low, high = torch.quantile(brightness, torch.tensor(_GROUND), dim=1)[:, :, None]
    weight = ((brightness >= low) & (brightness <= high)).float()[:, None]
    return ((flat * weight).sum(2) / weight.sum(2).clamp_min(1)).clamp_min(0.05)


def _centre_weight() -> Tensor:
    import torch

    ruler = (torch.arange(GRID_PX) + 0.5) * 2 / GRID_PX - 1
    return torch.exp(-0.5 * (ruler[:, None].square() + ruler.square()) / _SIGMA**2)


def _otsu(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Otsu's threshold of values (batch, pixels) with weights, and the share of the variance that it explains."""
    import torch

    level = (values * (_LEVELS / _MAX_DENSITY)).long().clamp(0, _LEVELS - 1)
    count = torch.zeros(len(values), _LEVELS, dtype=torch.float64)
    count.scatter_add_(1, level, weight.double())
    count /= count.sum(1, keepdim=True)
    middle = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) * (_MAX_DENSITY / _LEVELS)
    share, moment = count.cumsum(1), (count * middle).cumsum(1)
    between = (moment[:, -1:] * share - moment) ** 2 / (share * (1 - share)).clamp_min(1e-9)
    best, index = between[:, :-1].max(1)
    variance = (count * middle.square()).sum(1) - moment[:, -1].square()
    return (index.float() + 1) * (_MAX_DENSITY / _LEVELS), best / variance.clamp_min(1e-9)


def _measure(
    density: np.ndarray, red: np.ndarray, threshold: float, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, float, float]:
    """Distance map, centre, diameter, density, dominance, area of one nucleus; the middle if there is none."""
    import numpy as np
    from scipy import ndimage

    above = red > threshold
    labelled: Any = ndimage.label(above)
    components, count = labelled
    if not count:
        return np.zeros_like(red), np.zeros(2), 1.0, np.full(3, 0.5), 0.0, 0.0
    numbers = np.arange(1, count + 1)
    area = ndimage.sum_labels(above, components, numbers)
    mass = ndimage.sum_labels(weight * red, components, numbers)
    score = ndimage.sum_labels(weight * (red - threshold / 2), components, numbers)
    main = int(score.argmax())
    gap = ndimage.minimum(ndimage.distance_transform_edt(components != main + 1), components, numbers)
    lobe = (area >= _LOBE_AREA * area[main]) & (score >= _LOBE_SCORE * score[main])
    lobe &= gap <= _LOBE_GAP * math.sqrt(area[main] / math.pi)
    lobe[main] = True
    mask = np.concatenate([[False], lobe])[components]
    y, x = np.nonzero(mask)
    angle = np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS
    cos, sin = np.cos(angle), np.sin(angle)
    along = x[:, None] * cos + y[:, None] * sin  # (pixels, directions)
    low, high = along.min(0), along.max(0)
    middle = (low + high) / 2
    # The mean over directions of the middle's projection gives the centre back: cos^2 has the mean 1/2.
    centre = 2 * np.array([(middle * cos).mean(), (middle * sin).mean()])
    diameter = float((high - low + 1).mean()) * 2 / GRID_PX
    filled: Any = ndimage.binary_fill_holes(mask)
    away: Any = ndimage.distance_transform_edt(~filled)
    return (
        away / (diameter * GRID_PX / 2),
        (centre + 0.5) * 2 / GRID_PX - 1,
        diameter,
        density[:, mask].mean(1),
        float(mass[lobe].sum() / mass.sum()),
        float(mask.mean()),
    )


def single_cell_share(images: Tensor) -> float:
    """Return the share of images with a dominant stained nucleus in the middle.

    Args:
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].
    """
    return float(find_central_nucleus(images).found.float().mean())
