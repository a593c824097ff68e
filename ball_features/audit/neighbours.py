"""Approximate nearest neighbours by cosine, by an inverted file.

K-means assigns vectors to cells, and a query searches its few nearest cells (Jegou, Douze and Schmid 2011, "Product
quantization for nearest neighbor search", section IV, without the quantisation). Up to millions of vectors there are
2 sqrt(n) cells, and the work grows as n to the power 1.5. Beyond, cells keep their size, and where there are more than
ten thousand the nearest ones are found by an inverted file of their centres.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ball_features.audit.thread_pool import thread_pool

__all__ = ["InvertedFile", "nearest"]

_ROUNDS = 6  # rounds of k-means; the cells need to be even, not optimal
_SAMPLE_PER_CELL = 40
_CHUNK = 1024  # rows compared with all cells at a time, to bound memory
_MOST_PER_CELL = 1000  # vectors, on average: 2 sqrt(n) cells hold as many each at four million
_MOST_COMPARED = 10_000  # centres with which all vectors are compared; more are searched, which misses some
_PROBES = 3
_CENTRE_PROBES = 16  # cells of centres; a probe that is missed here is a cell that is not searched


class InvertedFile:
    """Vectors in cells, to be searched.

    Attributes:
        vectors: vectors of unit length, float32 (vectors, dim).
        probed: nearest cells of each vector, int32 (vectors, probes).
    """

    def __init__(self, vectors: Tensor, *, owner: Tensor | None = None, probes: int = _PROBES, seed: int = 0) -> None:
        """Assign vectors to cells.

        Args:
            vectors: vectors of unit length, float32 (vectors, dim).
            owner: owner of each vector, int64 (vectors,); None where queries have none.
            probes: number of cells searched for each query; more cells find more neighbours.
            seed: random seed of the k-means start.
        """
        count = len(vectors)
        self.vectors, self._owner = vectors, owner
        self._cells = max(1, int(2 * math.sqrt(count)), count // _MOST_PER_CELL)
        self._probes = min(probes, self._cells)
        self._centres = _Centres(_mean_vectors(vectors, self._cells, seed))
        self.probed = self._centres.closest(vectors, self._probes)
        self._member, self._start = _by_cell(self.probed[:, 0], self._cells)

    def search(
        self, queries: Tensor, k: int, *, query_owner: Tensor | None = None, probed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the nearest vectors that belong to another owner.

        Args:
            queries: query vectors of unit length, float32 (queries, dim).
            k: number of neighbours.
            query_owner: owner of each query, int64 (queries,); a query never finds a vector of its own owner.
            probed: nearest cells of each query, where they are known: rows of `probed`.

        Returns:
            Cosines (queries, k), decreasing, -2 where fewer were found; rows of `vectors`, int64 (queries, k), 0 there.
        """
        probed = self._centres.closest(queries, self._probes) if probed is None else probed
        cosine = torch.full((len(queries), k), -2.0)
        row = torch.zeros((len(queries), k), dtype=torch.int64)

        def within(cell: int) -> None:
            """Compare the vectors of a cell with the queries that search it; a query searches one cell at a time."""
            inside = self._member[self._start[cell] : self._start[cell + 1]]
            seekers = asking[asking_start[cell] : asking_start[cell + 1]]
            if not len(inside):
                return
            for part in seekers.split(_CHUNK):
                found = queries[part] @ self.vectors[inside].T  # (part, inside)
                if query_owner is not None and self._owner is not None:
                    found[query_owner[part][:, None] == self._owner[inside]] = -2.0
                value, column = found.topk(min(k, len(inside)), dim=1)
                # A vector lies in one cell, so the neighbours from two cells never coincide.
                merged = torch.cat([cosine[part], value], 1)
                rows = torch.cat([row[part], inside[column]], 1)
                cosine[part], best = merged.topk(k, dim=1)
                row[part] = rows.gather(1, best)

        with thread_pool() as pool:
            for probe in range(self._probes):
                asking, asking_start = _by_cell(probed[:, probe], self._cells)
                for _ in pool.map(within, range(self._cells)):
                    pass
        return cosine, row


def nearest(
    queries: Tensor, vectors: Tensor, k: int, *, query_owner: Tensor, owner: Tensor, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Find the nearest vectors that belong to another owner, once; see `InvertedFile`."""
    index = InvertedFile(vectors, owner=owner, seed=seed)
    return index.search(queries, k, query_owner=query_owner, probed=index.probed if queries is vectors else None)


class _Centres:
    """Centres of cells, and an inverted file of them where they are many."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors
        many = len(vectors) > _MOST_COMPARED
        self._index = InvertedFile(_unit(vectors), probes=_CENTRE_PROBES) if many else None

    def closest(self, rows: Tensor, k: int) -> Tensor:
        """Return the nearest centres, int32 (rows, k)."""
        if self._index is not None:
            found = torch.empty((len(rows), k), dtype=torch.int32)
            for start in range(0, len(rows), 1 << 20):  # cosines, and rows in 64 bits, of a part at a time
                found[start : start + (1 << 20)] = self._index.search(rows[start : start + (1 << 20)], k)[1]
            return found
        found = torch.empty((len(rows), k), dtype=torch.int32)

        def search(start: int) -> None:
            # Written in place: small results between large temporaries would keep their memory from being freed.
            part = rows[start : start + _CHUNK]
            found[start : start + _CHUNK] = (part @ self.vectors.T).topk(k, dim=1).indices

        with thread_pool() as pool:
            for _ in pool.map(search, range(0, len(rows), _CHUNK)):
                pass
        return found


def _mean_vectors(vectors: Tensor, cells: int, seed: int) -> Tensor:
    """Run spherical k-means on a sample: float32 (cells, dim), rows of unit length."""
    generator = torch.Generator().manual_seed(seed)
    sample = vectors[torch.randperm(len(vectors), generator=generator)[: _SAMPLE_PER_CELL * cells]]
    centres = sample[:cells].clone()
    for _ in range(_ROUNDS if cells > 1 else 0):
        code = _Centres(centres).closest(sample, 1)[:, 0]
        total = torch.zeros_like(centres).index_add_(0, code, sample)
        norm = total.norm(dim=1, keepdim=True)
        centres = torch.where(norm > 1e-6, total / norm.clamp(min=1e-6), centres)  # an empty cell stays where it was
    return centres


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-6)


def _by_cell(code: Tensor, cells: int) -> tuple[Tensor, list[int]]:
    """Return the rows sorted by cell, and the start of each cell in them."""
    order = code.argsort(stable=True)
    start = torch.searchsorted(code[order].contiguous(), torch.arange(cells + 1, dtype=code.dtype))
    return order, start.tolist()
