"""Filling of burned-in overlays, such as scale bars, with the background around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["fill_overlays"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_FILL_PX = 63  # side of the neighbourhood that supplies the background


def fill_overlays(images: Tensor, mask: Tensor) -> Tensor:
    """Fill the masked pixels of every image with the bright background around them.

    All images are filled, whether they show an overlay or not, so that the filling carries no information.

    Args:
        images: pixels, float32 (batch, 3, height, width) in [0, 1].
        mask: pixels where some image of the collection has an overlay, bool (height, width).

    Returns:
        Filled images, float32 of the same shape.
    """
    import torch

    luma = torch.tensor(_LUMA, device=images.device)[:, None, None]
    # The power gives bright pixels most of the weight: background, not a cell that the overlay may touch.
    weight = ((images * luma).sum(1, keepdim=True) ** 8 + 1e-6) * ~mask
    stacked = torch.cat([images * weight, weight], 1)
    near = _box_sum(stacked, _FILL_PX // 2)
    everywhere = stacked.sum((2, 3), keepdim=True)
    total = torch.where(near[:, 3:] > 1e-6, near, everywhere)  # the middle of a large overlay has no background nearby
    fill = total[:, :3] / total[:, 3:].clamp_min(1e-12)
    return torch.where(mask, fill.clamp(0, 1), images)


def _box_sum(x: Tensor, reach_px: int) -> Tensor:
    """Sum over the square of side 2 * reach_px + 1 around each pixel, by an integral image; shape as x."""
    import torch
    import torch.nn.functional as F

    height, width = x.shape[2:]
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # differences of large sums need it
    total = F.pad(x.to(wide).cumsum(2).cumsum(3), (1, 0, 1, 0))
    rows, columns = (torch.arange(length, device=x.device) for length in (height, width))
    top, bottom = (rows - reach_px).clamp_min(0), (rows + reach_px + 1).clamp_max(height)
    left, right = (columns - reach_px).clamp_min(0), (columns + reach_px + 1).clamp_max(width)
    band = total[:, :, bottom] - total[:, :, top]
    return (band[..., right] - band[..., left]).to(x.dtype)
