"""Heaps of texts in an HDF5 file that HDF5 would read without an end: it follows an object of no size for ever."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["fault_of_heaps"]

_SIGN = b"GCOL\x01"  # global heap collection, version 1
_HEADER, _OBJECT = struct.Struct("<8sQ"), struct.Struct("<H6xQ")
_BLOCK = 1 << 24


def fault_of_heaps(path: Path | str, numbers: Iterable[tuple[int, int]]) -> str:
    """What is wrong with the heaps of a file, in words, or ""; HDF5 must not have read a text before.

    Args:
        path: HDF5 file.
        numbers: offset and size of its arrays of numbers, which are not searched.
    """
    size = Path(path).stat().st_size
    left = size // _OBJECT.size + 1  # objects that the file can hold
    with Path(path).open("rb") as raw:
        for place in list(_signs(raw, numbers, size)):
            raw.seek(place)
            head = raw.read(_HEADER.size)
            length = _HEADER.unpack(head)[1] if len(head) == _HEADER.size else size
            if place + length > size:  # which HDF5 tells
                continue
            steps = _steps(raw.read(max(length - _HEADER.size, 0)))
            left -= abs(steps)
            if steps < 0 or left < 0:
                return "a heap of its texts has an object without a size"
    return ""


def _signs(raw: Any, numbers: Iterable[tuple[int, int]], size: int) -> Iterator[int]:
    """Places where a heap may begin, outside the arrays."""
    begin = 0
    for start, count in [*sorted(numbers), (size, 0)]:
        while begin < start:
            raw.seek(begin)
            block = raw.read(min(_BLOCK, start - begin))
            place = block.find(_SIGN)
            while place >= 0:
                yield begin + place
                place = block.find(_SIGN, place + 1)
            if len(block) < _BLOCK:
                break
            begin += len(block) - len(_SIGN) + 1
        begin = max(begin, start + count)


def _steps(data: bytes) -> int:
    """Number of objects of a heap, negative where one has no size."""
    place = count = 0
    while place + _OBJECT.size <= len(data):
        index, size = _OBJECT.unpack_from(data, place)
        count += 1
        step = (_OBJECT.size + (size + 7) // 8 * 8) % 2**64 if index else size
        if not step:
            return -count
        place += step
    return count
