"""Segmentation of nuclei by colour: with the published thresholds, or with a threshold computed for each image.

Ghaderzadeh et al. 2021 (doi 10.1002/int.22753) segment blasts by thresholds on hue, saturation and value: 168, 50, 50
to 182, 255, 255 in OpenCV's units (hue in half degrees). The thresholds apply to pixels whose red and blue are swapped,
as when OpenCV reads a file as B, G, R and then converts it as R, G, B. In that order they select purple (true hues of
236 to 264 degrees) and reproduce the published masks; in the true order they select nothing. OpenCV's hue ends at 179,
so 182 wraps around to 2, which matches the published masks better than stopping at 179. `benchmarks/segmentation.py`
measures each variant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ball_features.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = [
    "METHODS",
    "NUCLEI_NUMBERS",
    "apply_segmented",
    "apply_segmented_otsu",
    "clean_masks",
    "nuclei_numbers",
    "nucleus_mask",
]

_HUE = (168 - 180, 182 - 180)  # half degrees around the swapped hue of pure blue; the upper bound is exclusive
_MIN_SATURATION_VALUE = 50  # of 255
_MIN_AREA = 1 / 2000  # share of the image below which a component is no nucleus (25 px of 224 x 224)
_MIN_STAINED_SATURATION = 25  # of 255; pixels below it are background
NUCLEI_NUMBERS = ("area", "count", "mean area", "sd of area", "largest area", "share of stained area")


def _hsv(images: Tensor) -> Tensor:
    """Apply the published thresholds: float (batch, 3, height, width) in [0, 1] -> bool (batch, height, width)."""
    pixels = (images * 255).round()
    red, green, blue = pixels.unbind(1)
    top, low = pixels.amax(1), pixels.amin(1)
    spread = top - low
    # With red and blue swapped, hue is 0 where blue is the largest channel.
    hue = (30 * (green - red) / spread.clamp_min(1)).round()
    saturation = (255 * spread / top.clamp_min(1)).round()
    within = (hue >= _HUE[0]) & (hue < _HUE[1])
    return (blue == top) & within & (saturation >= _MIN_SATURATION_VALUE) & (top >= _MIN_SATURATION_VALUE)


def _otsu(images: Tensor) -> Tensor:
    """Apply Otsu's threshold (1979) to a* of CIELAB (green to magenta), in which purple nuclei stand out."""
    import torch

    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
    # First two rows of sRGB to XYZ, divided by the D65 white point (IEC 61966-2-1); a* does not use Z.
    weights = torch.tensor([[0.43395, 0.37622, 0.18983], [0.21264, 0.71517, 0.07219]], device=images.device)
    x, y = torch.einsum("ij,bjhw->ibhw", weights, linear)
    delta = 6 / 29

    def f(t: Tensor) -> Tensor:
        return torch.where(t > delta**3, t.clamp_min(1e-6) ** (1 / 3), t / (3 * delta**2) + 4 / 29)

    a = (500 * (f(x) - f(y)) + 128).clamp(0, 255).round().long()  # (batch, height, width)
    a_flat = a.flatten(1)
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    count = torch.zeros(a.shape[0], 256, dtype=wide, device=a.device)
    count = count.scatter_add(1, a_flat, torch.ones_like(a_flat, dtype=wide))  # exact in any order
    share = count.cumsum(1) / count.sum(1, keepdim=True)  # up to and including each level
    level = (count * torch.arange(256, device=a.device)).cumsum(1) / count.sum(1, keepdim=True)
    between = (level[:, -1:] * share - level) ** 2 / (share * (1 - share)).clamp_min(1e-12)
    threshold = between[:, :-1].argmax(1)
    return a > threshold[:, None, None]


METHODS: dict[str, Callable[[Tensor], Tensor]] = {"hsv": _hsv, "otsu": _otsu}


def nucleus_mask(images: Tensor, method: str = "hsv") -> Tensor:
    """Find nuclei.

    Args:
        images: RGB pixels, float (batch, 3, height, width) in [0, 1].
        method: "hsv" (the published thresholds) or "otsu" (a threshold for each image, which suits other stains).

    Returns:
        Nuclei, bool (batch, height, width).

    Raises:
        ConfigError: The method is unknown.
    """
    if method not in METHODS:
        raise ConfigError(f"Unknown method {method!r}. Valid: {', '.join(METHODS)}.")
    return METHODS[method](images.float())


def clean_masks(masks: Tensor) -> Tensor:
    """Fill holes, close gaps of one pixel and drop components smaller than 1/2000 of the image.

    Args:
        masks: nuclei, bool (batch, height, width).

    Returns:
        Cleaned masks, bool of the same shape, on the CPU.
    """
    import numpy as np
    import torch
    from scipy import ndimage

    cleaned = []
    for mask in masks.cpu().numpy():
        closed: Any = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(mask, 1)))
        closed = closed[1:-1, 1:-1] | mask
        components, areas = _components(closed)
        keep = np.concatenate([[False], areas >= _MIN_AREA * mask.size])
        cleaned.append(keep[components])
    return torch.from_numpy(np.stack(cleaned))


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The component number of each pixel (0 is background), and the area of each component in pixels."""
    import numpy as np
    from scipy import ndimage

    found: Any = ndimage.label(mask)
    components, count = found
    return components, np.bincount(components.ravel(), minlength=count + 1)[1:]


def apply_segmented(images: Tensor, parameters: Tensor) -> Tensor:
    """Set all pixels but nuclei to black, by the published thresholds: float (batch, 3, height, width), same shape."""
    return images * _hsv(images)[:, None]


def apply_segmented_otsu(images: Tensor, parameters: Tensor) -> Tensor:
    """Set all pixels but nuclei to black, by a threshold computed for each image; shape as `apply_segmented`."""
    return images * _otsu(images)[:, None]


def nuclei_numbers(images: Tensor, masks: Tensor | None = None) -> Tensor:
    """Count nuclei and measure their areas.

    Components smaller than 1/2000 of the image do not count; touching nuclei count as one.

    Args:
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].
        masks: nuclei, bool (batch, height, width); the published thresholds find them if None.

    Returns:
        The numbers that `NUCLEI_NUMBERS` names, float32 (batch, 6), on the device of `images`; areas are shares of the
        image.
    """
    import torch

    pixels = images.float()
    found = (_hsv(pixels) if masks is None else masks).cpu().numpy()
    top, low = pixels.amax(1), pixels.amin(1)
    stained = ((255 * (top - low) >= _MIN_STAINED_SATURATION * top).flatten(1).sum(1)).cpu().numpy()
    rows = []
    for mask, stained_px in zip(found, stained, strict=True):
        _, areas = _components(mask)
        areas = areas[areas >= _MIN_AREA * mask.size]
        total = areas.sum()
        shares = areas / mask.size
        spread = [shares.mean(), shares.std(), shares.max()] if len(areas) else [0.0, 0.0, 0.0]
        rows.append([total / mask.size, len(areas), *spread, total / max(stained_px, total, 1)])
    return torch.tensor(rows, dtype=torch.float32, device=images.device)
