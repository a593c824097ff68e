"""Loading of images at the size of the network's input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.dataset.decode import decode_bytes, read_file
from ball_features.dataset.manifest import Manifest, spread_rows
from ball_features.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_image", "load_sample", "resize"]


def resize(image: Tensor, input_px: int) -> Tensor:
    """Resize uint8 (3, height, width) to uint8 (3, input_px, input_px), bilinear with antialiasing."""
    if tuple(image.shape[1:]) == (input_px, input_px):
        return image
    import torch
    import torch.nn.functional as F

    resized = F.interpolate(image[None].float(), (input_px, input_px), mode="bilinear", antialias=True)[0]
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def load_image(manifest: Manifest, row: int, input_px: int) -> Tensor | str:
    """Load the image of a row, and behind it its segmented twin if the manifest has twins.

    The bytes that are decoded are those that were hashed: a file that has changed since gives a reason.

    Args:
        manifest: images.
        row: row in the manifest.
        input_px: side of the network's input in pixels.

    Returns:
        Pixels, uint8 (3, input_px, input_px), or (6, input_px, input_px) with a twin; or the reason why there are none.
    """
    import torch

    def loaded(file: Path, sha256: str) -> Tensor:
        return resize(decode_bytes(read_file(file, sha256)), input_px)

    try:
        image = loaded(manifest.root / manifest.path[row], manifest.sha256[row])
    except ImageError as error:
        return str(error)
    if not manifest.twin:
        return image
    try:
        return torch.cat([image, loaded(manifest.twin[row], manifest.twin_sha256[row])])
    except ImageError as error:
        return f"its segmented twin {error}"


def load_sample(manifest: Manifest, input_px: int, count: int = 64) -> Tensor | None:
    """Load some images from all over a collection.

    Args:
        manifest: images.
        input_px: side of the network's input in pixels.
        count: number of images, or fewer where the collection is smaller or some cannot be decoded.

    Returns:
        RGB pixels, float32 (images, 3, input_px, input_px) in [0, 1]; None where none can be decoded.
    """
    import torch

    loaded = (load_image(manifest, row, input_px) for row in spread_rows(len(manifest.path), count).tolist())
    pixels = [item[:3] for item in loaded if not isinstance(item, str)]
    return torch.stack(pixels).float().div_(255) if pixels else None
