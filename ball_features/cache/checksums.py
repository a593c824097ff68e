"""Checksums of a cache: one for each row, and a seal over every other byte of the file.

The checksum of a row (CRC-32) covers its embeddings, its pixel statistics and its content hash, so that rows in another
order are noticed too. The seal (SHA-256) covers all bytes of the file but those that change after its creation: rows,
their flags and checksums, and the timing. Together they cover every bit that is ever read. Both guard against faults of
disks, memory and copies, not against a person, who could compute them anew.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache.row_reads import read_rows

__all__ = [
    "GROUP",
    "ROWS",
    "SEAL",
    "SEAL_BYTES",
    "TIMING",
    "broken_rows",
    "changing_parts",
    "is_sealed",
    "is_timed",
    "row_checksums",
    "seal",
    "stored_checksums",
    "timing_checksum",
    "unfinite_rows",
]

GROUP = "checksums"
ROWS, SEAL, TIMING = f"{GROUP}/rows", f"{GROUP}/seal", f"{GROUP}/timing"
SEAL_BYTES = hashlib.sha256().digest_size
_BLOCK = 1 << 20
_HEAD_BYTES, _FLAGS = 32, 20  # of HDF5's superblock, and its consistency flags


def row_checksums(embeddings: np.ndarray, shortcuts: Mapping[str, np.ndarray], content: Sequence[str]) -> np.ndarray:
    """Checksum of each row, uint32 (rows,); never 0, which stands for a row that was not written.

    Args:
        embeddings: numbers as they are stored, (rows, views, dim).
        shortcuts: pixel statistics by name, (rows, statistics).
        content: content hash of each row.
    """
    parts = [_bytes(embeddings), *(_bytes(shortcuts[name]) for name in sorted(shortcuts))]
    found = np.empty(len(embeddings), np.uint32)
    for row, text in enumerate(content):
        value = zlib.crc32(text.encode())
        for part in parts:
            value = zlib.crc32(part[row], value)
        found[row] = value or 1
    return found


def _bytes(values: np.ndarray) -> np.ndarray:
    """The bytes of each row, uint8 (rows, bytes), without a copy where the memory is contiguous."""
    flat = np.ascontiguousarray(values).reshape(len(values), -1)
    return flat.view(np.uint8) if flat.size else np.empty((len(values), 0), np.uint8)


def broken_rows(
    stored: np.ndarray, embeddings: Any, shortcuts: Mapping[str, Any], content: Sequence[str], rows: np.ndarray
) -> np.ndarray:
    """Those of some rows whose numbers do not match their checksums, increasing.

    Args:
        stored: checksum of each row of the cache, from `stored_checksums`.
        embeddings: array or dataset, (images, views, dim); read block by block.
        shortcuts: arrays or datasets, (images, statistics).
        content: content hash of each image.
        rows: rows to compare, increasing, int (rows,).
    """
    broken = []
    for block in _blocks(rows, embeddings):
        numbers = {name: values[block] for name, values in shortcuts.items()}
        found = row_checksums(read_rows(embeddings, block), numbers, [content[int(row)] for row in block])
        broken.append(block[found != stored[block]])
    return np.concatenate(broken) if broken else np.empty(0, np.int64)


def unfinite_rows(embeddings: Any, rows: np.ndarray) -> np.ndarray:
    """Those of some rows that hold a number that is not finite, increasing."""
    broken = []
    for block in _blocks(rows, embeddings):
        values = read_rows(embeddings, block)
        broken.append(block[~np.isfinite(values).all((1, 2))])
    return np.concatenate(broken) if broken else np.empty(0, np.int64)


def _blocks(rows: np.ndarray, embeddings: Any) -> Iterator[np.ndarray]:
    width = max(1, int(np.prod(embeddings.shape[1:])) * embeddings.dtype.itemsize)
    step = max(1, _BLOCK // width)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def stored_checksums(file: Any) -> np.ndarray | None:
    """Checksum of each row of an open cache, uint32 (images,); None in a cache of an earlier version.

    Where they are not one for each image, they are 0, which no row has: all rows are damaged then.
    """
    if GROUP not in file:
        return None
    images = len(file["embeddings"])
    return file[ROWS][:] if _has_shape(file, ROWS, (images,)) else np.zeros(images, np.uint32)


def _has_shape(file: Any, name: str, shape: tuple[int, ...]) -> bool:
    return name in file and file[name].shape == shape


def is_timed(file: Any) -> bool:
    """Whether the timing of an open cache is the one that was written; True for a cache without one."""
    if TIMING not in file or "timing" not in file:
        return True
    return _has_shape(file, TIMING, ()) and timing_checksum(file["timing"][:]) == int(file[TIMING][()])


def timing_checksum(timing: np.ndarray) -> int:
    """Checksum of the timing of a cache."""
    return zlib.crc32(np.ascontiguousarray(timing, np.float64).tobytes())


def seal(file: Any, path: Path | str) -> bytes:
    """Hash of all bytes of an open cache that do not change after its creation."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as raw:
        head = bytearray(raw.read(_HEAD_BYTES))
        if len(head) == _HEAD_BYTES:
            head[_FLAGS] &= ~1  # set while a process writes, and left so by one that is killed
        digest.update(head)
        place = _HEAD_BYTES
        for start, size in sorted(changing_parts(file)):
            _hash_until(digest, raw, start - place)
            raw.seek(start + size)
            place = start + size
        _hash_until(digest, raw, -1)
    return digest.digest()


def is_sealed(file: Any, path: Path | str) -> bool:
    """Whether the seal of an open cache is that of its bytes; True for a cache of an earlier version, without one."""
    if GROUP not in file:
        return True
    if not _has_shape(file, ROWS, (len(file["embeddings"]),)) or not _has_shape(file, SEAL, (SEAL_BYTES,)):
        return False
    return bytes(file[SEAL][:]) == seal(file, path)


def _hash_until(digest: Any, raw: Any, count: int) -> None:
    """Hash so many bytes, or all that follow for -1; ranges that overlap, in a damaged file, hash none."""
    while count and (block := raw.read(_BLOCK if count < 0 else min(count, _BLOCK))):
        digest.update(block)
        count -= len(block) if count > 0 else 0


def changing_parts(file: Any) -> Iterator[tuple[int, int]]:
    """Offset and size of the parts that are written after the creation."""
    embeddings = file["embeddings"]
    row_bytes = int(np.prod(embeddings.shape[1:])) * embeddings.dtype.itemsize
    if embeddings.chunks is not None:
        chunks: list[tuple[int, int, int]] = []
        embeddings.id.chunk_iter(lambda one: chunks.append((one.chunk_offset[0], one.byte_offset, one.size)))
        for row, offset, size in chunks:
            yield offset, min(size, max(0, embeddings.shape[0] - row) * row_bytes)
    elif embeddings.size:
        yield embeddings.id.get_offset(), embeddings.size * embeddings.dtype.itemsize
    for name in ("committed", "timing", ROWS, SEAL, TIMING, *(f"shortcuts/{name}" for name in file["shortcuts"])):
        item = file.get(name)
        if item is not None and item.size and (offset := item.id.get_offset()) is not None:
            yield offset, item.size * item.dtype.itemsize
