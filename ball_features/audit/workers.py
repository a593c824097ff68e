"""Threads for work in many small pieces."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from ball_features.threads import one_thread

__all__ = ["workers"]

_MOST = 4  # each holds its own piece in memory


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """A pool in which torch uses one thread a worker.

    Torch shares every operation among its threads and waits for the last. Where operations are small, or the cores are
    busy with something else, that costs several times what a thread a piece costs.
    """
    with one_thread() as usual, ThreadPoolExecutor(min(usual, _MOST)) as pool:
        yield pool
