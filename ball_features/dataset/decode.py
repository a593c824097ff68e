"""One image file to upright RGB."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import io
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.dataset.depths import deep_grey, prepare
from ball_features.dataset.image_kinds import kind_of, open_image
from ball_features.dataset.jpeg import decode_jpegs, is_plain_jpeg, require_bounded_work
from ball_features.dataset.tags import TOO_MANY_TAGS, claims_too_much
from ball_features.errors import ImageError
from ball_features.threads import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE_PX",
    "NO_MEMORY",
    "decode",
    "decode_bytes",
    "may_pass",
    "opened",
    "plain_jpeg",
    "read_file",
    "read_plain_jpeg",
]

# A smear of 100 megapixels, uncompressed in 16 bits, is 600 MB; larger files are whole slides.
MAX_BYTES = 600_000_000
CHANGED = "changed while it was read; run the command again"
NO_MEMORY = "cannot be read (not enough memory)"

MAX_PIXELS = 100_000_000
MIN_SIDE_PX = 8
_IDLE_BYTES = 100  # after the pixels of a JPEG file
_TILE_WIDTH = 322  # tag of TIFF files
_PNG = b"\x89PNG\r\n\x1a\n"


def decode(path: Path | str) -> Tensor:
    """Decode a JPEG, PNG, BMP or TIFF file.

    Args:
        path: image file.

    Returns:
        uint8 (3, height, width), RGB, turned upright by its EXIF orientation. Transparent pixels are laid on white
        unless all are transparent, 16-bit values are scaled by their full range, and the first of several frames is
        taken.

    Raises:
        ImageError: The file is missing, no image, truncated or too large; the message is the bare reason.
    """
    return decode_bytes(read_file(path))


def may_pass(reason: str) -> bool:
    """Whether a reason for rejecting an image may pass, so that it is tried again and never remembered.

    A decoder for a kind that is not supported may be installed one day.
    """
    passing = ("cannot be read", "changed while", "its segmented twin", "is no regular file")
    return reason.startswith(passing) or "kind that is not supported" in reason


def decode_bytes(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode an image file's content of at most so many pixels; see `decode`."""
    try:
        return _decode(data, max_pixels)
    except ImageError:
        bare = _bare_png(data)
        if bare is None:
            raise
        return _decode(bare, max_pixels)


def _decode(data: bytes, max_pixels: int) -> Tensor:
    import torch  # noqa: F401  (here, where it is no fault of the image if memory is too short for it)

    with opened(data, max_pixels) as (image, is_plain):
        decoded = decode_jpegs([data]) if is_plain else None
        return decoded[0] if decoded else _to_rgb(image)  # of a damaged file Pillow says what is wrong with it


def _bare_png(data: bytes) -> bytes | None:
    """A PNG file without texts and profiles, which may be odd while its pixels are sound; None for other files."""
    if not data.startswith(_PNG):
        return None
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            kept.append(data[place:end])
        place = end
    bare = b"".join(kept)
    return bare if bare != data else None


def read_plain_jpeg(path: Path | str) -> bytes | None:
    """The bytes of a JPEG file that another decoder (a GPU's) may decode; None for any other image.

    See `is_plain_jpeg`.

    Raises:
        ImageError: The file cannot be read, or its header is damaged or too large.
    """
    return plain_jpeg(read_file(path))


def plain_jpeg(data: bytes) -> bytes | None:
    """The bytes if they are a JPEG file that another decoder may decode; see `read_plain_jpeg`.

    Raises:
        ImageError: The header is damaged or too large.
    """
    with opened(data) as (_, is_plain):
        return data if is_plain else None


def read_file(path: Path | str, sha256: str = "") -> bytes:
    """Read an image file whole.

    Args:
        path: image file.
        sha256: content hash that it had before; "" for any.

    Raises:
        ImageError: The file is none (a pipe, a device), too large, cannot be read, or has another hash.
    """
    path = Path(path) if isinstance(path, str) else path
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is no regular file")
        if status.st_size > MAX_BYTES:
            megabytes = status.st_size / 1e6
            raise ImageError(f"has {megabytes:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; cut it into fields")
        data = path.read_bytes()
        if len(data) > MAX_BYTES:  # a store that does not say how large a file is
            raise ImageError(f"has more than {MAX_BYTES / 1e6:.0f} MB; cut it into fields")
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error
    except MemoryError as error:
        raise ImageError(NO_MEMORY) from error
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise ImageError(CHANGED)
    return data


