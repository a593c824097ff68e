"""Images of different files that have one and the same embedding."""

from __future__ import annotations

import hashlib

import numpy as np

from ball_features.cache.row_reads import read_rows
from ball_features.cache.schema import Cache

__all__ = ["equal_embeddings", "equal_remark"]

_BLOCK = 256  # images read at once


def equal_embeddings(cache: Cache) -> list[list[int]]:
    """Find images whose plain embeddings are equal to the last bit although their files differ.

    Args:
        cache: cache with its embeddings.

    Returns:
        Lists of row numbers; byte-identical copies of one file count as one, and are represented by the first.
    """
    if not len(cache.embeddings):
        return []
    content, first = cache.content.tolist(), {}
    for row in np.flatnonzero(cache.committed).tolist():
        first.setdefault(content[row], row)
    rows: dict[bytes, list[int]] = {}
    kept = np.sort(np.fromiter(first.values(), np.int64, len(first)))
    for start in range(0, len(kept), _BLOCK):
        block = kept[start : start + _BLOCK]
        for row, own in zip(block.tolist(), read_rows(cache.embeddings, block)[:, 0], strict=True):
            digest = hashlib.blake2b(np.ascontiguousarray(own).tobytes(), digest_size=16).digest()
            rows.setdefault(digest, []).append(row)
    return [own for own in rows.values() if len(own) > 1]


def equal_remark(cache: Cache) -> str:
    """Say which images have equal embeddings, or ""."""
    found = equal_embeddings(cache)
    if not found:
        return ""
    largest = max(found, key=len)
    names = ", ".join(str(cache.path[row]) for row in largest[:3]) + (" and others" if len(largest) > 3 else "")
    return (
        f"{sum(map(len, found))} of {len(cache.path)} images are different files with the embedding of another image "
        f"(for example {names}): they are blank, or the same picture saved twice. Look at them; `ball audit` keeps the "
        "same pictures together."
    )
