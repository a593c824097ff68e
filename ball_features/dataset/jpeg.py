"""Plain JPEG files, by the fastest decoder installed: TorchCodec, torchvision, or none, which leaves them to Pillow.

On the cores all of them are libjpeg-turbo and give Pillow's pixels. On CUDA, nvJPEG gives nearly the same pixels; that
path is untried on a GPU and is compared with the cores before it is used (`engine.choose`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.dataset.tags import TOO_MANY_TAGS, claims_too_much
from ball_features.errors import ImageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["MAX_SCANS", "decode_jpegs", "is_plain_jpeg", "require_bounded_work"]

MAX_SCANS = 100  # as many as libtiff takes; a progressive file has some ten, and each takes all pixels anew
_MAX_EXIF = 100  # segments; Pillow copies those before for each, and one holds all that cameras write
_SCAN, _APP1, _EXIF = b"\xff\xda", b"\xff\xe1", b"Exif\0\0"
# A marker of a JPEG file: neither a stuffed byte of pixels, nor filling, nor a restart.
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_BARE = (0x01, 0xD8)  # markers that nothing follows
_END = 0xD9

_RGB = 3  # ImageReadMode.RGB of torchvision
Decoder = Callable[["list[Tensor]", "torch.device"], Any]  # contents -> list of uint8 (3, height, width)


def require_bounded_work(data: bytes) -> None:
    """Check that a JPEG file takes no more time than its bytes and pixels warrant; anything else passes.

    Raises:
        ImageError: It has more scans, or more segments or tags of EXIF, than any camera or program writes.
    """
    many = data.count(_SCAN) > MAX_SCANS  # else the head tells all
    if not data.startswith(b"\xff\xd8") or not (many or _APP1 in data):
        return
    place = scans = parts = 0  # some may lie in pictures within, or after the end
    tags = bytearray()
    while (found := _MARKER.search(data, place)) and found[1][0] != _END and (many or not scans):
        place = found.end()
        if found[1][0] in _BARE:
            continue
        scans += found[1][0] == _SCAN[1]
        end = place + int.from_bytes(data[place : place + 2], "big")
        if not scans and found[1][0] == _APP1[1] and data[place + 2 : place + 8] == _EXIF:
            parts += 1
            tags += data[place + 8 : end] if parts <= _MAX_EXIF else b""
        place = end
    for count, most, what in ((scans, MAX_SCANS, "scans"), (parts, _MAX_EXIF, "segments of EXIF")):
        if count > most:
            raise ImageError(f"has {count} {what}, more than {most}; save it anew")
    if claims_too_much(bytes(tags)):
        raise ImageError(TOO_MANY_TAGS)


def is_plain_jpeg(image: Any) -> bool:
    """Tell whether an image opened by Pillow is an RGB JPEG file without EXIF or XMP, which may rotate it."""
    return image.format == "JPEG" and image.mode == "RGB" and not {"exif", "xmp"} & image.info.keys()


def decode_jpegs(data: Sequence[bytes], device: torch.device | None = None) -> list[Tensor] | None:
    """Decode plain JPEG files in one call.

    Args:
        data: contents of the files, see `is_plain_jpeg`.
        device: device that decodes and holds the pixels; the CPU if None.

    Returns:
        RGB pixels of each file, uint8 (3, height, width), contiguous; None if there is no decoder, or if one of the
        files is damaged.
    """
    import torch

    device = device or torch.device("cpu")
    contents = [torch.frombuffer(bytearray(item), dtype=torch.uint8) for item in data]
    for decoder in _decoders():
        try:
            return [pixels.contiguous() for pixels in decoder(contents, device)]
        except Exception:  # a damaged file, a library built without JPEG, or a decoder built without CUDA
            if device.type == "cpu":
                return None
    return None


@functools.cache
def _decoders() -> tuple[Decoder, ...]:
    """Return the decoders that load, the preferred one first."""
    loaders = (_load_torchcodec, _load_torchvision)
    return tuple(decoder for load in loaders if (decoder := load()) is not None)


def _load_torchcodec() -> Decoder | None:
    """Return TorchCodec's decoder, if the extra torchcodec is installed."""
    try:
        codec: Any = importlib.import_module("torchcodec.decoders")
        decode_jpeg = codec.decode_jpeg  # from version 0.16
    except Exception:  # not installed, or built for another version of torch
        return None
    return lambda contents, device: decode_jpeg(contents, mode="RGB", device=device)


def _load_torchvision() -> Decoder | None:
    """Return torchvision's decoder, which it deprecates in favour of TorchCodec's."""
    own = _load_library()

    def decode(contents: list[Tensor], device: torch.device) -> Any:
        if own is not None and device.type == "cpu":
            return [own(item, _RGB, False) for item in contents]
        decode_jpeg = _import_torchvision()
        if decode_jpeg is None:
            raise RuntimeError("There is no decoder for this device.")
        return decode_jpeg(contents, device)

    return decode if own is not None else _import_torchvision()


def _load_library() -> Any:
    """Decoder out of the library of torchvision, without the two seconds that its import takes; None where it fails."""
    import torch
    from PIL import Image

    probe = io.BytesIO()
    Image.new("RGB", (8, 8)).save(probe, "JPEG")
    try:
        spec = importlib.util.find_spec("torchvision")
        folder = Path(spec.origin or "").parent if spec else Path()
        files = sorted(path for path in folder.glob("image*") if path.suffix in (".so", ".pyd", ".dylib"))
        torch.ops.load_library(str(files[0]))
        own = torch.ops.image.decode_jpeg
        own(torch.frombuffer(bytearray(probe.getvalue()), dtype=torch.uint8), _RGB, False)
    except Exception:  # another version, which its own import may know how to load
        return None
    return own


@functools.cache
def _import_torchvision() -> Decoder | None:
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except Exception:  # a torchvision built for another version of torch fails in many ways
        return None
    return lambda contents, device: decode_jpeg(contents, ImageReadMode.RGB, device)
