"""The eight orientations of a square picture: 0 to 3 quarter turns to the left, plus 4 if mirrored afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["orient", "turned"]


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (height, width, ...)."""
    rotated = np.rot90(image, orientation % 4)
    return rotated[:, ::-1] if orientation >= 4 else rotated


def turned(pixels: Tensor, orientation: int) -> Tensor:
    """Turn a tensor (..., height, width)."""
    import torch

    rotated = torch.rot90(pixels, orientation % 4, (-2, -1))
    return rotated.flip(-1) if orientation >= 4 else rotated
