"""Detection of nuclei, and a transform that cuts out single cells.

Most of what distinguishes one slide from another lies between the cells: background, red cells, crowding. A view can
leave it out before the network (transform `cells`) or behind it, by averaging a feature map over nuclei only
(`extraction.readouts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ball_features.extraction.segmentation import nucleus_mask

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CELLS", "apply_cells", "find_nuclei"]

CELLS = 4  # cells along each side of the view; 16 in all
_CROP = 40 / 224  # side of a cell's crop as a share of the image's side: a blast and a rim around it
_GRID_PX = 112  # side of the map in which centres are searched
_SMOOTH_PX = 5  # side of a box filter, applied three times: about a Gaussian of 2.4 px; a nucleus is about 10 px wide
_APART_PX = 7  # side of the window in which a centre must be the maximum
_MIN_SCORE = 0.15  # share of the best centre's score


def find_nuclei(images: Tensor) -> Tensor:
    """Find nuclei by a threshold computed for each image, which also suits other stains.

    Args:
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].

    Returns:
        Nuclei, float32 (batch, 1, height, width): 1 on nuclei and 0 elsewhere.
    """
    return nucleus_mask(images, "otsu")[:, None].to(images.dtype)


def _centres(nuclei: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Centres of the most nucleus-like regions, best first: x and y in [-1, 1], each (batch, count).

    If an image has fewer than `count`, they repeat in turn; if it has none, all are its middle.
    """
    import torch
    import torch.nn.functional as F

    side = nuclei.shape[-1]
    score = F.avg_pool2d(nuclei, max(1, side // _GRID_PX))
    for _ in range(3):
        score = F.avg_pool2d(score, _SMOOTH_PX, 1, _SMOOTH_PX // 2, count_include_pad=False)
    width = score.shape[-1]
    ruler = (torch.arange(width, device=nuclei.device, dtype=nuclei.dtype) + 0.5) * 2 / width - 1
    # Ties go to the centre nearer to the middle, so that the order in a flat map is the same on every device.
    score = score - 1e-4 * (ruler[:, None].square() + ruler.square() + 0.01 * ruler)
    peak = score == F.max_pool2d(score, _APART_PX, 1, _APART_PX // 2)
    value, position = torch.where(peak, score, -1.0).flatten(1).topk(count, dim=1)  # (batch, count)
    found = (value > _MIN_SCORE * value[:, :1].clamp_min(0)).sum(1, keepdim=True).clamp_min(1)  # (batch, 1)
    turn = torch.arange(count, device=nuclei.device)[None] % found
    position = position.gather(1, turn)
    return ruler[position % width], ruler[position // width]


def apply_cells(images: Tensor, nuclei: Tensor) -> tuple[Tensor, Tensor]:
    """Cut out the 16 most nucleus-like regions, enlarge them and tile them.

    Args:
        images: pixels, float32 (batch, 3, side, side).
        nuclei: output of `find_nuclei`, float32 (batch, 1, side, side).

    Returns:
        Images and nuclei of the tiles, of the same shapes.
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
