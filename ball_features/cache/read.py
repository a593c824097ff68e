"""Reading a cache, whole or without its embeddings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ball_features.cache.schema import SCHEMA_VERSION, Cache, file_identity
from ball_features.dataset.manifest import Rejected
from ball_features.errors import CacheError

__all__ = ["MAPPED_FROM", "read_cache"]

MAPPED_FROM = 1_000_000  # bytes of embeddings; less is read, and owes nothing to the file any more
_NEEDED = ("backbone", "batch_size", "fingerprint", "precision", "recipe")  # attributes that others read


def read_cache(path: Path | str, *, embeddings: bool = True) -> Cache:
    """Read a cache whole.

    Args:
        path: The HDF5 file.
        embeddings: False leaves the large array out (an empty one of the right width stands in).

    Raises:
        CacheError: The file is missing, no cache, damaged, or of another schema.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise CacheError(f"No cache at {path}. Make one: ball extract IMAGES --out {path}")
        if path.is_dir():
            raise CacheError(
                f"Got the folder {path}, expected a cache. Name the file, or make one of a folder of images: "
                "ball extract IMAGES --out FILE.h5"
            )
    except OSError as error:  # a name that is too long, or in a folder that may not be entered
        raise CacheError(f"{path} cannot be read ({error.strerror}). Name another.") from error
    again = f"Make it again: ball extract IMAGES --out {path} --overwrite"
    try:
        if not h5py.is_hdf5(path):
            with path.open("rb"):  # says so where it may not be read
                raise CacheError(f"{path} is not a cache of ball: no HDF5 file, or damaged. Name another. {again}")
        with h5py.File(path, "r", locking=False) as file:
            version = file.attrs.get("schema_version")
            if version != SCHEMA_VERSION:
                raise CacheError(f"{path} has schema version {version}, expected {SCHEMA_VERSION}. {again}")
            fault = _fault(file)
            if fault:
                raise CacheError(f"{path} was changed by other hands or is damaged: {fault}. {again}")
            return _read(file, embeddings)
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read ({error.strerror}). Ask its owner, or name another.") from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise CacheError(f"{path} is damaged, or was not closed ({error}). {again}") from error


def _fault(file: Any) -> str:
    """What a file of this schema lacks, or has of the wrong shape, or ""."""
    texts = ["path", "label", "sha256"]
    names = ["embeddings", *texts, "committed", "view", *(f"rejected/{key}" for key in ("path", "reason", "sha256"))]
    lacking = [name for name in [*names, "shortcuts"] if name not in file]
    lacking += [f"the attribute {name}" for name in _NEEDED if name not in file.attrs]
    if lacking:
        return f"it lacks {', '.join(lacking)}"
    stored = file["embeddings"]
    if stored.ndim != 3 or stored.dtype.kind != "f":
        return f"embeddings is {stored.dtype}{stored.shape}, expected floats (images, views, numbers)"
    rows = [*texts, "committed", *(f"shortcuts/{name}" for name in file["shortcuts"])]
    rows += ["twin_sha256"] if "twin_sha256" in file else []
    for name, count in [*((name, stored.shape[0]) for name in rows), ("view", stored.shape[1])]:
        if len(file[name]) != count:
            return f"{name} has {len(file[name])} rows, expected {count} for embeddings of {stored.shape}"
    return ""


def _read(file: h5py.File, embeddings: bool) -> Cache:
    def dataset(name: str) -> Any:
        return file[name]

    def text(name: str) -> np.ndarray:
        values = dataset(name).asstr()[:]
        return values.astype(str) if len(values) else np.empty(0, dtype="<U1")

    stored, mapped = dataset("embeddings"), None
    offset = _extent(stored) if embeddings and stored.nbytes >= MAPPED_FROM else None
    if offset is not None:
        path = Path(file.filename)
        data: np.ndarray = np.memmap(path, stored.dtype, "r", offset, stored.shape)
        mapped = (path.resolve(), file_identity(path))
    elif embeddings:
        data = np.empty(stored.shape, stored.dtype)
        if data.size:
            stored.read_direct(data)  # straight into the array: no second copy
    else:
        data = np.empty((0, *stored.shape[1:]), stored.dtype)
    rejected = zip(text("rejected/path"), text("rejected/reason"), text("rejected/sha256"), strict=True)
    return Cache(
        embeddings=data,
        path=text("path"),
        label=text("label"),
        sha256=text("sha256"),
        committed=dataset("committed")[:].astype(bool),
        view=tuple(str(name) for name in text("view")),
        shortcuts={name: dataset(f"shortcuts/{name}")[:] for name in dataset("shortcuts")},
        attributes={key: _from_attribute(value) for key, value in file.attrs.items()},
        rejected=tuple(Rejected(str(p), str(reason), str(sha)) for p, reason, sha in rejected),
        twin_sha256=text("twin_sha256") if "twin_sha256" in file else np.empty(0, dtype="<U1"),
        images_per_s=_rate(file),
        mapped=mapped,
    )


def _extent(stored: Any) -> int | None:
    """Where the rows of a dataset begin in its file, if they lie there as they are, one behind the other."""
    if (
        os.name == "nt" or stored.chunks is None or stored.chunks[1:] != stored.shape[1:]
    ):  # there a map forbids renaming
        return None
    places: list[tuple[int, int, int, int]] = []
    stored.id.chunk_iter(lambda one: places.append((one.chunk_offset[0], one.byte_offset, one.size, one.filter_mask)))
    places.sort()
    step = int(np.prod(stored.chunks)) * stored.dtype.itemsize
    start = places[0][1] if places else 0
    wanted = [(number * stored.chunks[0], start + number * step, step, 0) for number in range(len(places))]
    whole = len(places) == -(-stored.shape[0] // stored.chunks[0])
    plain = stored.compression is None and not stored.shuffle and not stored.fletcher32 and stored.dtype.isnative
    return start if places and whole and plain and places == wanted else None


def _rate(file: Any) -> float:
    images, seconds = file["timing"][:] if "timing" in file else (0, 0)
    return float(images / seconds) if seconds > 0 else float("nan")


def _from_attribute(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and value.startswith("json:"):
        return json.loads(value[5:])
    return value
