"""Export of a cache as a table for other tools, in Parquet or CSV, with one row for each image and view."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.cache.places import to_stored
from ball_features.errors import require_extra
from ball_features.files import replacing, safe_cell

__all__ = ["write_csv_table", "write_parquet"]

_ROWS = 1024  # images read at once, so that memory does not grow with the cache
_KEYS = ("path", "label", "sha256", "view")


def _blocks(cache: Cache) -> Iterator[tuple[list[list[str]], np.ndarray]]:
    """Yield text columns and embeddings, float32 (rows, dim), block by block; rows not yet committed are left out."""
    rows = np.flatnonzero(cache.committed)
    views = len(cache.view)
    for start in range(0, len(rows), _ROWS):
        own = rows[start : start + _ROWS]
        text = [np.repeat(getattr(cache, key)[own], views).tolist() for key in _KEYS[:3]]
        text.append(list(cache.view) * len(own))
        yield text, cache.embeddings[own].reshape(len(own) * views, -1).astype(np.float32)


def write_parquet(cache: Cache, path: Path) -> int:
    """Write a row for each image and view: path, label, sha256, view and embedding (float32 list of fixed length).

    The settings of the cache go to the metadata of the file.

    Args:
        cache: cache to export.
        path: Parquet file to write.

    Returns:
        Number of rows written.

    Raises:
        DataError: The file cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    require_extra("pyarrow", "parquet", "The Parquet export")
    import pyarrow as pa
    from pyarrow import parquet

    dim = cache.embeddings.shape[2]
    fields: list[Any] = [pa.field(key, pa.string()) for key in _KEYS]
    own = {"ball": json.dumps(to_stored(cache.attributes, path.parent), sort_keys=True, default=str)}
    schema = pa.schema([*fields, pa.field("embedding", pa.list_(pa.float32(), dim))], metadata=own)
    count = 0
    with replacing(path) as partial, parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        for text, X in _blocks(cache):
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), dim)
            columns = [*(pa.array(column) for column in text), embedding]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += len(X)
    return count


def write_csv_table(cache: Cache, path: Path) -> int:
    """Write a row for each image and view: path, label, sha256, view, e0, e1, ...; nine digits keep float32 exactly.

    Args:
        cache: cache to export.
        path: CSV file to write.

    Returns:
        Number of rows written.

    Raises:
        DataError: The file cannot be written.
    """
    count = 0
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_KEYS, *(f"e{number}" for number in range(cache.embeddings.shape[2]))])
        for text, X in _blocks(cache):
            for place, row in enumerate(X):
                writer.writerow(
                    [*(safe_cell(column[place]) for column in text), *(f"{value:.9g}" for value in row.tolist())]
                )
            count += len(X)
    return count
