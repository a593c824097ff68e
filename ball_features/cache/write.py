"""Writing a cache: created whole, then filled row by row."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from filelock import FileLock, Timeout

from ball_features.cache.schema import SCHEMA_VERSION, content_hashes
from ball_features.dataset.manifest import Rejected
from ball_features.errors import CacheBusyError, CacheError

__all__ = ["CacheWriter", "create_cache", "lock_cache"]

_TEXT = h5py.string_dtype("utf-8")
# The index of the chunks gets a place of its own in the file, or it would lie between them.
_INDEX_BYTES = 1 << 20


@contextlib.contextmanager
def lock_cache(path: Path) -> Iterator[None]:
    """Hold the right to write a cache; a killed process lets go of it.

    Raises:
        CacheBusyError: Another process holds it.
        CacheError: The folder takes no files.
    """
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).touch()  # where no file can be made, the lock below would seem to be held
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CacheBusyError(
            f"{path} is being written by another process. Wait for it to end, or write to another --out."
        ) from error
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror or error}). Give another --out.") from error
    try:
        yield
    finally:
        lock.release()


def _to_attribute(value: Any) -> Any:
    return "json:" + json.dumps(value, sort_keys=True) if isinstance(value, dict | list | tuple) else value


def create_cache(
    path: Path,
    *,
    paths: Sequence[str],
    labels: Sequence[str],
    sha256: Sequence[str],
    view: Sequence[str],
    dim: int,
    dtype: str,
    shortcuts: Mapping[str, int],
    attributes: Mapping[str, Any],
    rejected: Sequence[Rejected] = (),
    twin_sha256: Sequence[str] = (),
    source: Path | None = None,
) -> None:
    """Create a cache of uncommitted rows in one atomic step, replacing any file of that name.

    Args:
        path: Where.
        paths: Ids of the images, in row order.
        labels: Class of each.
        sha256: Content hash of each.
        view: Names of the views.
        dim: Length of an embedding.
        dtype: "float16" or "float32".
        shortcuts: Name -> count of pixel numbers stored beside the embeddings.
        attributes: Settings and provenance.
        rejected: Files that are known not to be usable.
        twin_sha256: Content hash of each image's twin; empty where none are used.
        source: A cache of the same settings (`path` itself may be it); its committed rows are carried over by content.

    Raises:
        CacheError: It cannot be written: the disk is full, most likely.
    """
    rows, views = len(paths), len(view)
    with (
        _replacing(path) as partial,
        h5py.File(partial, "w", libver="earliest", meta_block_size=_INDEX_BYTES) as file,
    ):
        for key, value in attributes.items():
            file.attrs[key] = _to_attribute(value)
        file.attrs["schema_version"] = SCHEMA_VERSION

        # About a mebibyte a chunk: whole-matrix reads stream, a block of rows is a few chunks.
        chunk = max(1, min(rows, (1 << 20) // max(1, views * dim * np.dtype(dtype).itemsize)))

        def allocate(name: str, width: tuple[int, ...], kind: str, chunks: tuple[int, ...] | None) -> h5py.Dataset:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plist.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
            if chunks and rows:
                plist.set_chunk(chunks)
            space = h5py.h5s.create_simple((rows, *width))
            kind_id = h5py.h5t.py_create(np.dtype(kind), logical=True)
            parent, _, leaf = name.rpartition("/")
            group = file.require_group(parent) if parent else file
            return h5py.Dataset(h5py.h5d.create(group.id, leaf.encode(), kind_id, space, plist))

        allocate("embeddings", (views, dim), dtype, (chunk, views, dim))
        allocate("committed", (), "bool", None)
        file.require_group("shortcuts")
        for name, width in shortcuts.items():
            allocate(f"shortcuts/{name}", (width,), "float32", None)
        file.create_dataset("timing", data=np.zeros(2))
        texts = {"path": paths, "label": labels, "sha256": sha256, "view": view}
        if twin_sha256:
            texts["twin_sha256"] = twin_sha256
        for name, values in texts.items():
            file.create_dataset(name, data=np.array(list(values), dtype=object), dtype=_TEXT)
        for field in ("path", "reason", "sha256"):
            values = np.array([getattr(item, field) for item in rejected], dtype=object)
            file.create_dataset(f"rejected/{field}", data=values, dtype=_TEXT)
        if source is not None:
            with h5py.File(source, "r", locking=False) as old:
                _carry_over(old, file)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write a file under, which then takes the place of `path`; where that fails nothing is left of it."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # HDF5's own errors are of both kinds
        told = re.search(r"error message = '([^']*)'", str(error))
        reason = told[1] if told else " ".join(str(error).split())
        raise CacheError(f"{path} cannot be written ({reason}). Free some space, or give another --out.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _carry_over(old: Any, new: Any) -> None:
    """Copy committed rows of the same content, some at a time, so that memory does not grow with the cache."""
    committed = old["committed"][:].astype(bool)
    known = {content: row for row, content in enumerate(content_hashes(old)) if committed[row]}
    pairs = np.array(
        [(row, known[content]) for row, content in enumerate(content_hashes(new)) if content in known], dtype=np.int64
    )
    if "timing" in old:
        new["timing"][:] = old["timing"][:]
    names = ["embeddings", *(f"shortcuts/{name}" for name in new["shortcuts"])]
    for start in range(0, len(pairs), 1024):
        target, origin = pairs[start : start + 1024].T
        unique, inverse = np.unique(origin, return_inverse=True)  # h5py reads increasing rows only
        for name in names:
            new[name][target] = old[name][unique][inverse]
        new["committed"][target] = True


class CacheWriter:
    """Writes rows of an existing cache, block by block.

    Use as a context manager, with `lock_cache` held.
    """

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "r+", libver="earliest", locking=False)
        self._sync = os.open(path, os.O_RDWR)

    def __enter__(self) -> CacheWriter:
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        self._file.close()
        os.close(self._sync)

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._sync)

    def time(self, images: int, seconds: float) -> None:
        """Add to what the cache says of its own making."""
        datasets: Any = self._file
        if "timing" in datasets:  # caches made by 0.1.0 before it was kept
            datasets["timing"][:] += (images, seconds)

    def write(self, rows: np.ndarray, embeddings: np.ndarray, shortcuts: Mapping[str, np.ndarray]) -> None:
        """Store rows, then commit them once they are on disk.

        Args:
            rows: int (block,), increasing.
            embeddings: (block, views, dim).
            shortcuts: Name -> (block, numbers).
        """
        if not len(rows):
            return
        datasets: Any = self._file
        # Rows that follow one another are written as one, in a tenth of the time.
        where = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == len(rows) - 1 else rows
        datasets["embeddings"][where] = embeddings
        for name, values in shortcuts.items():
            datasets[f"shortcuts/{name}"][where] = values
        self._flush()
        datasets["committed"][where] = True
        self._flush()
