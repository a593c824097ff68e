"""Directories of tags in TIFF files and EXIF: how much they claim, before Pillow reads them into memory."""

from __future__ import annotations

import struct

__all__ = ["TOO_MANY_TAGS", "claims_too_much"]

TOO_MANY_TAGS = "has tags (EXIF, TIFF) that take more memory than its pixels may; save it anew"

_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTES = (1, 2, 6, 7)  # types that Pillow keeps as they are; of others it makes an object for each value
_MOST_VALUES = 1 << 20  # more than the parts of an image of 100 megapixels in tiles of 16
_FREE_BYTES = 1 << 24


def claims_too_much(data: bytes) -> bool:
    """Whether the first directory has more values than an image needs, or takes its bytes several times.

    Args:
        data: content that begins with a TIFF header; anything else claims nothing.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or len(data) < 16:  # a header of either kind
        return False
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    whole, head, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    place = struct.unpack_from(order + whole, data, 8 if big else 4)[0]
    if place + struct.calcsize(order + head) > len(data):
        return False
    count = struct.unpack_from(order + head, data, place)[0]
    place += struct.calcsize(order + head)
    inline, step = (8, 20) if big else (4, 12)
    values = claimed = 0
    for at in range(place, min(place + count * step, len(data) - step + 1), step):
        _, kind, number = struct.unpack_from(order + entry, data, at)
        size = number * _SIZE.get(kind, 0)
        offset = struct.unpack_from(order + whole, data, at + step - inline)[0]
        if size > inline and offset + size <= len(data):  # of what is not there nothing is kept
            claimed += size
            values += 0 if kind in _BYTES else number
    return values > _MOST_VALUES or claimed > len(data) + _FREE_BYTES
