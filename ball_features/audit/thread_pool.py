"""Thread pool for work in many small pieces."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from ball_features.threads import one_thread

__all__ = ["thread_pool"]

_MOST = 4  # each thread holds a piece of work in memory


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Open a pool in which torch uses one thread for each worker.

    By default torch shares every operation among its threads and waits for the last. With small operations, or on busy
    cores, that takes several times as long as one thread for each piece of work.
    """
    with one_thread() as usual, ThreadPoolExecutor(min(usual, _MOST)) as pool:
        yield pool
