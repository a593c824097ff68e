"""Reading rows of embeddings without holding the pages of their file."""

from __future__ import annotations

import mmap

import numpy as np

__all__ = ["read_rows"]

_SPARSE = 4  # images of the file for each image read, above which they are read one by one


def read_rows(numbers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return these images of an array, (images, views, columns), in its number format.

    Dense parts of a memory map are read from its file instead, so that its pages do not count as this process's memory.

    Args:
        numbers: array, memory map or HDF5 dataset, (images, views, columns).
        rows: numbers of the images, increasing, int (images,).
    """
    if not len(rows) or type(numbers) is not np.memmap:
        return np.asarray(numbers[rows])
    first, span = int(rows[0]), int(rows[-1] - rows[0]) + 1
    whole = numbers.flags.c_contiguous and isinstance(numbers.base, mmap.mmap)
    if not whole or not len(rows) <= span <= _SPARSE * len(rows):
        return np.asarray(numbers[rows])
    width = int(np.prod(numbers.shape[1:]))
    start = numbers.offset + first * width * numbers.itemsize
    part = np.fromfile(str(numbers.filename), numbers.dtype, span * width, offset=start)
    part = part.reshape(span, *numbers.shape[1:])
    return part if span == len(rows) else part[rows - first]
