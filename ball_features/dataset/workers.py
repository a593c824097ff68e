"""Threads for work in many small pieces."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

__all__ = ["workers"]

_MOST = 4  # each holds its own piece in memory


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """A pool in which torch uses one thread a worker.

    Torch shares every operation among its threads and waits for the last. Where operations are small, or the cores are
    busy with something else, that costs several times what a thread a piece costs.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(before, _MOST)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
