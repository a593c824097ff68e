"""Writing a cache: created whole, then filled row by row."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ball_features.cache import checksums
from ball_features.cache.attributes import (
    REQUIRED_ATTRIBUTES,
    fault_of_attributes,
    fault_of_shape,
    from_attribute,
    to_attribute,
)
from ball_features.cache.places import to_stored
from ball_features.cache.raw_file import RawFile, open_for_writing
from ball_features.cache.read import sound_rows
from ball_features.cache.schema import SCHEMA_VERSION, column_key, content_hashes
from ball_features.cache.strangers import look_at_objects
from ball_features.dataset.manifest import Rejected
from ball_features.errors import CacheError, DataError
from ball_features.files import is_expected, where_checked, whole_file

__all__ = ["CacheContents", "CacheWriter", "create_cache"]

_TEXT = h5py.string_dtype("utf-8")
_ROW_BYTES, _FILE_BYTES = 512, 1 << 18  # of texts, flags and structure, roughly


@dataclass(frozen=True)
class CacheContents:
    """Everything that a new cache holds, but for the embeddings.

    Attributes:
        paths: ids of the images, in row order.
        labels: class of each image.
        sha256: content hash of each image.
        view: names of the views.
        dim: length of an embedding.
        dtype: number format of embeddings: "float16" or "float32".
        shortcuts: number of pixel statistics that are stored beside the embeddings, by name.
        attributes: settings and provenance.
        rejected: files that are known to be unusable.
        twin_sha256: content hash of each image's twin; empty if there are none.
        columns: further columns by name: a text for each image, "" for no value.
    """

    paths: Sequence[str]
    labels: Sequence[str]
    sha256: Sequence[str]
    view: Sequence[str]
    dim: int
    dtype: str
    shortcuts: Mapping[str, int]
    attributes: Mapping[str, Any]
    rejected: Sequence[Rejected] = ()
    twin_sha256: Sequence[str] = ()
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


def create_cache(path: Path, contents: CacheContents, *, source: Path | None = None, repair: bool = False) -> None:
    """Create a cache of uncommitted rows in one atomic step, replacing any file of that name.

    Args:
        path: path of the cache.
        contents: what it holds.
        source: cache of the same settings, which may be `path` itself; its committed rows are copied by content hash.
        repair: leave out rows of the source that do not match their checksums; otherwise they are an error.

    Raises:
        CacheError: The file cannot be written: most likely the disk is full. Or rows of the source are damaged. Or an
            attribute is one that would be refused when the cache is read.
    """
    _require_readable(path, contents)
    with _replacing(path) as partial:
        _require_space(partial, contents)
        with open_for_writing(partial, "w") as (file, raw):
            for key, value in to_stored(contents.attributes, path.parent).items():
                file.attrs[key] = to_attribute(value)
            file.attrs["schema_version"] = SCHEMA_VERSION
            _allocate_rows(file, contents)
            raw.check()
            file.create_dataset("timing", data=np.zeros(2))
            _write_texts(file, contents)
            raw.check()
            if source is not None:
                with h5py.File(source, "r", locking=False) as old:
                    _carry_over(old, file, raw, repair)
        _seal(partial)


def _require_readable(path: Path, contents: CacheContents) -> None:
    lacking = [name for name in REQUIRED_ATTRIBUTES if name not in contents.attributes]
    fault = f"it lacks the attribute {lacking[0]}" if lacking else ""
    try:
        own = {name: from_attribute(to_attribute(value)) for name, value in contents.attributes.items()}
        fault = fault or fault_of_attributes(own) or fault_of_shape(own, len(contents.view), contents.dtype)
    except (TypeError, ValueError, RecursionError) as error:
        fault = f"an attribute cannot be stored: {error}"
    if fault:
        raise CacheError(f"{path} cannot be written, since no version could read it: {fault}.")


def _require_space(partial: Path, contents: CacheContents) -> None:
    """Raise `OSError` where the disk has no room, before the work."""
    rows = len(contents.paths)
    numbers = len(contents.view) * contents.dim * np.dtype(contents.dtype).itemsize + 4 * sum(
        contents.shortcuts.values()
    )
    size = rows * (numbers + _ROW_BYTES) + _FILE_BYTES
    with partial.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def _seal(path: Path) -> None:
    """Store the seal of a file that is complete but for its rows."""
    with h5py.File(path, "r", locking=False) as file:
        found: Any = file[checksums.SEAL]
        place, value = found.id.get_offset(), checksums.seal(file, path)
    with path.open("rb+") as raw:
        raw.seek(place)
        raw.write(value)


def _allocate_rows(file: h5py.File, contents: CacheContents) -> None:
    """Allocate embeddings, pixel statistics and flags, all in place before the first row is written."""
    rows, views = len(contents.paths), len(contents.view)

    def allocate(name: str, width: tuple[int, ...], kind: str) -> h5py.Dataset:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
        space = h5py.h5s.create_simple((rows, *width))
        kind_id = h5py.h5t.py_create(np.dtype(kind), logical=True)
        parent, _, leaf = name.rpartition("/")
        group = file.require_group(parent) if parent else file
        return h5py.Dataset(h5py.h5d.create(group.id, leaf.encode(), kind_id, space, plist))

    allocate("embeddings", (views, contents.dim), contents.dtype)
    allocate("committed", (), "bool")
    allocate(checksums.ROWS, (), "uint32")
    file.create_dataset(checksums.TIMING, data=np.uint32(checksums.timing_checksum(np.zeros(2))))
    file.create_dataset(checksums.SEAL, data=np.zeros(checksums.SEAL_BYTES, np.uint8))
    file.require_group("shortcuts")
    for name, width in contents.shortcuts.items():
        allocate(f"shortcuts/{name}", (width,), "float32")


def _write_texts(file: h5py.File, contents: CacheContents) -> None:
    texts = {"path": contents.paths, "label": contents.labels, "sha256": contents.sha256, "view": contents.view}
    if contents.twin_sha256:
        texts["twin_sha256"] = contents.twin_sha256
    texts |= {f"columns/{column_key(name)}": values for name, values in contents.columns.items()}
    for name, values in texts.items():
        file.create_dataset(name, data=np.array(list(values), dtype=object), dtype=_TEXT)
    for key in ("path", "reason", "sha256"):
        values = np.array([getattr(item, key) for item in contents.rejected], dtype=object)
        file.create_dataset(f"rejected/{key}", data=values, dtype=_TEXT)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path whose file replaces `path` at the end; nothing is left of it if that fails."""
    try:
        if is_expected(path):
            with where_checked(path) as checked:
                yield checked
        else:
            with whole_file(path) as partial:
                yield partial.path
    except DataError as error:  # something else has come to the name
        raise CacheError(str(error)) from error
    except (OSError, RuntimeError) as error:  # HDF5's own errors are of both kinds
        told = re.search(r"error message = '([^']*)'", str(error))
        plain = error.strerror if isinstance(error, OSError) else None
        reason = told[1] if told else plain or " ".join(str(error).split())
        advice = "Free some space, or give another output file."
        raise CacheError(f"{path} cannot be written ({reason}). {advice}") from error


