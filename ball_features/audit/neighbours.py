"""Approximate nearest neighbours by cosine, by an inverted file.

K-means assigns vectors to about 2 sqrt(n) cells, and a query searches its few nearest cells (Jegou, Douze and Schmid
2011, "Product quantization for nearest neighbor search", section IV, without the quantisation). The work grows as n to
the power 1.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ball_features.audit.thread_pool import thread_pool

__all__ = ["nearest"]

_ROUNDS = 6  # rounds of k-means; the cells need to be even, not optimal
_SAMPLE_PER_CELL = 40
_CHUNK = 1024  # rows compared with all cells at a time, to bound memory


def nearest(
    queries: Tensor,
    vectors: Tensor,
    k: int,
    *,
    query_owner: Tensor,
    owner: Tensor,
    probes: int = 3,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Find the nearest vectors that belong to another owner.

    Args:
        queries: query vectors of unit length, float32 (queries, dim).
        vectors: vectors to search, of unit length, float32 (vectors, dim).
        k: number of neighbours.
        query_owner: owner of each query, int64 (queries,); a query never finds a vector of its own owner.
        owner: owner of each vector, int64 (vectors,).
        probes: number of cells searched for each query; more cells find more neighbours.
        seed: random seed of the k-means start.

    Returns:
        Cosines (queries, k), decreasing, -2 where fewer were found; rows of `vectors`, int64 (queries, k), 0 there.
    """
    count = len(vectors)
    cells = max(1, int(2 * math.sqrt(count)))
    probes = min(probes, cells)
    centres = _centres(vectors, cells, seed)
    probed = _closest(queries, centres, probes)
    own = probed[:, 0] if queries is vectors else _closest(vectors, centres, 1)[:, 0]
    member, member_start = _by_cell(own, cells)
    cosine = torch.full((len(queries), k), -2.0)
    row = torch.zeros((len(queries), k), dtype=torch.int64)

    def search(cell: int) -> None:
        """Compare the vectors of a cell with the queries that search it; a query searches one cell at a time."""
        inside = member[member_start[cell] : member_start[cell + 1]]
        seekers = asking[asking_start[cell] : asking_start[cell + 1]]
        if not len(inside):
            return
        for part in seekers.split(_CHUNK):
            found = queries[part] @ vectors[inside].T  # (part, inside)
            found[query_owner[part][:, None] == owner[inside]] = -2.0
            value, column = found.topk(min(k, len(inside)), dim=1)
            # A vector lies in one cell, so the neighbours from two cells never coincide.
            merged = torch.cat([cosine[part], value], 1)
            rows = torch.cat([row[part], inside[column]], 1)
            cosine[part], best = merged.topk(k, dim=1)
            row[part] = rows.gather(1, best)

    with thread_pool() as pool:
        for probe in range(probes):
            asking, asking_start = _by_cell(probed[:, probe], cells)
            for _ in pool.map(search, range(cells)):
                pass
    return cosine, row


def _centres(vectors: Tensor, cells: int, seed: int) -> Tensor:
    """Run spherical k-means on a sample: float32 (cells, dim), rows of unit length."""
    generator = torch.Generator().manual_seed(seed)
    sample = vectors[torch.randperm(len(vectors), generator=generator)[: _SAMPLE_PER_CELL * cells]]
    centres = sample[:cells].clone()
    for _ in range(_ROUNDS if cells > 1 else 0):
        code = _closest(sample, centres, 1)[:, 0]
        total = torch.zeros_like(centres).index_add_(0, code, sample)
        norm = total.norm(dim=1, keepdim=True)
        centres = torch.where(norm > 1e-6, total / norm.clamp(min=1e-6), centres)  # an empty cell stays where it was
    return centres


def _closest(rows: Tensor, centres: Tensor, k: int) -> Tensor:
    """Return the nearest centres, int64 (rows, k)."""
    found = torch.empty((len(rows), k), dtype=torch.int64)

    def search(start: int) -> None:
        # Written in place: small results between large temporaries would keep the memory of these from being freed.
        found[start : start + _CHUNK] = (rows[start : start + _CHUNK] @ centres.T).topk(k, dim=1).indices

    with thread_pool() as pool:
        for _ in pool.map(search, range(0, len(rows), _CHUNK)):
            pass
    return found


def _by_cell(code: Tensor, cells: int) -> tuple[Tensor, list[int]]:
    """Return the rows sorted by cell, and the start of each cell in them."""
    order = code.argsort(stable=True)
    start = torch.searchsorted(code[order].contiguous(), torch.arange(cells + 1))
    return order, start.tolist()