@contextlib.contextmanager
def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Any, bool]]:
    """Open the content of an image file of at most so many pixels; Pillow's errors come as `ImageError`.

    Yields:
        Pillow's image, not decoded yet, and whether another decoder may decode it.
    """
    from PIL import Image

    if not data:
        raise ImageError("is empty (0 bytes)")
    require_bounded_work(data)
    if claims_too_much(data):
        raise ImageError(TOO_MANY_TAGS)
    try:
        with open_image(io.BytesIO(data)) as image:
            width, height = image.size
            _check_size(width, height, max_pixels, slide=_TILE_WIDTH in getattr(image, "tag_v2", ()))
            is_clean = image.format not in ("JPEG", "MPO") or _is_clean_jpeg(data)
            yield image, is_clean and is_plain_jpeg(image)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(kind_of(data)) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"has more than {MAX_PIXELS // 10**6} megapixels; cut it into fields") from error
    except Exception as error:  # decoders raise many kinds for damaged files
        if is_out_of_memory(error):
            raise ImageError(NO_MEMORY) from error
        if str(error).lower().startswith("unsupported"):
            raise ImageError(f"is of a kind that is not supported ({error}); save it as PNG") from error
        raise ImageError(f"is damaged or truncated ({str(error).splitlines()[0] or type(error).__name__})") from error


def _is_clean_jpeg(data: bytes) -> bool:
    """Whether libjpeg decodes a JPEG file without a word, which other decoders write to the terminal without its name.

    Raises:
        ImageError: It is decoded with a warning, so that part of its pixels are made up.
    """
    try:
        from simplejpeg import decode_jpeg
    except ImportError:  # no wheel for this machine
        return True
    try:
        decode_jpeg(data, "GRAY", fastdct=True, fastupsample=True, strict=True)
    except ValueError as error:
        idle = re.search(r"(\d+) extraneous bytes? before marker 0xd9", str(error))
        if "Corrupt JPEG data" in str(error) and (idle is None or not _is_padding(data, int(idle[1]))):
            raise ImageError(f"is damaged ({error}); part of it cannot be decoded") from error
        return False
    return True


def _is_padding(data: bytes, count: int) -> bool:
    """Whether so many bytes before the end of a JPEG file are one value again and again, as some cameras pad it.

    Other bytes are pixels that a damaged file has lost its way to.
    """
    end = data.rfind(b"\xff\xd9")
    return count <= _IDLE_BYTES and len(set(data[max(0, end - count) : end])) <= 1


def _check_size(width: int, height: int, most: int, *, slide: bool) -> None:
    if width * height > most and slide:
        raise ImageError(f"is {width} x {height} pixels in tiles, as whole-slide files are; cut it into fields")
    if width * height > most:
        raise ImageError(f"is {width} x {height} pixels, more than {most / 10**6:g} megapixels; cut it into fields")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"is {width} x {height} pixels, expected at least {MIN_SIDE_PX} a side")


def _to_rgb(image: Any) -> Tensor:
    import torch
    from PIL import Image, ImageOps

    _quiet_tiff()
    is_white_0 = prepare(image)
    image.load()
    if claims_too_much(_exif_of(image)):
        raise ImageError(TOO_MANY_TAGS)
    try:
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # EXIF that cannot be read says nothing of the pixels
        if is_out_of_memory(error):
            raise
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = deep_grey(image, is_white_0)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        # A channel that hides all, or holds 0 and 1 of 255, is a fault of the program that wrote it.
        if image.getextrema()[3][1] > 1:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.array(image.convert("RGB"))  # (height, width, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _exif_of(image: Any) -> bytes:
    """EXIF of a PNG, WebP or AVIF file, where Pillow finds it; b"" for none."""
    found = image.info.get("exif") or b""
    if not found and isinstance(text := image.info.get("Raw profile type exif"), str):
        with contextlib.suppress(ValueError):
            found = bytes.fromhex("".join(text.split("\n")[3:]))
    return found.removeprefix(b"Exif\0\0") if isinstance(found, bytes) else b""


@functools.cache
def _quiet_tiff() -> None:
    """Keep libtiff from writing to the terminal what Pillow raises, without the name of the file."""
    import PIL

    folder = Path(PIL.__file__).parent
    for path in (*folder.parent.glob("[Pp]illow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")):
        with contextlib.suppress(OSError, AttributeError):  # another build of Pillow
            ctypes.CDLL(str(path)).TIFFSetErrorHandler(None)
