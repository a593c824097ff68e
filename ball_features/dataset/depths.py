"""What Pillow leaves to its callers in images that do not have 8 bits for each value."""

from __future__ import annotations

from typing import Any

import numpy as np

from ball_features.errors import ImageError

__all__ = ["deep_grey", "prepare"]

_BITS, _PHOTOMETRIC, _PLANAR, _FORMAT = 258, 262, 284, 339  # tags of TIFF files


def prepare(image: Any) -> bool:
    """Look at an image before it is decoded, and correct what Pillow notes of it.

    Returns:
        Whether 0 stands for white in grey of more than 8 bits (TIFF).

    Raises:
        ImageError: Pillow would read other pixels than the file holds.
    """
    tags, clear = getattr(image, "tag_v2", {}), image.info.get("transparency")
    raw = str(image.tile[0][3]) if image.tile else ""
    if isinstance(clear, tuple) and "16" in raw:
        raise ImageError("has a transparent colour of 16 bits, which is read in 8; save it in 8 bits")
    if isinstance(clear, int) and raw in ("L;2", "L;4"):  # a value of so many bits, as the pixels have them in the file
        image.info["transparency"] = clear * 255 // (2 ** int(raw[2:]) - 1)
    bits, raw_bytes = max(tags.get(_BITS, ()), default=8), any(part[0] == "raw" for part in image.tile)
    if 2 in tags.get(_FORMAT, ()) and bits <= 8:
        raise ImageError("has signed values of 8 bits, which are read as unsigned; save it without a sign")
    if tags.get(_PLANAR) == 2 and bits > 8 and raw_bytes:
        raise ImageError("keeps colours of more than 8 bits apart, a kind that is not supported; save it as PNG")
    return tags.get(_PHOTOMETRIC) == 0


def deep_grey(image: Any, is_white_0: bool) -> Any:
    """Grey of more than 8 bits as an image of 8; what Pillow does for that of 8 bits alone is done here.

    Args:
        image: the image, in which one value may stand for transparent pixels (PNG).
        is_white_0: whether 0 stands for white (TIFF).

    Raises:
        ImageError: Values are out of range.
    """
    from PIL import Image

    values = np.asarray(image)
    grey = _eight_bits_of_floats(values) if image.mode == "F" else _eight_bits(values.astype(np.int64))
    found = Image.fromarray(255 - grey if is_white_0 else grey)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        found.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return found


def _eight_bits_of_floats(values: np.ndarray) -> np.ndarray:
    if not (np.isfinite(values).all() and 0 <= values.min() and values.max() <= 1):
        raise ImageError("has floating-point pixels outside 0 to 1; save it in 8 or 16 bits")
    return np.round(values * 255).astype(np.uint8)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """16-bit grey to 8 bits by the full range, so that two files stay comparable."""
    if values.min() < 0 or values.max() > 65535:
        raise ImageError("has grey values outside 0 to 65535; save it in 8 or 16 bits")
    return np.round(values / 257).astype(np.uint8)
