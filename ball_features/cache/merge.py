"""Merging of shards: caches of parts of one collection become one cache, with the rows of a single extraction."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ball_features.cache.attributes import LABELLING, LISTING, SHARD
from ball_features.cache.lock import lock_cache
from ball_features.cache.read import read_cache
from ball_features.cache.remote import local_copy, written
from ball_features.cache.schema import Cache
from ball_features.cache.write import CacheContents, CacheWriter, create_cache
from ball_features.config.paths import is_address
from ball_features.dataset.listing import natural_key
from ball_features.errors import CacheError
from ball_features.files import clear_partial, free_name, is_changed, is_expected, partial_of, settle
from ball_features.outputs import require_outside_bundles, require_writable

__all__ = ["Merged", "merge"]

_NAMED = 10  # missing shards that a message lists
_BLOCK = 2048  # rows that are copied at a time
# What differs between shards of one collection without changing a number.
_OF_SHARDS = (SHARD, LISTING, LABELLING)
_FREE = (*_OF_SHARDS, "created", "device", "batch_size", "images", "versions", "ball_version")
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


def merge(shards: Sequence[Path | str], out: Path | str, *, overwrite: bool = False) -> Merged:
    """Merge caches of parts of one collection into one cache.

    Rows are in the order of a single extraction of the whole collection. Memory does not grow with the caches: rows are
    copied block by block.

    Args:
        shards: paths or addresses of two or more caches with equal settings, all complete, or of the one shard of
            one. Shards that know their number must be all there.
        out: path or address of the cache to write, which must not exist.
        overwrite: replace a file of that name, if it is a cache and none of the shards.

    Raises:
        CacheError: A cache cannot be read, is not complete or has other settings; a shard is missing; one image has two
            contents, classes or other cells; there is no image; or the output exists or cannot be written.
        DataError: The output lies in a bundle, is one of the shards, or would replace a file that is no cache.
    """
    if is_address(out):
        with written(out, anew=not overwrite) as work:
            return replace(merge(shards, work, overwrite=overwrite), cache=Path(out))
    given = [shards] if isinstance(shards, str | Path) else shards
    paths, out = [local_copy(path) for path in given], Path(out)
    if os.path.lexists(out) and not overwrite:
        raise CacheError(f"{out} exists. Give another output file, or remove it first.")
    require_outside_bundles(out, "output file")
    if overwrite and not is_expected(out):
        require_writable(out, kind="cache", inputs=paths)
    caches = [read_cache(path) for path in paths]
    if len(paths) < 2 and [own.attributes.get(SHARD) for own in caches] != [[1, 1]]:
        raise CacheError(f"Got {len(paths)} cache, expected two or more shards of one collection.")
    _require_complete(paths, caches)
    _require_equal_settings(paths, caches)
    _require_all_shards(paths, caches)
    _require_one_listing(paths, caches)
    rows, repeated = _rows(paths, caches)
    contents = _contents(caches, rows)
    if not rows:
        listed = "".join(f"\n  {item.path}: {item.reason}" for item in contents.rejected[:5])
        raise CacheError(f"No image of these shards can be used, expected one or more. Rejected files:{listed}")
    clear_partial(out.parent, out.name)
    partial = partial_of(out)
    with lock_cache(out):
        if _is_taken(out, overwrite):
            raise CacheError(f"{out} exists by now. Give another output file, or remove it first.")
        try:
            create_cache(partial, contents)
            _copy(partial, caches, rows)
            if _is_taken(out, overwrite):
                kept = settle(partial, free_name(out))
                raise CacheError(f"{out} was made by another program meanwhile, and stays. The merged cache is {kept}.")
            settle(partial, out)
        except OSError as error:
            raise CacheError(f"{out} cannot be written ({error}). Free some space, or give another file.") from error
        finally:
            partial.unlink(missing_ok=True)
    return Merged(out, len(rows), len(caches), repeated, len(contents.rejected))


def _is_taken(out: Path, overwrite: bool) -> bool:
    return is_changed(out) if overwrite else os.path.lexists(out)


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
        if wrong or _layout(cache) != _layout(first):
            listed = "; ".join(
                f"{key}: {str(first.attributes.get(key))[:40]} and {str(cache.attributes.get(key))[:40]}"
                for key in wrong[:3]
            )
            told = listed or "views, number format, length of embeddings or pixel statistics"
            raise CacheError(
                f"{paths[0]} and {path} were made with different settings ({told}). "
                "Extract all shards with the same command; give the precision by name if machines differ."
            )
    if len({len(cache.twin_sha256) > 0 for cache in caches if len(cache.path)}) > 1:
        raise CacheError(
            "Got shards with and without hashes of segmented twins. Extract all shards with the same command."
        )


def _layout(cache: Cache) -> tuple[object, ...]:
    widths = {name: values.shape[1] for name, values in cache.shortcuts.items()}
    return cache.view, cache.embeddings.dtype, cache.embeddings.shape[1:], widths


def _require_all_shards(paths: Sequence[Path], caches: Sequence[Cache]) -> None:
    known = [cache.attributes[SHARD] for cache in caches if SHARD in cache.attributes]
    if not known:
        return
    if len(known) < len(caches):
        path = next(path for path, cache in zip(paths, caches, strict=True) if SHARD not in cache.attributes)
        raise CacheError(f"{path} does not know which shard it is, and others do. Give shards of one extraction.")
    given, totals = Counter(own[0] for own in known), {own[1] for own in known}
    if len(totals) > 1:
        raise CacheError(f"Got shards of {' and '.join(map(str, sorted(totals)))}, expected shards of one extraction.")
    total = totals.pop()
    twice = sorted(number for number, count in given.items() if count > 1)
    if len(given) < total or twice:
        what = _missing(given, total) if len(given) < total else f"shard {twice[0]} is given twice"
        raise CacheError(f"Got {len(known)} caches of {total} shards: {what}. Give every shard once.")


def _require_one_listing(paths: Sequence[Path], caches: Sequence[Cache]) -> None:
    """Raise for shards that were dealt from different images or tables: some are then in no shard, others in two."""
    # Shards of version 0.1.0 have no listing.
    known = [(path, cache.attributes[LISTING]) for path, cache in zip(paths, caches, strict=True)
             if LISTING in cache.attributes]  # fmt: skip
    for path, listing in known[1:]:
        first, expected = known[0]
        if listing != expected:
            counts = [own.partition(":")[0] for own in (expected, listing)]
            several = counts[0] != counts[1]
            told = f"of {counts[0]} images, and {path} of {counts[1]}" if several else f"of other images than {path}"
            raise CacheError(
                f"{first} is a shard {told}: images were added, removed or renamed between their extractions, so that "
                "some are in no shard. Run the extraction of every shard again, on the same images; it computes only "
                "what is missing."
            )
    told = [(path, cache.attributes[LABELLING]) for path, cache in zip(paths, caches, strict=True)
            if LABELLING in cache.attributes]  # fmt: skip
    other = next((path for path, labelling in told if labelling != told[0][1]), None)
    if other is not None:
        raise CacheError(
            f"{told[0][0]} and {other} are shards with other classes or columns: the sheet or the layout was another "
            "one, or a sheet changed between their extractions. Run the extraction of every shard again, with the same "
            "sheet; no image is computed again."
        )


def _missing(given: Mapping[int, int], total: int) -> str:
    """The first shards that are not given, and how many others are not, in words."""
    named = [*itertools.islice((number for number in range(1, total + 1) if number not in given), _NAMED)]
    others = total - len(given) - len(named)
    more = f" and {others} more are missing" if others else f" {'is' if len(named) == 1 else 'are'} missing"
    return f"shard{'s' if len(named) > 1 else ''} {', '.join(map(str, named))}{more}"


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
    twins = any(len(cache.twin_sha256) for cache in caches)  # a shard without an image has none
    names = list(dict.fromkeys(name for cache in caches for name in cache.columns))
    shortcuts = {name: values.shape[1] for name, values in first.shortcuts.items()}
    rejected = {item.path: item for cache in caches for item in cache.rejected}
    attributes: Mapping[str, object] = {key: first.attributes[key] for key in first.attributes if key not in _OF_SHARDS}

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
        twin_sha256=[str(caches[n].twin_sha256[row]) for n, row in rows] if twins else (),
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
