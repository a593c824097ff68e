"""The training images that lie nearest to an image, by the cosine of their plain embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ball_features.cache import Cache
from ball_features.reporting.map_columns import unit_length

__all__ = ["Neighbours"]

NEAREST = 3
HELD = 20_000  # images whose embeddings are compared at once: 150 MB of 1,920 numbers

Query = tuple[str, tuple[str, str]]  # path of an image, and (repeat, fold) of the split that tested it


class Neighbours:
    """The training images, of the split that tested an image, that lie nearest to it.

    Args:
        cache: cache with its embeddings.
        trained: (repeat, fold) -> paths of the training images.
    """

    def __init__(self, cache: Cache, trained: Mapping[tuple[str, str], Sequence[str]]) -> None:
        self._cache, self._path = cache, cache.path
        self._row = {path: row for row, path in enumerate(cache.path.tolist())}
        self._trained = trained
        whole = len(self._path) <= HELD
        self._held = unit_length(self._cache, np.arange(len(self._path))) if whole else None

    def of(self, queries: Sequence[Query]) -> list[list[str]]:
        """Return the paths of the nearest training images of each query, the nearest first."""
        rows = {key: self._rows_of(key) for key in {key for _, key in queries}}
        asked = [number for number, (path, key) in enumerate(queries) if path in self._row and len(rows[key])]
        found: list[list[str]] = [[] for _ in queries]
        own = [self._row[queries[number][0]] for number in asked]
        for number, near in zip(asked, self._search(own, [rows[queries[number][1]] for number in asked]), strict=True):
            found[number] = self._path[near].tolist()
        return found

    def _rows_of(self, key: tuple[str, str]) -> np.ndarray:
        return np.array([self._row[path] for path in self._trained.get(key, ()) if path in self._row], dtype=np.int64)

    def _search(self, images: Sequence[int], among: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the rows nearest to each image among some rows."""
        if self._held is not None:
            unit = self._held
            return [
                rows[np.argsort(-(unit[rows] @ unit[image]))[:NEAREST]]
                for image, rows in zip(images, among, strict=True)
            ]
        if not images:
            return []
        distinct = np.unique(images)
        wanted = unit_length(self._cache, distinct)[np.searchsorted(distinct, images)]
        every = {id(rows): np.isin(np.arange(len(self._path)), rows) for rows in among}
        best = np.full((len(images), NEAREST), -np.inf, dtype=np.float32)
        near = np.zeros((len(images), NEAREST), dtype=np.int64)
        for start in range(0, len(self._path), HELD):
            block = np.arange(start, min(start + HELD, len(self._path)))
            cosine = wanted @ unit_length(self._cache, block).T  # (images, block)
            for number, rows in enumerate(among):
                cosine[number, ~every[id(rows)][block]] = -np.inf
            joined = np.concatenate([best, cosine], axis=1)
            known = np.concatenate([near, np.broadcast_to(block, cosine.shape)], axis=1)
            top = np.argsort(-joined, axis=1, kind="stable")[:, :NEAREST]
            best, near = np.take_along_axis(joined, top, 1), np.take_along_axis(known, top, 1)
        return [row[np.isfinite(value)] for row, value in zip(near, best, strict=True)]
