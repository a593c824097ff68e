"""Features of different images that are alike, as they are and mirrored, by one index over all features.

Vectors are widened to 32 bits in parts only: those of 100,000 images have 10 GB.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ball_features.audit.neighbours import InvertedFile
from ball_features.audit.sift import Features, mirrored_order, root_vectors

__all__ = ["matches"]

_PCA_DIM = 48  # of the 128 numbers of a feature; enough to propose, and quick to compare
_NEIGHBOURS = 10
_LEAST_COSINE = 0.7
_PART = 1 << 17  # features widened at a time
_QUERIES = 1 << 22  # features searched for at a time


def matches(features: Features, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (feature, matching feature of another image), int32 (matches,) each: upright, then the first mirrored."""
    short = _Short(features.vector)
    every = slice(0, len(features.owner))
    owner = torch.from_numpy(features.owner)
    index = InvertedFile(short.of(every), owner=owner, seed=seed)
    for mirrored in (False, True):
        found = []
        for start in range(0, len(owner), _QUERIES):
            part = slice(start, start + _QUERIES)
            queries, probed = (short.of(part, mirrored=True), None) if mirrored else (index.vectors[part], index.probed)
            probed = None if probed is None else probed[part]
            cosine, row = index.search(queries, _NEIGHBOURS, query_owner=owner[part], probed=probed)
            query, place = (cosine > _LEAST_COSINE).nonzero(as_tuple=True)
            found.append(((query + start).to(torch.int32).numpy(), row[query, place].to(torch.int32).numpy()))
        one, two = (np.concatenate(column) for column in zip(*found, strict=True))
        yield one, two


class _Short:
    """Features as RootSIFT vectors on the axes of their greatest variance."""

    def __init__(self, vector: np.ndarray) -> None:
        self._vector = vector
        parts = range(0, len(vector), _PART)
        total = torch.zeros(vector.shape[1], dtype=torch.float64)
        spread = torch.zeros(vector.shape[1], vector.shape[1], dtype=torch.float64)
        for start in parts:
            total += self._root(slice(start, start + _PART)).sum(0, dtype=torch.float64)
        self._mean = (total / len(vector)).float()
        for start in parts:
            centred = self._root(slice(start, start + _PART)) - self._mean
            spread += centred.T @ centred
        self._axes = torch.linalg.eigh(spread)[1].flip(1)[:, :_PCA_DIM].float()

    def of(self, rows: slice, *, mirrored: bool = False) -> Tensor:
        """Vectors of unit length, float32 (features, 48)."""
        start, stop, _ = rows.indices(len(self._vector))
        short = torch.empty(stop - start, _PCA_DIM)
        for first in range(start, stop, _PART):
            own = slice(first, min(first + _PART, stop))
            root = self._root(own)
            part = ((root[:, mirrored_order().copy()] if mirrored else root) - self._mean) @ self._axes
            part /= part.norm(dim=1, keepdim=True).clamp(min=1e-6)
            short[own.start - start : own.stop - start] = part
        return short

    def _root(self, rows: slice) -> Tensor:
        return torch.from_numpy(root_vectors(self._vector[rows]))
