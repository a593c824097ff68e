"""Reading rows of embeddings: no more of their file than they need, and without holding its pages."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_rows"]

_SPARSE = 4  # images of the file for each image read, above which they are read one by one


def read_rows(numbers: Any, rows: np.ndarray) -> np.ndarray:
    """Return these images of an array, (images, views, columns), in its number format.

    Rows of a memory map are read from its file instead: its pages do not count as this process's memory then, and the
    system does not read ahead where they are few, which costs up to its whole window for each row of a map.

    Args:
        numbers: array, memory map or HDF5 dataset, (images, views, columns).
        rows: numbers of the images, int (images,).

    Raises:
        OSError: The file cannot be read, or has become shorter.
    """
    whole = type(numbers) is np.memmap and numbers.flags.c_contiguous and isinstance(numbers.base, mmap.mmap)
    if not whole or not len(rows) or int(rows.min()) < 0 or int(rows.max()) >= len(numbers):
        return np.asarray(numbers[rows])
    first, span = int(rows[0]), int(rows[-1] - rows[0]) + 1
    if span > _SPARSE * len(rows) or (np.diff(rows) <= 0).any():
        return _picked(numbers, rows)
    width = int(np.prod(numbers.shape[1:]))
    start = numbers.offset + first * width * numbers.itemsize
    part = np.fromfile(str(numbers.filename), numbers.dtype, span * width, offset=start)
    part = part.reshape(span, *numbers.shape[1:])
    return part if span == len(rows) else part[rows - first]


def _picked(numbers: np.memmap[Any, Any], rows: np.ndarray) -> np.ndarray:
    """Rows of a memory map, those that follow one another at once."""
    found = np.empty((len(rows), *numbers.shape[1:]), numbers.dtype)
    size = found[:1].nbytes
    ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    with Path(str(numbers.filename)).open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        begin = 0
        for end in ends:
            file.seek(numbers.offset + int(rows[begin]) * size)
            view = found[begin:end].data.cast("B")
            while len(view):
                if not (more := file.readinto(view)):
                    raise OSError(f"{numbers.filename} has become shorter.")
                view = view[more:]
            begin = end
    return found
