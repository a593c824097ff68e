"""Around the forward pass: images that come in batches, and rows that go to disk meanwhile."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import CacheWriter
from ball_features.errors import CacheError

__all__ = ["Writing", "batches"]

PREFETCH_BATCHES = 3


def batches(
    pool: ThreadPoolExecutor | None, load: Callable[[int], Any], rows: np.ndarray, batch: int
) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Rows cut at multiples of `batch`, with their images: loaded a few batches ahead, or here without a pool."""
    pieces = np.split(rows, np.flatnonzero(np.diff(rows // batch)) + 1) if len(rows) else []
    if pool is None:
        yield from ((piece, [load(int(row)) for row in piece]) for piece in pieces)
        return
    waiting: deque[tuple[np.ndarray, list[Future[Any]]]] = deque()
    for piece in pieces:
        waiting.append((piece, [pool.submit(load, int(row)) for row in piece]))
        if len(waiting) > PREFETCH_BATCHES:
            ahead, futures = waiting.popleft()
            yield ahead, [future.result() for future in futures]
    for ahead, futures in waiting:
        yield ahead, [future.result() for future in futures]


class Writing:
    """A thread that writes and commits rows; what queued up meanwhile is committed together."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.Queue[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]] | None] = queue.Queue(8)
        self._error: BaseException | None = None
        self._timing = (0, 0.0)
        self._thread = threading.Thread(target=self._work, name="write", daemon=True)

    def __enter__(self) -> Writing:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Wait until everything is on disk; raise `CacheError` where it is not."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise CacheError(f"Writing {self._path} failed: {self._error}. Free some space and run it again.")

    def time(self, images: int, seconds: float) -> None:
        """Tell the cache how long these images took, once all is written."""
        self._timing = (images, seconds)

    def put(self, rows: np.ndarray, embeddings: np.ndarray, shortcuts: dict[str, np.ndarray]) -> None:
        """Hand rows over; waits where the disk is behind."""
        if self._error is not None:
            raise CacheError(f"Writing {self._path} failed: {self._error}. Free some space and run it again.")
        self._queue.put((rows, embeddings, shortcuts))

    def _work(self) -> None:
        try:
            with CacheWriter(self._path) as writer:
                while (item := self._queue.get()) is not None:
                    items = [item]
                    last = False
                    while not self._queue.empty():
                        more = self._queue.get()
                        if more is None:
                            last = True
                            break
                        items.append(more)
                    rows, embeddings, shortcuts = zip(*items, strict=True)
                    numbers = {name: np.concatenate([part[name] for part in shortcuts]) for name in shortcuts[0]}
                    writer.write(np.concatenate(rows), np.concatenate(embeddings), numbers)
                    if last:
                        break
                writer.time(*self._timing)
        except BaseException as error:  # handed to the thread that feeds this one
            self._error = error
            while self._queue.get() is not None:
                pass
