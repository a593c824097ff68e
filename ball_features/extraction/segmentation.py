"""Nuclei by colour: the published thresholds, and one that each image sets for itself.

Ghaderzadeh et al. 2021 (doi 10.1002/int.22753) segment blasts by thresholds on hue, saturation and value: 168, 50, 50
to 182, 255, 255 in OpenCV's units (hue in half degrees). They belong to pixels whose red and blue are exchanged, as
when OpenCV reads a file in the order B, G, R and then converts it as R, G, B. Read so they find purple, true hues of
236 to 264 degrees, and the published masks; read in the true order they find nothing. Hue ends at 179, so 182 is read
as going round to 2, which comes closer to the published masks than stopping at 179. `benchmarks/segmentation.py`
measures each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "METHODS",
    "NUCLEI_NUMBERS",
    "clean_masks",
    "nuclei_numbers",
    "nucleus_mask",
    "segmented",
    "segmented_otsu",
]

_HUE = (168 - 180, 182 - 180)  # half degrees round the exchanged hue of pure blue; the upper one is exclusive
_LEAST = 50  # of saturation and value, of 255
_SPECK = 1 / 2000  # of the picture: a component smaller than this is no nucleus (25 of 224 x 224 px)
_STAINED = 25  # least saturation, of 255, of what is not background
NUCLEI_NUMBERS = ("area", "count", "mean area", "sd of area", "largest area", "share of stained area")


def _hsv(images: Tensor) -> Tensor:
    """The published thresholds: float (batch, 3, height, width) in [0, 1] -> bool (batch, height, width)."""
    pixels = (images * 255).round()
    red, green, blue = pixels.unbind(1)
    top, low = pixels.amax(1), pixels.amin(1)
    spread = top - low
    # Of the exchanged picture: blue takes red's place, so its hue is 0 where blue is the greatest.
    hue = (30 * (green - red) / spread.clamp_min(1)).round()
    saturation = (255 * spread / top.clamp_min(1)).round()
    within = (hue >= _HUE[0]) & (hue < _HUE[1])
    return (blue == top) & within & (saturation >= _LEAST) & (top >= _LEAST)


def _otsu(images: Tensor) -> Tensor:
    """Otsu's threshold (1979) on a* of CIELAB, green against magenta, which nuclei of any purple stain stand out in."""
    import torch

    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    # First two rows of sRGB to XYZ over the white of D65 (IEC 61966-2-1); a* does not use Z.
    weights = torch.tensor([[0.43395, 0.37622, 0.18983], [0.21264, 0.71517, 0.07219]], device=images.device)
    x, y = torch.einsum("ij,bjhw->ibhw", weights, linear)
    delta = 6 / 29

    def f(t: Tensor) -> Tensor:
        return torch.where(t > delta**3, t.clamp_min(1e-6) ** (1 / 3), t / (3 * delta**2) + 4 / 29)

    a = (500 * (f(x) - f(y)) + 128).clamp(0, 255).round().long()  # (batch, height, width)
    a_flat = a.flatten(1)
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    count = torch.zeros(a.shape[0], 256, dtype=wide, device=a.device)  # len() would freeze the batch of a graph
    count = count.scatter_add(1, a_flat, torch.ones_like(a_flat, dtype=wide))  # exact, in any order
    share = count.cumsum(1) / count.sum(1, keepdim=True)  # up to and with each level
    level = (count * torch.arange(256, device=a.device)).cumsum(1) / count.sum(1, keepdim=True)
    between = (level[:, -1:] * share - level) ** 2 / (share * (1 - share)).clamp_min(1e-12)
    threshold = between[:, :-1].argmax(1)
    return a > threshold[:, None, None]


METHODS: dict[str, Callable[[Tensor], Tensor]] = {"hsv": _hsv, "otsu": _otsu}


def nucleus_mask(images: Tensor, method: str = "hsv") -> Tensor:
    """Where nuclei are.

    Args:
        images: float (batch, 3, height, width) in [0, 1], RGB.
        method: "hsv" (the published thresholds) or "otsu" (a threshold an image, for another stain).

    Returns:
        bool (batch, height, width).

    Raises:
        ConfigError: Another method.
    """
    if method not in METHODS:
        raise ConfigError(f"Unknown method {method!r}. Valid: {', '.join(METHODS)}.")
    return METHODS[method](images.float())


def clean_masks(masks: Tensor) -> Tensor:
    """Fill holes, close gaps of a pixel, drop specks smaller than a two-thousandth of the picture.

    Args:
        masks: bool (batch, height, width).

    Returns:
        bool, the same shape, on the CPU.
    """
    import torch
    from scipy import ndimage

    cleaned = []
    for mask in masks.cpu().numpy():
        closed: Any = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(mask, 1)))
        closed = closed[1:-1, 1:-1] | mask
        components, areas = _components(closed)
        keep = np.concatenate([[False], areas >= _SPECK * mask.size])
        cleaned.append(keep[components])
    return torch.from_numpy(np.stack(cleaned))


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the component of each pixel, 0 outside, and the area of each in pixels."""
    from scipy import ndimage

    found: Any = ndimage.label(mask)
    components, count = found
    return components, np.bincount(components.ravel(), minlength=count + 1)[1:]


def segmented(images: Tensor, parameters: Tensor) -> Tensor:
    """Black but for the nuclei, by the published thresholds: float (batch, 3, height, width), the same shape."""
    return images * _hsv(images)[:, None]


def segmented_otsu(images: Tensor, parameters: Tensor) -> Tensor:
    """Black but for the nuclei, by a threshold that each image sets for itself; shape as `segmented`."""
    return images * _otsu(images)[:, None]


def nuclei_numbers(images: Tensor, masks: Tensor | None = None) -> Tensor:
    """How much of an image is nucleus, in how many pieces: `NUCLEI_NUMBERS`, areas as shares of the picture.

    Specks do not count, touching nuclei count as one.

    Args:
        images: float32 (batch, 3, height, width) in [0, 1], RGB.
        masks: bool (batch, height, width); by the published thresholds if None.

    Returns:
        float32 (batch, 6), on the images' device.
    """
    import torch

    pixels = images.float()
    found = (_hsv(pixels) if masks is None else masks).cpu().numpy()
    top, low = pixels.amax(1), pixels.amin(1)
    stained = ((255 * (top - low) >= _STAINED * top).flatten(1).sum(1)).cpu().numpy()
    rows = []
    for mask, around in zip(found, stained, strict=True):
        _, areas = _components(mask)
        areas = areas[areas >= _SPECK * mask.size]
        total = areas.sum()
        shares = areas / mask.size
        spread = [shares.mean(), shares.std(), shares.max()] if len(areas) else [0.0, 0.0, 0.0]
        rows.append([total / mask.size, len(areas), *spread, total / max(around, total, 1)])
    return torch.tensor(rows, dtype=torch.float32, device=images.device)