def _carry_over(old: Any, new: Any, raw: RawFile, repair: bool) -> None:
    """Copy committed rows with equal content hashes, in blocks, so that memory does not grow with the cache."""
    contents, wanted = content_hashes(old), content_hashes(new)
    sound = sound_rows(old, contents, repair)
    known = {contents[row]: row for row in sound.tolist()}
    pairs = np.array([(row, known[text]) for row, text in enumerate(wanted) if text in known], dtype=np.int64)
    if "timing" in old:
        _store_timing(new, old["timing"][:])
    names = ["embeddings", *(f"shortcuts/{name}" for name in new["shortcuts"])]
    for start in range(0, len(pairs), 1024):
        target, origin = pairs[start : start + 1024].T
        unique, inverse = np.unique(origin, return_inverse=True)  # h5py reads increasing rows only
        copied = {name: old[name][unique][inverse] for name in names}
        for name, values in copied.items():
            new[name][target] = values
        shortcuts = {name.removeprefix("shortcuts/"): copied[name] for name in names[1:]}
        own = [wanted[row] for row in target.tolist()]
        new[checksums.ROWS][target] = checksums.row_checksums(new["embeddings"][target], shortcuts, own)
        new["committed"][target] = True
        raw.check()


def _store_timing(file: Any, timing: np.ndarray) -> None:
    file["timing"][:] = timing
    if checksums.TIMING in file:
        file[checksums.TIMING][()] = checksums.timing_checksum(timing)


class CacheWriter:
    """Writes rows of an existing cache, block by block.

    Use it as a context manager while holding `lock_cache`.
    """

    def __init__(self, path: Path, expected: Sequence[str] | None = None) -> None:
        """Open a cache.

        Args:
            path: path of the cache, not of a link to it.
            expected: content hash of each row, as the cache had them when it was checked; None compares nothing.

        Raises:
            CacheError: The file holds other rows than expected.
            OSError: It cannot be opened.
        """
        with contextlib.ExitStack() as stack:
            self._file, self._raw = stack.enter_context(open_for_writing(path, "r+"))
            changed = expected is not None and (look_at_objects(self._file, path)[0] or "sha256" not in self._file)
            self._contents = [] if changed else content_hashes(self._file)
            if changed or (expected is not None and self._contents != list(expected)):
                raise CacheError(
                    f"{path} was replaced by another program meanwhile, and is left as it is. Run the command again, "
                    "or give another output file."
                )
            self._opened = stack.pop_all()

    def __enter__(self) -> CacheWriter:
        """Return itself."""
        return self

    def __exit__(self, *exc: Any) -> None:
        """Close the file, and raise `OSError` if something was not written."""
        self._opened.__exit__(*exc)

    def _flush(self) -> None:
        self._raw.require_in_place()
        self._file.flush()
        self._raw.sync()

    def time(self, images: int, seconds: float) -> None:
        """Add images and seconds to the timing that the cache keeps."""
        datasets: Any = self._file
        if "timing" in datasets:  # early caches of 0.1.0 have none
            _store_timing(datasets, datasets["timing"][:] + np.array([images, seconds]))
            self._flush()

    def write(self, rows: np.ndarray, embeddings: np.ndarray, shortcuts: Mapping[str, np.ndarray]) -> None:
        """Store rows, and mark them as committed once they are on disk.

        Args:
            rows: increasing row numbers, int (block,).
            embeddings: embeddings, (block, views, dim).
            shortcuts: pixel statistics by name, (block, statistics).

        Raises:
            OSError: The rows could not be written.
        """
        if not len(rows):
            return
        datasets: Any = self._file
        # Consecutive rows are written as one slice, in a tenth of the time.
        where = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == len(rows) - 1 else rows
        stored = np.ascontiguousarray(embeddings, datasets["embeddings"].dtype)
        datasets["embeddings"][where] = stored
        for name, values in shortcuts.items():
            datasets[f"shortcuts/{name}"][where] = values
        if checksums.ROWS in datasets:  # caches of 0.1.0 have none
            numbers = {name: np.asarray(values, np.float32) for name, values in shortcuts.items()}
            own = [self._contents[row] for row in rows.tolist()]
            datasets[checksums.ROWS][where] = checksums.row_checksums(stored, numbers, own)
        self._flush()
        datasets["committed"][where] = True
        self._flush()
