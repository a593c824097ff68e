"""Verification of a whole cache against its checksums, without an end at the first fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ball_features.cache import checksums
from ball_features.cache.read import read_cache
from ball_features.cache.remote import local_copy
from ball_features.cache.schema import content_hashes

__all__ = ["Verification", "verify_cache"]


@dataclass(frozen=True, eq=False)
class Verification:
    """Result of `verify_cache`.

    Attributes:
        checked: whether the cache has checksums; those of early versions have none.
        images: number of images that are computed.
        damaged: rows whose numbers are not those that were written, increasing, int.
        paths: ids of these images.
        unmarked: rows that are whole, but are not marked as computed.
        index: whether texts, settings and structure are those that were written.
        timing: whether the measured speed is.
    """

    checked: bool
    images: int
    damaged: np.ndarray
    paths: tuple[str, ...]
    unmarked: int = 0
    index: bool = True
    timing: bool = True

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not len(self.damaged) and not self.unmarked and self.index and self.timing


def verify_cache(path: Path | str) -> Verification:
    """Compare everything in a cache with its checksums.

    Raises:
        CacheError: The file is missing, is no cache, or cannot be read as one at all.
    """
    path = local_copy(path)
    cache = read_cache(path, embeddings=False, verify=False)
    computed = np.flatnonzero(cache.committed)
    with h5py.File(path, "r", locking=False) as opened:
        file: Any = opened
        stored, embeddings = checksums.stored_checksums(file), file["embeddings"]
        if stored is None:
            damaged = checksums.unfinite_rows(embeddings, computed)
            return Verification(False, len(computed), damaged, tuple(cache.path[damaged].tolist()))
        shortcuts = {name: file[f"shortcuts/{name}"] for name in file["shortcuts"]}
        contents, flags = content_hashes(file), file["committed"][:].view(np.uint8)
        damaged = checksums.broken_rows(stored, embeddings, shortcuts, contents, computed)
        damaged = np.union1d(damaged, np.flatnonzero(flags > 1))
        open_rows = np.flatnonzero((flags == 0) & (stored != 0))
        open_broken = checksums.broken_rows(stored, embeddings, shortcuts, contents, open_rows)
        return Verification(
            checked=True,
            images=len(computed),
            damaged=damaged,
            paths=tuple(cache.path[damaged].tolist()),
            unmarked=len(open_rows) - len(open_broken),
            index=checksums.is_sealed(file, path),
            timing=checksums.is_timed(file),
        )
