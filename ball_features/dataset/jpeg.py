"""Plain JPEG files by the fastest decoder that is installed; Pillow's pixels exactly on the cores, nearly on a GPU."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["decode_jpegs", "is_plain_jpeg"]

Decoder = Callable[["list[Tensor]", "torch.device"], Any]  # contents -> list of uint8 (3, height, width)


def is_plain_jpeg(image: Any) -> bool:
    """Whether an image that Pillow has opened is an RGB JPEG file without EXIF or XMP, which may turn it."""
    return image.format == "JPEG" and image.mode == "RGB" and not {"exif", "xmp"} & image.info.keys()


def decode_jpegs(data: Sequence[bytes], device: torch.device | None = None) -> list[Tensor] | None:
    """Decode plain JPEG files in one call.

    On the cores every decoder here is libjpeg-turbo, as Pillow's, and gives the same pixels. On CUDA it is nvJPEG,
    whose pixels may differ by some levels.

    Args:
        data: Contents of files, see `is_plain_jpeg`.
        device: Where to decode, and where the pixels then lie; the CPU if None.

    Returns:
        uint8 (3, height, width), RGB, contiguous, for each file; None where no decoder is there, or one of the files
        is damaged.
    """
    import torch

    device = device or torch.device("cpu")
    contents = [torch.frombuffer(bytearray(item), dtype=torch.uint8) for item in data]
    for decoder in _decoders():
        try:
            return [pixels.contiguous() for pixels in decoder(contents, device)]
        except RuntimeError:  # a damaged file, or a decoder that was built without CUDA
            if device.type == "cpu":
                return None
    return None


@functools.cache
def _decoders() -> tuple[Decoder, ...]:
    """TorchCodec's, and torchvision's, which is deprecated in favour of it but lies with every network."""
    found: list[Decoder] = []
    try:
        codec: Any = importlib.import_module("torchcodec.decoders")
        by_codec = codec.decode_jpeg  # from version 0.16
        found.append(lambda contents, device: by_codec(contents, mode="RGB", device=device))
    except Exception:  # not installed, or for another version of torch
        pass
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        found.append(lambda contents, device: decode_jpeg(contents, ImageReadMode.RGB, device))
    except ImportError:
        pass
    return tuple(found)
