"""Merging of shards: caches of parts of one collection become one cache, with the rows of a single extraction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ball_features.cache.lock import lock_cache
from ball_features.cache.read import read_cache
from ball_features.cache.remote import local_copy, written
from ball_features.cache.schema import Cache
from ball_features.cache.write import CacheContents, CacheWriter, create_cache
from ball_features.config.paths import is_address
from ball_features.dataset.listing import natural_key
from ball_features.errors import CacheError
from ball_features.files import clear_partial, free_name, partial_of, settle

__all__ = ["SHARD", "Merged", "merge"]

SHARD = "shard"  # attribute of a shard: its number, from 1, and the number of shards
_BLOCK = 2048  # rows that are copied at a time
# What differs between shards of one collection without changing a number.
_FREE = (SHARD, "created", "device", "batch_size", "images", "versions", "ball_version")
_MEASURED = ("deviation_cosine", "deviation_relative", "deviation_images")


@dataclass(frozen=True)
class Merged:
    """Result of a merge.

    Attributes:
        cache: path of the cache.
        images: number of images in it.
        shards: number of shards.
        repeated: images that several shards held, of equal content.
        rejected: number of files that could not be used.
    """

    cache: Path
    images: int
    shards: int
    repeated: int
    rejected: int


def merge(shards: Sequence[Path | str], out: Path | str) -> Merged:
    """Merge caches of parts of one collection into one cache.

    Rows are in the order of a single extraction of the whole collection. Memory does not grow with the caches: rows are
    copied block by block.

    Args:
        shards: paths or addresses of two or more caches with equal settings, all complete. Shards that know their
            number must be all there.
        out: path or address of the cache to write, which must not exist.

    Raises:
        CacheError: A cache cannot be read, is not complete or has other settings; a shard is missing; one image has two
            contents, classes or other cells; or the output exists or cannot be written.
    """
    if is_address(out):
        with written(out, anew=True) as work:
            return replace(merge(shards, work), cache=Path(out))
    paths, out = [local_copy(path) for path in shards], Path(out)
    if len(paths) < 2:
        raise CacheError(f"Got {len(paths)} cache, expected two or more shards of one collection.")
    if os.path.lexists(out):
        raise CacheError(f"{out} exists. Give another output file, or remove it first.")
    caches = [read_cache(path) for path in paths]
    _require_complete(paths, caches)
    _require_equal_settings(paths, caches)
    _require_all_shards(paths, caches)
    rows, repeated = _rows(paths, caches)
    contents = _contents(caches, rows)
    clear_partial(out.parent, out.name)
    partial = partial_of(out)
    with lock_cache(out):
        if os.path.lexists(out):
            raise CacheError(f"{out} exists by now. Give another output file, or remove it first.")
        try:
            create_cache(partial, contents)
            _copy(partial, caches, rows)
            if os.path.lexists(out):
                kept = settle(partial, free_name(out))
                raise CacheError(f"{out} was made by another program meanwhile, and stays. The merged cache is {kept}.")
            settle(partial, out)
        except OSError as error:
            raise CacheError(f"{out} cannot be written ({error}). Free some space, or give another file.") from error
        finally:
            partial.unlink(missing_ok=True)
    return Merged(out, len(rows), len(caches), repeated, len(contents.rejected))


def _require_complete(paths: Sequence[Path], caches: Sequence[Cache]) -> None:
    open_ = [f"{path} ({int((~cache.committed).sum())} rows missing)" for path, cache in zip(paths, caches, strict=True)
             if not cache.complete]  # fmt: skip
    if open_:
        raise CacheError(f"Got shards that are not complete: {', '.join(open_)}. Run their extraction again.")


def _require_equal_settings(paths: Sequence[Path], caches: Sequence[Cache]) -> None:
    first = caches[0]
    for path, cache in zip(paths[1:], caches[1:], strict=True):
        keys = {*first.attributes, *cache.attributes} - {*_FREE, *_MEASURED}
        wrong = sorted(key for key in keys if cache.attributes.get(key) != first.attributes.get(key))
        if wrong or cache.view != first.view or cache.embeddings.dtype != first.embeddings.dtype:
            listed = "; ".join(
                f"{key}: {str(first.attributes.get(key))[:40]} and {str(cache.attributes.get(key))[:40]}"
                for key in wrong[:3]
            )
            raise CacheError(
                f"{paths[0]} and {path} were made with different settings ({listed or 'views or number format'}). "
                "Extract all shards with the same command; give the precision by name if machines differ."
            )


def _require_all_shards(paths: Sequence[Path], caches: Sequence[Cache]) -> None:
    known = [cache.attributes[SHARD] for cache in caches if SHARD in cache.attributes]
    if not known:
        return
    if len(known) < len(caches):
        path = next(path for path, cache in zip(paths, caches, strict=True) if SHARD not in cache.attributes)
        raise CacheError(f"{path} does not know which shard it is, and others do. Give shards of one extraction.")
    numbers, totals = sorted(int(own[0]) for own in known), {int(own[1]) for own in known}
    if len(totals) > 1:
        raise CacheError(f"Got shards of {' and '.join(map(str, sorted(totals)))}, expected shards of one extraction.")
    total = totals.pop()
    missing = sorted(set(range(1, total + 1)) - set(numbers))
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if missing or twice:
        what = f"shard {', '.join(map(str, missing))} is missing" if missing else f"shard {twice[0]} is given twice"
        raise CacheError(f"Got {len(numbers)} caches of {total} shards: {what}. Give every shard once.")


def _rows(paths: Sequence[Path], caches: Sequence[Cache]) -> tuple[list[tuple[int, int]], int]:
    """(shard, row) of each image in the order of the merged cache, and the number of images met again."""
    seen: dict[str, tuple[int, int]] = {}
    repeated = 0
    for number, cache in enumerate(caches):
        for row, path in enumerate(cache.path.tolist()):
            if path not in seen:
                seen[path] = (number, row)
                continue
            other, there = seen[path]
            if _cells(caches[other], there) != _cells(cache, row):
                raise CacheError(
                    f"{paths[other]} and {paths[number]} both hold {path}, with different content or columns. Give "
                    "shards of one extraction."
                )
            repeated += 1
    return [seen[path] for path in sorted(seen, key=natural_key)], repeated


def _cells(cache: Cache, row: int) -> tuple[str, ...]:
    own = {name: str(values[row]) for name, values in cache.columns.items() if values[row]}
    return (str(cache.content[row]), str(cache.label[row]), *(f"{name}={own[name]}" for name in sorted(own)))


def _contents(caches: Sequence[Cache], rows: Sequence[tuple[int, int]]) -> CacheContents:
    first = caches[0]
    names = list(dict.fromkeys(name for cache in caches for name in cache.columns))
    shortcuts = {name: values.shape[1] for name, values in first.shortcuts.items()}
    rejected = {item.path: item for cache in caches for item in cache.rejected}
    attributes: Mapping[str, object] = {key: value for key, value in first.attributes.items() if key != SHARD}

    def cells(name: str) -> list[str]:
        return [str(caches[n].columns[name][row]) if name in caches[n].columns else "" for n, row in rows]

    return CacheContents(
        paths=[str(caches[n].path[row]) for n, row in rows],
        labels=[str(caches[n].label[row]) for n, row in rows],
        sha256=[str(caches[n].sha256[row]) for n, row in rows],
        view=first.view,
        dim=first.embeddings.shape[2],
        dtype=str(first.embeddings.dtype),
        shortcuts=shortcuts,
        attributes=attributes,
        rejected=[rejected[path] for path in sorted(rejected)],
        twin_sha256=[str(caches[n].twin_sha256[row]) for n, row in rows] if len(first.twin_sha256) else (),
        columns={name: cells(name) for name in names},
    )


def _copy(path: Path, caches: Sequence[Cache], rows: Sequence[tuple[int, int]]) -> None:
    origin = np.array(rows, dtype=np.int64).reshape(-1, 2)
    first = caches[0]
    with CacheWriter(path) as writer:
        for start in range(0, len(origin), _BLOCK):
            block = origin[start : start + _BLOCK]
            embeddings = np.empty((len(block), *first.embeddings.shape[1:]), first.embeddings.dtype)
            shortcuts = {
                name: np.empty((len(block), values.shape[1]), np.float32) for name, values in first.shortcuts.items()
            }
            for number in np.unique(block[:, 0]).tolist():
                here = block[:, 0] == number
                source = block[here, 1]
                embeddings[here] = caches[number].embeddings[source]
                for name, values in shortcuts.items():
                    values[here] = caches[number].shortcuts[name][source]
            writer.write(np.arange(start, start + len(block)), embeddings, shortcuts)
