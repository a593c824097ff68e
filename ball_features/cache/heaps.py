"""Heaps of texts in an HDF5 file that HDF5 would read without an end: it follows an object of no size for ever.

They may lie anywhere, also among the numbers. Each is therefore looked at before HDF5 reads it: those that the texts of
a data set name, and any other, such as that of an attribute, when HDF5 is about to read its head.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = ["WatchedFile", "watched"]

_SIGN = b"GCOL\x01"  # global heap collection, version 1
_HEADER, _OBJECT = struct.Struct("<8sQ"), struct.Struct("<H6xQ")
_NAME = np.dtype({"names": ["heap"], "formats": ["<u8"], "offsets": [4], "itemsize": 16})  # of a text, in a data set
_SEARCHED = 1 << 21  # bytes; what HDF5 reads at once that is not numbers is less
_AT_ONCE = 4096  # texts
_ENDLESS = "a heap of its texts has an object without a size"


class WatchedFile(io.FileIO):
    """A file that HDF5 reads, and that fails before HDF5 has a heap without an end."""

    def __init__(self, path: Path) -> None:
        """Open a file for reading.

        Raises:
            OSError: It cannot be opened.
        """
        super().__init__(path, "rb")
        self.fault = ""
        self._size = path.stat().st_size
        self._left = self._size // _OBJECT.size + 1  # objects that the file can hold
        self._seen: set[int] = set()

    def readinto(self, buffer: Any) -> int:
        """Read bytes.

        Raises:
            OSError: A heap without an end begins among them, or the file cannot be read.
        """
        place, count = self.tell(), len(memoryview(buffer).cast("B"))
        if count <= _SEARCHED:
            begin = max(place - len(_SIGN) + 1, 0)  # a sign may lie across what is read in two parts
            data = self._read_at(begin, count + 2 * len(_SIGN) - 2)
            found = data.find(_SIGN)
            while found >= 0:
                self.look(begin + found)
                found = data.find(_SIGN, found + 1)
        self.seek(place)
        return super().readinto(buffer) or 0

    def look(self, place: int) -> None:
        """Raise `OSError` where a heap begins that has no end."""
        if place in self._seen or place >= self._size:
            return
        self._seen.add(place)
        head = self._read_at(place, _HEADER.size)
        length = _HEADER.unpack(head)[1] if len(head) == _HEADER.size else self._size
        if not head.startswith(_SIGN) or place + length > self._size:  # which HDF5 tells
            return
        steps = _steps(self._read_at(place + _HEADER.size, max(length - _HEADER.size, 0)))
        self._left -= abs(steps)
        if steps < 0 or self._left < 0:
            self.fault = _ENDLESS
            raise OSError(_ENDLESS)

    def look_at_texts(self, file: Any, datasets: list[Any]) -> None:
        """Find every heap of a file of `watched` whose objects are those of a cache.

        Args:
            file: open file.
            datasets: its data sets.

        Raises:
            OSError: A heap has no end.
        """
        for name in file.attrs:
            _ = file.attrs[name]
        for item in filter(_is_text, datasets):
            offset = item.id.get_offset()
            if offset is None:  # in chunks, which may be packed
                for start in range(0, len(item), _AT_ONCE):
                    _ = item[start : start + _AT_ONCE]
            elif item.dtype.kind == "O":
                data = self._read_at(offset, len(item) * _NAME.itemsize)
                for place in np.unique(np.frombuffer(data, _NAME)["heap"]).tolist():
                    self.look(place)

    def _read_at(self, place: int, count: int) -> bytes:
        self.seek(place)
        data = bytearray()
        while count > len(data) and (more := self.read(count - len(data))):
            data += more
        return bytes(data)


@contextlib.contextmanager
def watched(path: Path) -> Iterator[tuple[Any, WatchedFile]]:
    """Open an HDF5 file whose heaps are looked at before HDF5 reads them; slow where much is read.

    Yields:
        The open file, and the file below it.

    Raises:
        ValueError: A heap has no end, or the file has addresses that no cache has.
        OSError: The file cannot be read.
    """
    with WatchedFile(path) as raw:
        try:
            with h5py.File(raw, "r") as file:
                settings = file.id.get_create_plist()
                if settings.get_sizes() != (8, 8) or settings.get_userblock():
                    raise ValueError("its addresses are of a kind that no cache has")
                yield file, raw
        except Exception as error:
            if raw.fault:
                raise ValueError(raw.fault) from error
            raise


def _is_text(item: Any) -> bool:
    return h5py.check_string_dtype(item.dtype) is not None


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
