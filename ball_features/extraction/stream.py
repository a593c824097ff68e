"""Around the forward pass: images that come in batches, and rows that go to disk meanwhile."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ball_features.cache import CacheWriter
from ball_features.errors import CacheError
from ball_features.threads import one_thread

__all__ = ["Writing", "feeders", "pieces", "stream"]

# Rows are committed together that often: each commit waits twice for the disk, and a kill loses no more than this.
COMMIT_S = 0.3
PREFETCH_BATCHES = 2  # beside those that are being fed
# While a GPU computes one batch, others are put together, and the pixel numbers of finished ones counted on the cores.
_FEEDERS = {"cuda": 4}

Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


def feeders(device: str) -> int:
    """Threads that feed a kind of device."""
    return _FEEDERS.get(device, 1)


def pieces(rows: np.ndarray, batch: int) -> list[np.ndarray]:
    """Rows, int (rows,) increasing, cut at multiples of `batch`."""
    return np.split(rows, np.flatnonzero(np.diff(rows // batch)) + 1) if len(rows) else []


def stream(
    rows: np.ndarray,
    batch: int,
    load: Callable[[int], Loaded],
    compute: Callable[[np.ndarray, list[Loaded]], Result],
    *,
    on_cpu: bool,
    workers: int,
    feeders: int = 1,
    stop: threading.Event | None = None,
) -> Generator[Result, None, None]:
    """Load rows and compute them batch by batch; what comes out is in order.

    On a CPU each worker takes a whole batch from file to result on a core of its own, with one torch thread: the cores
    never wait for one another inside a layer, and the parts that no library shares among cores (decoding, counting
    pixels) are shared too. Elsewhere the workers decode ahead and the feeders feed the device: while one waits for
    a result, the other puts the next batch together.

    Args:
        rows: int (rows,), increasing.
        batch: Rows a batch; batches are aligned to multiples of it.
        load: Row -> image.
        compute: (rows of one batch, what was loaded of each) -> result.
        on_cpu: Whether `compute` runs on this machine's cores.
        workers: Threads.
        feeders: Threads that feed another device.
        stop: Set when nobody waits for the rest any more, for a `compute` that takes long to give up by.
    """
    cut = pieces(rows, batch)
    waiting: deque[Any] = deque()
    # The threads inherit the one torch thread that is set while they begin.
    with one_thread() if on_cpu else contextlib.nullcontext():
        pool = ThreadPoolExecutor(max(1, min(workers, len(cut)) if on_cpu else workers), thread_name_prefix="stream")
        feed = ThreadPoolExecutor(feeders, thread_name_prefix="feed")
        try:
            if on_cpu:
                for piece in cut:
                    waiting.append(pool.submit(_whole, load, compute, piece))
                    if len(waiting) > 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
                return
            for piece in cut:
                loading = [pool.submit(load, int(row)) for row in piece]
                waiting.append(feed.submit(_fed, compute, piece, loading))
                if len(waiting) >= feeders + PREFETCH_BATCHES:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            if stop is not None:
                stop.set()
            feed.shutdown(wait=False, cancel_futures=True)
            pool.shutdown(cancel_futures=True)
            feed.shutdown()


def _whole(
    load: Callable[[int], Loaded], compute: Callable[[np.ndarray, list[Loaded]], Result], piece: np.ndarray
) -> Result:
    import torch

    torch.set_num_threads(1)  # OpenMP counts threads for each thread that asks
    return compute(piece, [load(int(row)) for row in piece])


def _fed(
    compute: Callable[[np.ndarray, list[Loaded]], Result], piece: np.ndarray, futures: list[Future[Loaded]]
) -> Result:
    return compute(piece, [future.result() for future in futures])


class Writing:
    """A thread that writes and commits rows; what queued up meanwhile is committed together."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.Queue[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]] | None] = queue.Queue(8)
        self._error: BaseException | None = None
        self._ended = False
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

    def _queued(self) -> list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
        """What comes within `COMMIT_S` of the next thing; nothing once it has ended."""
        items: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []
        until = math.inf
        while not self._ended:
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()) if items else None)
            except queue.Empty:
                break
            if item is None:
                self._ended = True
                break
            items.append(item)
            until = min(until, time.monotonic() + COMMIT_S)
        return items

    def _work(self) -> None:
        try:
            with CacheWriter(self._path) as writer:
                while items := self._queued():
                    rows, embeddings, shortcuts = zip(*items, strict=True)
                    numbers = {name: np.concatenate([part[name] for part in shortcuts]) for name in shortcuts[0]}
                    writer.write(np.concatenate(rows), np.concatenate(embeddings), numbers)
                writer.time(*self._timing)
        except BaseException as error:  # handed to the thread that feeds this one
            self._error = error
            while self._queued():
                pass
