"""Choice between decoding JPEG files on the cores and on a GPU.

The cores give Pillow's pixels. A GPU decodes where the cores do not keep up with the network. Untried on a GPU.
"""

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

ON_DEVICE = "nvjpeg"  # attribute "decoder" of a cache; caches decoded on the cores have none

TOGETHER = 16  # files in one call; a few gigabytes of pixels if the files are as large as allowed
# The cores also prepare batches, write and serve the system, so they must be faster than the network by this factor.
HEADROOM = 1.5


def decode_together(contents: Sequence[bytes], device: torch.device) -> list[Tensor | str]:
    """Decode plain JPEG files on a device.

    The pixels of a file do not depend on the others: if one of them is damaged, each is decoded alone.

    Args:
        contents: contents of the files, from `read_plain_jpeg`.
        device: device that decodes.

    Returns:
        For each file its pixels, uint8 (3, height, width), on the device, or on the CPU if the device failed; a reason
        instead if the file is damaged.
    """
    decoded: list[Tensor | str] = []
    for start in range(0, len(contents), TOGETHER):
        some = contents[start : start + TOGETHER]
        together = decode_jpegs(some, device)
        decoded += [_alone(item, device) for item in some] if together is None else together
    return decoded


def decode_on(file: Path, device: torch.device) -> Tensor:
    """Decode one file, on the device if it is a plain JPEG file: uint8 (3, height, width).

    Raises:
        ImageError: The file cannot be decoded, see `decode`.
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
    """Measure a forward pass over so many images, in images per second, after as many calls to warm up."""
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
    """Return the reason to decode these files on the device, or "".

    Args:
        files: sample of the collection.
        load: work of a core on one file, from the file to the network's input.
        rate: speed of the network, in images per second.
        workers: number of threads that decode.
        device: device of the network.
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
    for turn in range(2):  # the first call also allocates memory
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
