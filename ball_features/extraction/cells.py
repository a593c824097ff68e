"""Cells one by one: where nuclei lie, and a picture of nothing but them.

What tells one slide from another lies mostly between the cells: background, red cells, crowding. A view can leave it
out before the network (`cells`) or after it, by averaging a feature map over nuclei only (`extraction/readouts.py`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ball_features.extraction.segmentation import nucleus_mask
from ball_features.extraction.stain import fill_mask

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CELLS", "Pictures", "cells", "find_nuclei"]

CELLS = 4  # a side of the picture; 16 in all
_CROP = 40 / 224  # side of one cell's crop, of the picture's: a blast with a rim of what is around it
_GRID_PX = 112  # centres are looked for at about this size
_SMOOTH_PX = 5  # box, three times over: about a Gaussian of 2.4 px, a nucleus being some 10 px wide there
_APART_PX = 7  # least distance of two centres, twice over, plus one
_LEAST = 0.15  # of the strongest centre


def find_nuclei(images: Tensor) -> Tensor:
    """Where nuclei lie, by a threshold that each image sets for itself, so that another stain is found as well.

    Args:
        images: float32 (batch, 3, height, width) in [0, 1], RGB.

    Returns:
        float32 (batch, 1, height, width), 1 on nuclei and 0 elsewhere.
    """
    return nucleus_mask(images, "otsu")[:, None].to(images.dtype)


class Pictures:
    """Images and what several views of them need, each computed once, when it is first asked for.

    Args:
        images: float32 (batch, 3, height, width) in [0, 1], RGB.
        mask: bool (height, width), where the collection has overlays, or None where it has none.
    """

    def __init__(self, images: Tensor, mask: Tensor | None) -> None:
        self.images, self.mask = images, mask

    @functools.cached_property
    def filled(self) -> Tensor:
        """The images without overlays, the same shape."""
        return self.images if self.mask is None else fill_mask(self.images, self.mask)

    @functools.cached_property
    def nuclei(self) -> Tensor:
        """Where nuclei lie, see `find_nuclei`: by the colours as they came; an overlay is no nucleus."""
        return find_nuclei(self.filled)


def _centres(nuclei: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The most nucleus-like places, best first, in [-1, 1]: x and y, each (batch, count).

    Where there are fewer than `count`, they take turns; where there is none, the middle stands for all.
    """
    import torch
    import torch.nn.functional as F

    side = nuclei.shape[-1]
    score = F.avg_pool2d(nuclei, max(1, side // _GRID_PX))
    for _ in range(3):
        score = F.avg_pool2d(score, _SMOOTH_PX, 1, _SMOOTH_PX // 2, count_include_pad=False)
    width = score.shape[-1]
    ruler = (torch.arange(width, device=nuclei.device, dtype=nuclei.dtype) + 0.5) * 2 / width - 1
    # Of equals the one nearer to the middle, so that the order of a flat map is the same everywhere.
    score = score - 1e-4 * (ruler[:, None].square() + ruler.square() + 0.01 * ruler)
    peak = score == F.max_pool2d(score, _APART_PX, 1, _APART_PX // 2)
    value, place = torch.where(peak, score, -1.0).flatten(1).topk(count, dim=1)  # (batch, count)
    found = (value > _LEAST * value[:, :1].clamp_min(0)).sum(1, keepdim=True).clamp_min(1)  # (batch, 1)
    turn = torch.arange(count, device=nuclei.device)[None] % found
    place = place.gather(1, turn)
    return ruler[place % width], ruler[place // width]


def cells(images: Tensor, nuclei: Tensor) -> tuple[Tensor, Tensor]:
    """The 16 most nucleus-like places, enlarged, side by side.

    Args:
        images: float32 (batch, 3, side, side).
        nuclei: float32 (batch, 1, side, side), see `find_nuclei`.

    Returns:
        images and nuclei of the same shapes, of cells alone.
    """
    import torch
    import torch.nn.functional as F

    side = images.shape[-1]
    tile = side // CELLS
    x, y = (at.clamp(-1 + _CROP, 1 - _CROP) for at in _centres(nuclei, CELLS**2))  # (batch, cells)
    ruler = ((torch.arange(tile, device=images.device, dtype=images.dtype) + 0.5) * 2 / tile - 1) * _CROP
    across = (x[:, :, None] + ruler).view(-1, CELLS, CELLS, 1, tile)  # (batch, row, column, y, x)
    down = (y[:, :, None] + ruler).view(-1, CELLS, CELLS, tile, 1)
    grid = torch.stack(torch.broadcast_tensors(across, down), -1)  # (batch, row, column, y, x, 2)
    grid = grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, CELLS * tile, CELLS * tile, 2)
    both = F.grid_sample(torch.cat([images, nuclei], 1), grid, mode="bilinear", align_corners=False)
    if side % CELLS:
        both = F.pad(both, (0, side % CELLS, 0, side % CELLS))
    return both[:, :3], both[:, 3:]
