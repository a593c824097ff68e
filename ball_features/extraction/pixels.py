"""Pixel statistics of each image, for the shortcut models, which see no backbone.

They are stored beside the embeddings, so that a table can show the accuracy that colour, or the scale bar in a corner,
reaches alone. Every function maps images float32 (batch, 3, height, width) in [0, 1] to statistics float32 (batch,
statistics) on the same device, row by row: a row does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ball_features.errors import DataError
from ball_features.extraction.segmentation import NUCLEI_NUMBERS, nuclei_numbers

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SHORTCUTS", "SHORTCUT_WIDTHS", "shortcut_numbers"]

HISTOGRAM_BINS = 32  # for each channel; only 0 and 1 of the multiples of 1/255 lie on an edge, so no value is ambiguous
CORNER_SHARE = 6  # a corner patch has 1/6 of each side: 37 of 224 px, enough for the scale bar of a microscope
CORNER_SIDE = 8  # side of the patch after area averaging: bars remain visible, single cells do not


def _colour(images: Tensor) -> Tensor:
    """Mean and population standard deviation of R, G and B: (batch, 6)."""
    import torch

    flat = images.flatten(2)  # (batch, 3, pixels); torch.var_mean takes twenty times as long
    mean = flat.mean(2, keepdim=True)
    return torch.cat([mean[..., 0], (flat - mean).square_().mean(2).sqrt()], dim=1)


def _histogram(images: Tensor) -> Tensor:
    """Share of the pixels in each bin, R first: (batch, 3 * HISTOGRAM_BINS); each channel sums to 1."""
    import torch

    batch, channels, height, width = images.shape
    bins = (images * HISTOGRAM_BINS).long().clamp_(0, HISTOGRAM_BINS - 1)  # 1.0 belongs to the last bin
    rows = torch.arange(batch * channels, device=images.device)[:, None]
    # One count over all images and channels: each has its own block of bins.
    flat = (bins.reshape(batch * channels, -1) + rows * HISTOGRAM_BINS).reshape(-1)
    counts = torch.bincount(flat, minlength=batch * channels * HISTOGRAM_BINS)
    return counts.view(batch, channels * HISTOGRAM_BINS).float() / (height * width)


def _corner(images: Tensor) -> Tensor:
    """The four corners as small images (3, CORNER_SIDE, CORNER_SIDE): (batch, 4 * 3 * CORNER_SIDE**2).

    The order is upper left, upper right, lower left, lower right.
    """
    import torch
    import torch.nn.functional as F

    height, width = images.shape[2] // CORNER_SHARE, images.shape[3] // CORNER_SHARE
    patches = [
        F.adaptive_avg_pool2d(images[:, :, rows, columns], CORNER_SIDE)  # (batch, 3, side, side)
        for rows in (slice(None, height), slice(-height, None))
        for columns in (slice(None, width), slice(-width, None))
    ]
    return torch.stack(patches, dim=1).flatten(1)


SHORTCUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "colour": _colour,
    "histogram": _histogram,
    "corner": _corner,
    "nuclei": nuclei_numbers,
}

SHORTCUT_WIDTHS: dict[str, int] = {
    "colour": 6,
    "histogram": 3 * HISTOGRAM_BINS,
    "corner": 4 * 3 * CORNER_SIDE**2,
    "nuclei": len(NUCLEI_NUMBERS),
}


def shortcut_numbers(images: Tensor, names: Sequence[str] = tuple(SHORTCUT_WIDTHS)) -> dict[str, Tensor]:
    """Compute pixel statistics of a batch of plain images.

    Args:
        images: pixels before normalisation, float32 (batch, 3, height, width) in [0, 1]; each side at least
            CORNER_SHARE px.
        names: keys of `SHORTCUTS`.

    Returns:
        Statistics by name, float32 (batch, SHORTCUT_WIDTHS[name]), on the device of the images.

    Raises:
        DataError: The images have another shape, or are too small to have corners.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < CORNER_SHARE:
        raise DataError(
            f"Got images of shape {tuple(images.shape)}, expected (batch, 3, height, width) with sides of at least "
            f"{CORNER_SHARE} px. Decode to RGB and resize before taking pixel statistics."
        )
    images = images.float()
    return {name: SHORTCUTS[name](images) for name in names}
