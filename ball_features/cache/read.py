"""Reading a cache, whole or without its embeddings."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ball_features.cache import checksums
from ball_features.cache.attributes import REQUIRED_ATTRIBUTES, fault_of_attributes, fault_of_shape, read_attributes
from ball_features.cache.heaps import watched
from ball_features.cache.remote import local_copy
from ball_features.cache.schema import SCHEMA_VERSION, Cache, column_name, file_identity
from ball_features.cache.strangers import budget, fault_of_paths, look_at_objects
from ball_features.config.paths import called, shown_path
from ball_features.dataset.manifest import Rejected
from ball_features.errors import CacheError
from ball_features.files import open_regular

__all__ = ["MAPPED_FROM", "read_cache", "sound_rows"]

MAPPED_FROM = 1_000_000  # bytes of embeddings; a smaller array is read, and no longer depends on the file
_TEXTS_AT_ONCE = 4096
_REPAIR = (
    "Extract the images again with `ball extract` into this file and repair=True: only what is damaged is computed."
)


def read_cache(path: Path | str, *, embeddings: bool = True, verify: bool = True) -> Cache:
    """Read a cache, and compare what is read with its checksums.

    Args:
        path: path of the HDF5 file, or its address, of which a copy is fetched (`cache.remote`).
        embeddings: read the embeddings too; an empty array of the right width replaces them otherwise.
        verify: False leaves out the comparison, for a repair.

    Raises:
        CacheError: The file is missing, no cache, damaged, or of another schema; or it holds what no cache holds, such
            as a link to another file or a claim of more memory than its size warrants.
    """
    own = local_copy(path)
    if own == Path(path):
        return _read_local(own, embeddings, verify)
    with called(own, shown_path(path)):
        return _read_local(own, embeddings, verify)


def _read_local(path: Path, embeddings: bool, verify: bool) -> Cache:
    try:
        if not path.exists():
            raise CacheError(f"No cache at {path}. Make one with `ball extract`.")
        if path.is_dir():
            raise CacheError(
                f"Got the folder {path}, expected a cache. Give the file of a cache; `ball extract` makes one from a "
                "folder of images."
            )
        open_regular(path).close()  # HDF5 would wait for a pipe
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read ({error.strerror}). Ask its owner, or give another file.") from error
    except OSError as error:  # a name that is too long, a pipe, a device
        raise CacheError(
            f"{path} cannot be read ({error.strerror}). Give another file; `ball extract` makes a cache from a folder "
            "of images."
        ) from error
    again = "Extract the images again with `ball extract`, into another file or over this one."
    try:
        if not h5py.is_hdf5(path):
            raise CacheError(
                f"{path} is not a cache of ball: not an HDF5 file, or damaged. Give another file; `ball extract` "
                "makes a cache from a folder of images."
            )
        with watched(path) as (file, below):
            fault, datasets = look_at_objects(file, path)
            if fault:
                raise CacheError(
                    f"{path} was refused: {fault}. No cache that ball writes holds this; get it again from its maker, "
                    "or give another file."
                )
            below.look_at_texts(file, datasets)
        with h5py.File(path, "r", locking=False) as opened:
            file = _EachOnce(opened)
            version = file.attrs.get("schema_version")
            if version != SCHEMA_VERSION:
                raise CacheError(
                    f"{path} has schema version {str(version)[:100]}, expected {SCHEMA_VERSION}. Read it with "
                    "the version of ball that wrote it, or extract the images into another file."
                )
            attributes = read_attributes(file)
            fault = _fault(file, attributes)
            if fault:
                raise CacheError(f"{path} is damaged, or another program changed it: {fault}. {again}")
            cache = _read(file, attributes, embeddings)
            fault = fault_of_paths(cache.path)
            if fault:
                raise CacheError(f"{path} is damaged, or another program changed it: {fault}. {again}")
            if verify and not checksums.is_sealed(file, path):
                raise CacheError(
                    f"{path} is damaged, or another program changed it: its texts or settings are not those that were "
                    f"written. {_REPAIR}"
                )
            if verify and embeddings:
                _require_sound(file, cache, path)
            return cache
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read ({error.strerror}). Ask its owner, or give another file.") from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise CacheError(f"{path} is damaged, or was not closed ({error}). {again}") from error


class _EachOnce:
    """An open file whose objects are each looked up once, which takes HDF5 longer than to read a small one."""

    def __init__(self, file: h5py.File) -> None:
        self.filename = file.filename
        self.attrs = file.attrs
        self._find = functools.cache(file.get)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def __getitem__(self, name: str) -> Any:
        found = self._find(name)
        if found is None:
            raise KeyError(f"it has no {name}")
        return found

    def get(self, name: str) -> Any:
        return self._find(name)


def _require_sound(file: Any, cache: Cache, path: Path) -> None:
    """Raise `CacheError` for rows that do not match their checksums, or are not finite where there are none."""
    rows, stored = np.flatnonzero(cache.committed), checksums.stored_checksums(file)
    if stored is None:
        broken = checksums.unfinite_rows(cache.embeddings, rows)
    else:
        contents = cache.content.tolist()
        broken = checksums.broken_rows(stored, cache.embeddings, cache.shortcuts, contents, rows)
    if len(broken):
        raise CacheError(_damaged(path, cache.path[broken].tolist()))


def _damaged(path: Path | str, paths: list[str]) -> str:
    first = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    return f"{path} is damaged: the numbers of {len(paths)} images are not those that were written ({first}). {_REPAIR}"


def sound_rows(file: Any, contents: list[str], repair: bool) -> np.ndarray:
    """Committed rows of an open cache that match their checksums, increasing.

    Args:
        file: open cache.
        contents: content hash of each row.
        repair: whether damaged rows are left out; otherwise they are an error.

    Raises:
        CacheError: Rows are damaged.
    """
    rows, stored = np.flatnonzero(file["committed"][:]), checksums.stored_checksums(file)
    if stored is None:
        return np.setdiff1d(rows, checksums.unfinite_rows(file["embeddings"], rows)) if repair else rows
    shortcuts = {name: file[f"shortcuts/{name}"] for name in file["shortcuts"]}
    broken = checksums.broken_rows(stored, file["embeddings"], shortcuts, contents, rows)
    if len(broken) and not repair:
        raise CacheError(_damaged(file.filename, file["path"].asstr()[:][broken].tolist()))
    return np.setdiff1d(rows, broken)


def _fault(file: Any, attributes: Mapping[str, Any]) -> str:
    """The first dataset that is missing or has the wrong shape, in words, or ""."""
    texts = ["path", "label", "sha256"]
    names = ["embeddings", *texts, "committed", "view", *(f"rejected/{key}" for key in ("path", "reason", "sha256"))]
    lacking = [name for name in [*names, "shortcuts"] if name not in file]
    lacking += [f"the attribute {name}" for name in REQUIRED_ATTRIBUTES if name not in attributes]
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    fault = fault_of_attributes(attributes)
    if fault:
        return fault
    stored = file["embeddings"]
    if stored.ndim != 3 or stored.dtype.kind != "f":
        return f"embeddings is {stored.dtype}{stored.shape}, expected floats (images, views, numbers)"
    if stored.shape[0] and not stored.shape[1] * stored.shape[2]:
        return f"embeddings has the shape {stored.shape}, without a number"
    fault = fault_of_shape(attributes, stored.shape[1], stored.dtype.name)
    if fault:
        return fault
    rows = [*texts, "committed", *(f"shortcuts/{name}" for name in file["shortcuts"])]
    rows += [f"columns/{name}" for name in (file["columns"] if "columns" in file else ())]
    rows += ["twin_sha256"] if "twin_sha256" in file else []
    for name, count in [*((name, stored.shape[0]) for name in rows), ("view", stored.shape[1])]:
        if (found := len(file[name])) != count:
            return f"{name} has {found} rows, expected {count} for embeddings of {stored.shape}"
    return ""


def _read(file: Any, attributes: Mapping[str, Any], embeddings: bool) -> Cache:
    left = budget(file.filename)

    def text(name: str) -> np.ndarray:
        nonlocal left
        values, longest = [], 0
        for start in range(0, len(file[name]), _TEXTS_AT_ONCE):
            part = file[name].asstr()[start : start + _TEXTS_AT_ONCE].tolist()
            values += part
            left -= sum(map(len, part))
            longest = max(longest, *map(len, part))
            if left < 0 or 4 * longest * len(file[name]) > 4 * budget(file.filename):
                raise ValueError(f"{name} claims more text than the file can hold")
        return np.array(values, dtype=str) if values else np.empty(0, dtype="<U1")

    committed = file["committed"][:].astype(bool)  # before the rows, of which a writer may add some meanwhile
    stored, mapped, mapped_data = file["embeddings"], None, None
    offset = _extent(stored) if embeddings and stored.nbytes >= MAPPED_FROM else None
    if offset is not None:
        path = Path(file.filename)
        try:
            mapped_data = np.memmap(path, stored.dtype, "r", offset, stored.shape)
            mapped = (path.resolve(), file_identity(path))
        except OSError:  # a file system without memory maps, such as some of clusters
            mapped_data = None
    data: np.ndarray
    if mapped_data is not None:
        data = mapped_data
    elif embeddings:
        data = np.empty(stored.shape, stored.dtype)
        if data.size:
            stored.read_direct(data)  # directly into the array: no second copy
    else:
        data = np.empty((0, *stored.shape[1:]), stored.dtype)
    rejected = zip(text("rejected/path"), text("rejected/reason"), text("rejected/sha256"), strict=True)
    return Cache(
        embeddings=data,
        path=text("path"),
        label=text("label"),
        sha256=text("sha256"),
        committed=committed,
        view=tuple(str(name) for name in text("view")),
        shortcuts={name: file[f"shortcuts/{name}"][:] for name in file["shortcuts"]},
        attributes=dict(attributes),
        rejected=tuple(Rejected(str(p), str(reason), str(sha)) for p, reason, sha in rejected),
        twin_sha256=text("twin_sha256") if "twin_sha256" in file else np.empty(0, dtype="<U1"),
        columns={column_name(key): text(f"columns/{key}") for key in (file["columns"] if "columns" in file else ())},
        images_per_s=_rate(file),
        mapped=mapped,
    )


def _extent(stored: Any) -> int | None:
    """Offset of a dataset's rows in its file in bytes, if they are contiguous and uncompressed; None otherwise."""
    if os.name == "nt":  # a mapped file cannot be renamed there
        return None
    plain = stored.compression is None and not stored.shuffle and not stored.fletcher32 and stored.dtype.isnative
    if stored.chunks is None:
        return stored.id.get_offset() if plain else None
    if stored.chunks[1:] != stored.shape[1:]:  # of caches before version 0.2, whose rows lay in chunks
        return None
    places: list[tuple[int, int, int, int]] = []
    stored.id.chunk_iter(lambda one: places.append((one.chunk_offset[0], one.byte_offset, one.size, one.filter_mask)))
    places.sort()
    step = int(np.prod(stored.chunks)) * stored.dtype.itemsize
    start = places[0][1] if places else 0
    wanted = [(number * stored.chunks[0], start + number * step, step, 0) for number in range(len(places))]
    whole = len(places) == -(-stored.shape[0] // stored.chunks[0])
    return start if places and whole and plain and places == wanted else None


def _rate(file: Any) -> float:
    images, seconds = file["timing"][:] if "timing" in file else (0, 0)
    return float(images / seconds) if seconds > 0 else float("nan")
