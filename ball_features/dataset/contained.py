"""Tables in binary formats, read by another process within bounds of memory and time.

A file of some kilobytes can claim a machine's memory, or keep its reader busy for days, in more ways than can be looked
for; the readers are compiled, and end their process where memory is short. A process of their own bounds all of that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ball_features.threads import memory_bytes

__all__ = ["contained"]

_FREE_BYTES, _EXPANSION = 1 << 30, 64  # memory beside that of the imports: for any file, and for each of its bytes
_FREE_SECONDS, _BYTES_A_SECOND = 20, 100_000  # of one core
_PATIENCE_S, _SLOWED = 120, 10  # in which the process starts, and how much slower than on a core alone it may be
_CHILD = "import sys; sys.path[:] = {paths!r}; from ball_features.dataset.binary_tables import main; main({limits!r})"


def contained(kind: str, data: bytes) -> list[tuple[str, list[list[str]], dict[str, str]]]:
    """Read a table in a process of its own.

    Args:
        kind: key of `binary_tables.READERS`.
        data: content of the file.

    Returns:
        Name and rows of cells of each table, and its columns that are not read: heading -> why.

    Raises:
        ValueError: It is damaged, or its reader needs more memory or time than the size of the file warrants.
    """
    memory = int(min(_FREE_BYTES + _EXPANSION * len(data), memory_bytes() / 2))
    limits = (kind, memory, _FREE_SECONDS + len(data) // _BYTES_A_SECOND)
    paths = [str(Path(path).resolve()) for path in sys.path if path]
    # Allocators that reserve memory beforehand would meet the bound.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    patience = _PATIENCE_S + _SLOWED * limits[2]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD.format(paths=paths, limits=limits)],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            check=False,
            timeout=patience,
        )
    except subprocess.TimeoutExpired as error:  # which waits, and takes no time of a core
        raise ValueError(f"the process that reads it did not answer within {patience} s") from error
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise ValueError("reading it takes longer than its size warrants")
    found: Any = json.loads(done.stdout) if not done.returncode else "it needs more memory than its size warrants"
    if isinstance(found, str):
        raise ValueError(found)
    return [(name, rows, unread) for name, rows, unread in found]
