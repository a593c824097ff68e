"""Where JPEG files are decoded: on the cores, whose pixels are Pillow's, or on a GPU where the cores do not keep up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.dataset.decode import decode, decode_bytes, read_plain_jpeg
from ball_features.dataset.jpeg import decode_jpegs
from ball_features.errors import ImageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["ON_DEVICE", "decode_on", "decode_together", "device_decoding_pays", "forward_rate"]

ON_DEVICE = "nvjpeg"  # the attribute "decoder" of a cache; those decoded on the cores have none

TOGETHER = 16  # files in one call: of the largest there are, a few gigabytes of pixels
# The cores also cut batches, write, and serve the system: they keep up with a network if they could do so much more.
HEADROOM = 1.5


def decode_together(contents: Sequence[bytes], device: torch.device) -> list[Tensor | str]:
    """Decode plain JPEG files on a device.

    A file's pixels do not depend on those it is decoded with: where one of them is damaged, each is decoded alone.

    Args:
        contents: See `read_plain_jpeg`.
        device: Where to decode.

    Returns:
        uint8 (3, height, width) on the device, or, where the device could not, on the CPU; a reason instead where the
        file is damaged.
    """
    decoded: list[Tensor | str] = []
    for start in range(0, len(contents), TOGETHER):
        some = contents[start : start + TOGETHER]
        together = decode_jpegs(some, device)
        decoded += [_alone(item, device) for item in some] if together is None else together
    return decoded


def decode_on(file: Path, device: torch.device) -> Tensor:
    """Decode one file, on the device if it is a plain JPEG; uint8 (3, height, width).

    Raises:
        ImageError: See `decode`.
    """
    content = read_plain_jpeg(file)
    if content is None:
        return decode(file)
    pixels = decode_jpegs([content], device)
    return pixels[0] if pixels else decode_bytes(content)


def _alone(content: bytes, device: torch.device) -> Tensor | str:
    try:
        pixels = decode_jpegs([content], device)
        return pixels[0] if pixels else decode_bytes(content)
    except ImageError as error:
        return str(error)


def forward_rate(forward: Callable[[], object], images: int, device: torch.device, calls: int = 3) -> float:
    """Images a second of a forward pass over so many images, after as many calls to warm up."""
    for _ in range(calls):
        forward()
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        forward()
    _wait(device)
    return calls * images / (time.perf_counter() - start)


def device_decoding_pays(
    files: Sequence[Path], load: Callable[[Path], object], rate: float, workers: int, device: torch.device
) -> str:
    """Why these files are better decoded on the device, or "".

    Args:
        files: A sample of the collection.
        load: What a core does with one of them, from file to network input.
        rate: Images a second that the network takes.
        workers: Threads that decode.
        device: Where the network is.
    """
    contents = [content for file in files if (content := _content(file)) is not None]
    if not contents:
        return ""
    start = time.perf_counter()
    for file in files:
        load(file)
    cores = workers * len(files) / (time.perf_counter() - start)
    if cores >= HEADROOM * rate:
        return ""
    for turn in range(2):  # the first makes the decoder's own room
        start = time.perf_counter()
        if decode_jpegs(contents, device) is None:
            return ""
        _wait(device)
        there = len(contents) / (time.perf_counter() - start)
        if turn and there > cores:
            return f"the network takes {rate:.0f} images/s, {workers} threads decode {cores:.0f}, the GPU {there:.0f}"
    return ""


def _content(file: Path) -> bytes | None:
    try:
        return read_plain_jpeg(file)
    except ImageError:
        return None


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
