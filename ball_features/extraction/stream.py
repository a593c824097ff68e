"""Threads around the forward pass: images are loaded ahead of it, and rows are written behind it."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ball_features.cache import CacheWriter
from ball_features.errors import CacheError
from ball_features.threads import core_count, one_thread

__all__ = ["DECODING_THREADS", "Workers", "Writing", "pieces", "stream"]

# Seconds of rows in a commit: each commit waits for the disk twice, and a kill loses no more than this.
COMMIT_S = 0.3
DECODING_THREADS = 16  # at most
PREFETCH_BATCHES = 2  # batches that are loaded ahead, besides those in the feeders
# While a GPU computes a batch, other threads assemble the next ones and compute pixel statistics of finished ones.
_FEEDERS = {"cuda": 4}

Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workers:
    """Threads around a network.

    Attributes:
        on_cpu: whether the network computes on the cores of this machine.
        threads: number of threads that load, and on a CPU compute.
        feeders: number of threads that feed another device.
    """

    on_cpu: bool
    threads: int
    feeders: int = 1

    @classmethod
    def for_device(cls, device: str, *, one_call: bool = False) -> Workers:
        """The threads for a type of device.

        Args:
            device: "cpu", "cuda" or "mps".
            one_call: whether one call of the network uses all cores, so that a CPU runs one at a time.
        """
        on_cpu = device == "cpu"
        return cls(on_cpu, 1 if on_cpu and one_call else min(DECODING_THREADS, core_count()), _FEEDERS.get(device, 1))


def pieces(rows: np.ndarray, batch: int) -> list[np.ndarray]:
    """Cut increasing rows, int (rows,), at multiples of `batch`."""
    return np.split(rows, np.flatnonzero(np.diff(rows // batch)) + 1) if len(rows) else []


def stream(
    rows: np.ndarray,
    batch: int,
    load: Callable[[int], Loaded],
    compute: Callable[[np.ndarray, list[Loaded]], Result],
    *,
    workers: Workers,
    stop: threading.Event | None = None,
) -> Generator[Result, None, None]:
    """Load rows and compute them batch by batch; results are yielded in order.

    On a CPU each worker takes a whole batch from file to result on a core of its own, with one torch thread: no core
    waits for another inside a layer, and work that no library parallelises (decoding, pixel statistics) is parallel
    too. On another device the workers decode ahead and the feeders feed the device: while one waits for a result, the
    other assembles the next batch.

    Args:
        rows: increasing row numbers, int (rows,).
        batch: number of rows in a batch; batches are aligned to multiples of it.
        load: function from a row to its image.
        compute: function (rows of one batch, loaded images) -> result.
        workers: threads that load and compute.
        stop: event that is set when the remaining results are no longer wanted, so that a long `compute` can give up.
    """
    cut, on_cpu, threads = pieces(rows, batch), workers.on_cpu, workers.threads
    waiting: deque[Any] = deque()
    # The threads inherit the setting of one torch thread from the time when they start.
    with one_thread() if on_cpu else contextlib.nullcontext():
        pool = ThreadPoolExecutor(max(1, min(threads, len(cut)) if on_cpu else threads), thread_name_prefix="stream")
        feed = ThreadPoolExecutor(workers.feeders, thread_name_prefix="feed")
        try:
            if on_cpu:
                for piece in cut:
                    waiting.append(pool.submit(_whole, load, compute, piece))
                    if len(waiting) > 2 * threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
                return
            for piece in cut:
                loading = [pool.submit(load, int(row)) for row in piece]
                waiting.append(feed.submit(_fed, compute, piece, loading))
                if len(waiting) >= workers.feeders + PREFETCH_BATCHES:
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

    torch.set_num_threads(1)  # OpenMP keeps this setting for each thread
    return compute(piece, [load(int(row)) for row in piece])


def _fed(
    compute: Callable[[np.ndarray, list[Loaded]], Result], piece: np.ndarray, futures: list[Future[Loaded]]
) -> Result:
    return compute(piece, [future.result() for future in futures])


class Writing:
    """A thread that writes and commits rows; rows that queue up meanwhile are committed together."""

    def __init__(self, path: Path, expected: Sequence[str] | None = None) -> None:
        """Prepare the thread; arguments as `CacheWriter`."""
        self._path, self._expected = path, expected
        self._queue: queue.Queue[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]] | None] = queue.Queue(8)
        self._error: BaseException | None = None
        self._ended = False
        self._timing = (0, 0.0)
        self._thread = threading.Thread(target=self._work, name="write", daemon=True)

    def __enter__(self) -> Writing:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Wait until everything is on disk; raise `CacheError` if it cannot be written."""
        self._queue.put(None)
        self._thread.join()
        self._require_written()

    def _require_written(self) -> None:
        if isinstance(self._error, CacheError):
            raise self._error
        if self._error is not None:
            raise CacheError(f"Writing {self._path} failed: {self._error}. Free some space and run the command again.")

    def time(self, images: int, seconds: float) -> None:
        """Store how long these images took, after everything is written."""
        self._timing = (images, seconds)

    def put(self, rows: np.ndarray, embeddings: np.ndarray, shortcuts: dict[str, np.ndarray]) -> None:
        """Queue rows for writing; waits if the disk is slower than the network."""
        self._require_written()
        self._queue.put((rows, embeddings, shortcuts))

    def _queued(self) -> list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
        """The items that arrive within `COMMIT_S` of the first; empty after the end."""
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
            with CacheWriter(self._path, self._expected) as writer:
                while items := self._queued():
                    rows, embeddings, shortcuts = zip(*items, strict=True)
                    numbers = {name: np.concatenate([part[name] for part in shortcuts]) for name in shortcuts[0]}
                    writer.write(np.concatenate(rows), np.concatenate(embeddings), numbers)
                writer.time(*self._timing)
        except BaseException as error:  # raised in the thread that feeds this one
            self._error = error
            while self._queued():
                pass
