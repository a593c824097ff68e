"""The overlay mask of a collection: learnt once, kept as text in the cache, unpacked where views need it."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ball_features.dataset.manifest import Manifest, spread_rows
from ball_features.extraction.loading import load_image

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["learn_overlay_mask", "mask_tensor", "pack_mask", "unpack_mask"]

SAMPLE_IMAGES = 4000  # of a larger collection, overlays are learnt on a sample of this size


def learn_overlay_mask(manifest: Manifest, input_px: int, log: Callable[[str], None]) -> np.ndarray:
    """Find the pixels that overlays of a collection cover.

    Args:
        manifest: images; a sample spread over them is read.
        input_px: side of the network's input in pixels.
        log: function that takes a line for the user.

    Returns:
        Mask, bool (input_px, input_px).
    """
    from ball_features.audit.overlays import learn_overlays

    rows = spread_rows(len(manifest.path), SAMPLE_IMAGES)

    def read() -> Iterator[np.ndarray]:
        loaded = (load_image(manifest, row, input_px) for row in rows.tolist())
        yield from (item[:3].permute(1, 2, 0).numpy() for item in loaded if not isinstance(item, str))

    model = learn_overlays(read)
    mask = model.mask()
    found = f"{len(model.names)} kinds, covering {100 * mask.mean():.1f} % of the image" if mask.any() else "none"
    log(f"Overlays in these images: {found}.")
    return mask


def pack_mask(mask: np.ndarray) -> str:
    """Write a square mask, bool (side, side), as text for an attribute."""
    return f"{len(mask)}:{base64.b64encode(np.packbits(mask).tobytes()).decode()}"


def unpack_mask(text: str) -> np.ndarray | None:
    """Read the text of `pack_mask`: the mask, bool (side, side), or None if it covers nothing."""
    side, _, packed = text.partition(":")
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8), count=int(side) ** 2)
    return bits.astype(bool).reshape(int(side), int(side)) if bits.any() else None


@functools.lru_cache(8)
def mask_tensor(text: str, device: str) -> Tensor | None:
    """The mask of a packed text on a device, bool (side, side); None for "" and for a mask that covers nothing.

    It is cached, since a copy to a GPU would wait for the batches before it.
    """
    import torch

    mask = unpack_mask(text) if text else None
    return None if mask is None else torch.from_numpy(mask).to(device)
