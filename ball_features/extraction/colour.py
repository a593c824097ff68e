"""Colour transforms of views: grey, one stain alone, stain variation, stain normalisation.

Each public function but the draw maps images float32 (batch, 3, height, width) in [0, 1] and parameters float32
(batch, parameters) to images of the same shape, row by row, on any device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["apply_grey", "apply_haematoxylin", "apply_reinhard", "apply_stain", "draw_stain"]

# Optical density of haematoxylin, eosin and DAB in R, G, B (Ruifrok and Johnston 2001, table 1), normalised.
_STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
_MIN_INTENSITY = 1 / 255
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# Reinhard et al. 2001: R, G, B to cones (eq. 4), and logarithmic cones to decorrelated axes (eq. 6).
_CONES = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_AXES = ((1.0, 1.0, 1.0), (1.0, 1.0, -2.0), (1.0, -1.0, 0.0))
# Mean and standard deviation of the axes l, alpha, beta of a drawn, well-exposed smear.
_REFERENCE = ((-0.35, 0.03, 0.01), (0.22, 0.04, 0.015))


def _density(images: Tensor) -> Tensor:
    """Optical density of each channel."""
    return -images.clamp_min(_MIN_INTENSITY).log()


def _mix(images: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the row vector (3,) of each pixel by a matrix (3, 3)."""
    return (images.permute(0, 2, 3, 1) @ matrix).permute(0, 3, 1, 2)


def _unit_rows(rows: tuple[tuple[float, ...], ...]) -> np.ndarray:
    import numpy as np

    matrix = np.array(rows)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _matrix(values: np.ndarray, images: Tensor) -> Tensor:
    import torch

    return torch.tensor(values.tolist(), device=images.device)


def _standardised(plane: Tensor) -> Tensor:
    """Scale each plane (batch, 1, height, width) to mean 0.5 and standard deviation 0.2; repeat it for 3 channels."""
    import torch

    # Subtracting the first pixel makes a constant plane exactly zero. Otherwise the rounding error of its mean, divided
    # by a standard deviation near zero, would show as brightness.
    plane = plane - plane[:, :, :1, :1]
    variance, mean = torch.var_mean(plane, dim=(2, 3), keepdim=True, correction=0)
    return (0.5 + 0.2 * (plane - mean) / (variance.sqrt() + 1e-4)).clamp(0, 1).expand(-1, 3, -1, -1)


def apply_grey(images: Tensor, parameters: Tensor) -> Tensor:
    """Convert to luma (ITU-R BT.601), standardised in each image."""
    import torch

    luma = torch.tensor(_LUMA, device=images.device)[:, None, None]
    return _standardised((images * luma).sum(1, keepdim=True))


def apply_haematoxylin(images: Tensor, parameters: Tensor) -> Tensor:
    """Extract haematoxylin by colour deconvolution (Ruifrok and Johnston 2001), standardised in each image.

    Pixels with much stain are dark, as in the smear itself.
    """
    import numpy as np

    amount = _mix(_density(images), _matrix(np.linalg.inv(_unit_rows(_STAINS)), images))[:, :1]
    return _standardised(-amount)


def draw_stain(rng: np.random.Generator) -> np.ndarray:
    """Draw a factor and an offset for each of three stains, float64 (6,).

    Source: Tellez et al. 2018, doi 10.1109/TMI.2018.2820199, eq. 3.
    """
    import numpy as np

    return np.concatenate([rng.uniform(0.75, 1.25, 3), rng.uniform(-0.05, 0.05, 3)])


def apply_stain(images: Tensor, parameters: Tensor) -> Tensor:
    """Scale and shift the optical density of each stain."""
    import numpy as np
    import torch

    stains = _unit_rows(_STAINS)
    amount = _mix(_density(images), _matrix(np.linalg.inv(stains), images))
    amount = amount * parameters[:, :3, None, None] + parameters[:, 3:, None, None]
    return torch.exp(-_mix(amount, _matrix(stains, images))).clamp(0, 1)


def apply_reinhard(images: Tensor, parameters: Tensor) -> Tensor:
    """Match mean and standard deviation of l, alpha and beta to a reference (Reinhard et al. 2001, section 3)."""
    import numpy as np
    import torch

    cones, axes = np.array(_CONES).T, _unit_rows(_AXES).T
    lab = _mix(_mix(images, _matrix(cones, images)).clamp_min(_MIN_INTENSITY).log10(), _matrix(axes, images))
    variance, mean = torch.var_mean(lab, dim=(2, 3), keepdim=True, correction=0)
    target, spread = (torch.tensor(row, device=images.device)[:, None, None] for row in _REFERENCE)
    lab = (lab - mean) / (variance.sqrt() + 1e-4) * spread + target
    return _mix(10 ** _mix(lab, _matrix(axes.T, images)), _matrix(np.linalg.inv(cones), images)).clamp(0, 1)
