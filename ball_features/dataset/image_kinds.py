"""Kinds of image files that are opened, and what is said of others."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import IO, Any

__all__ = ["kind_of", "open_image"]

_FORMATS = "JPEG MPO PNG BMP DIB TIFF WEBP GIF JPEG2000 AVIF PPM TGA PCX QOI".split()
# What other files of medical images begin with: name, place, bytes.
_OTHERS = (("DICOM", 128, b"DICM"), ("Zeiss slide", 0, b"ZISRAWFILE"), ("NIfTI", 344, b"n+1"))


def open_image(file: Path | IO[bytes]) -> Any:
    """Open an image file by Pillow, without decoding it, if it is of a kind that holds pixels alone.

    Other kinds are programs for a program of this machine (PostScript), or unpacked before their size is known.

    Raises:
        PIL.UnidentifiedImageError: It is of no such kind.
        OSError: It cannot be read.
    """
    from PIL import Image

    return Image.open(file, formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    """Kinds of images that are read, by their names in Pillow, as far as this build of it has them."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def kind_of(data: bytes) -> str:
    """What is wrong with a file that Pillow does not know."""
    name = next((name for name, place, mark in _OTHERS if data[place:].startswith(mark)), "")
    if not name:
        return "is not an image, or of a kind that is not supported"
    return f"is a {name} file, a kind that is not supported; convert it to PNG or TIFF"
