"""The eight positions of a square picture: quarter turns to the left, plus 4 where it is mirrored after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["orient", "turned"]


def orient(image: np.ndarray, position: int) -> np.ndarray:
    """An array (height, width, ...) in one of the eight."""
    rotated = np.rot90(image, position % 4)
    return rotated[:, ::-1] if position >= 4 else rotated


def turned(pixels: Tensor, position: int) -> Tensor:
    """A tensor (..., height, width) in one of the eight."""
    import torch

    rotated = torch.rot90(pixels, position % 4, (-2, -1))
    return rotated.flip(-1) if position >= 4 else rotated
