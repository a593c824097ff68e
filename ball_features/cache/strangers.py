"""What a cache from a stranger must not do: lead to other files, or claim more memory than its bytes can fill."""

from __future__ import annotations

import os
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import h5py
import numpy as np

__all__ = ["budget", "fault_of_paths", "look_at_objects"]

_MOST_OBJECTS = 10_000
_GROUPS = ("shortcuts", "rejected", "columns", "checksums")
_TEXTS = ("path", "label", "sha256", "view", "twin_sha256")
_EXPANSION = 16  # embeddings hardly shrink when they are compressed
_FREE_BYTES = 64 << 20
_GZIP, _SHUFFLE, _SUM = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32
# What h5repack and the like make of a cache; packed last, so that the size of what unpacks is known.
_PACKINGS = [
    (),
    (_SUM,),
    (_SHUFFLE,),
    (_SHUFFLE, _SUM),
    (_GZIP,),
    (_GZIP, _SUM),
    (_SHUFFLE, _GZIP),
    (_SHUFFLE, _GZIP, _SUM),
]


def budget(path: Path | str) -> int:
    """Bytes that the contents of a file may take in memory."""
    return _EXPANSION * Path(path).stat().st_size + _FREE_BYTES


def look_at_objects(file: Any, path: Path | str) -> tuple[str, list[Any]]:
    """Look at the objects of an open HDF5 file, of which nothing is followed or allocated.

    Returns:
        The first object that no cache has, in words, or ""; and the data sets, all of them where there is no fault.
    """
    left, claimed, groups, found = _MOST_OBJECTS, 0, [("", file)], []
    fault = next((f"the attribute {name} is no single value" for name in file.attrs if _is_array(file, name)), "")
    while groups and not fault:
        prefix, group = groups.pop()
        for name in group:
            left -= 1
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return f"{prefix}{name} is a link to another place", found
            item = group[name]
            if isinstance(item, h5py.Group):
                if prefix or name not in _GROUPS:
                    return f"{prefix}{name} is a group that no cache has", found
                groups.append((f"{name}/", item))
                continue
            found.append(item)
            fault = fault or _fault_of_dataset(f"{prefix}{name}", item)
            claimed += 0 if fault else _claim(item)
        if left < 0:
            return f"it holds more than {_MOST_OBJECTS} objects", found
    if not fault and claimed > budget(path):  # before a chunk is unpacked
        size = Path(path).stat().st_size
        return f"it claims {claimed / 1e9:.1f} GB in a file of {size / 1e6:.1f} MB", found
    packed = (item for item in found if item.chunks) if not fault else ()
    return fault or next((f"{item.name[1:]} {said}" for item in packed if (said := _fault_of_packing(item))), ""), found


def _claim(item: Any) -> int:
    """Bytes in memory of a dataset, or of one chunk of it where that is larger."""
    shapes = [item.shape, *([item.chunks] if item.chunks else [])]
    return max(int(np.prod(shape, dtype=object)) for shape in shapes) * item.dtype.itemsize


def _fault_of_packing(item: Any) -> str:
    """What is wrong with the chunks of a dataset, in words, or ""; HDF5 itself unpacks them without a bound."""
    settings = item.id.get_create_plist()
    filters = tuple(settings.get_filter(number)[0] for number in range(settings.get_nfilters()))
    if filters not in _PACKINGS:
        return "is packed in a way that no cache is"
    size, places = int(np.prod(item.chunks)) * item.dtype.itemsize, []
    item.id.chunk_iter(lambda one: places.append(one.chunk_offset))
    for place in places if _GZIP in filters else ():
        _, data = item.id.read_direct_chunk(place)
        try:
            if len(zlib.decompressobj().decompress(data, size + 1)) > size:
                return "unpacks to more than its size"
        except zlib.error:  # not packed, or damaged, which HDF5 tells
            continue
    return ""


def _is_array(file: Any, name: str) -> bool:
    return file.attrs.get_id(name).shape != ()


def _fault_of_dataset(name: str, item: Any) -> str:
    if not isinstance(item, h5py.Dataset):
        return f"{name} is no dataset"
    if item.is_virtual or item.external:
        return f"{name} keeps its numbers in other files"
    if item.shape is None:
        return f"{name} is empty"
    top = name.partition("/")[0]
    if name in _TEXTS or top in ("columns", "rejected"):
        return "" if h5py.check_string_dtype(item.dtype) and item.ndim == 1 else f"{name} is no list of texts"
    if name == "committed" and item.dtype.itemsize != 1:
        return f"{name} is {item.dtype}, expected flags of one byte"
    kinds = {"embeddings": "f", "shortcuts": "f", "committed": "biu", "timing": "f", "checksums": "u"}
    if item.dtype.kind not in kinds.get(top, "biuf"):
        return f"{name} is {item.dtype}, which no cache has"
    ranks = {"shortcuts": 2, "committed": 1, "timing": 1}
    if item.ndim != ranks.get(top, item.ndim) or (name == "timing" and item.shape != (2,)):
        return f"{name} has the shape {item.shape}"
    return ""


def fault_of_paths(paths: np.ndarray) -> str:
    """The first id that occurs twice or leads out of the image folder, in words, or ""."""
    seen: set[str] = set()
    for path in paths.tolist():
        pure = PureWindowsPath(path) if os.name == "nt" else PurePosixPath(path)
        if path in seen:
            return f"the path {path!r} occurs twice"
        if not pure.parts or pure.anchor or ".." in pure.parts or "\0" in path:
            return f"the path {path!r} leads out of the image folder"
        seen.add(path)
    return ""
