"""A thread that embeds the images of many requests in common batches."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Batcher", "BusyError"]


class BusyError(Exception):
    """The queue is full; try again soon."""


class Batcher:
    """Gathers images into batches for a function that embeds them.

    Args:
        embed: function (pixels uint8 (images, 3, side, side), content hashes) -> float32 (images, views, dim).
        size: largest number of images in a batch.
        waiting: largest number of images that may wait; more are refused.
        linger_s: seconds that a batch with room waits for more images.
        seen: function that takes the size of each batch.
    """

    def __init__(
        self,
        embed: Callable[[Tensor, Sequence[str]], np.ndarray],
        *,
        size: int,
        waiting: int = 256,
        linger_s: float = 0.004,
        seen: Callable[[int], None] | None = None,
    ) -> None:
        self._embed, self._size, self._linger_s, self._seen = embed, size, linger_s, seen
        self._queue: queue.Queue[tuple[Tensor, str, Future[np.ndarray]] | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._ended = False
        self._thread.start()
        # Python ends a thread that returns from torch after its own end, which aborts the process.
        atexit.register(self.close)

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.qsize()

    def submit(self, image: Tensor, sha256: str) -> Future[np.ndarray]:
        """Queue an image; the future gives its embeddings, float32 (views, dim).

        Raises:
            BusyError: The queue is full.
        """
        future: Future[np.ndarray] = Future()
        try:
            self._queue.put_nowait((image, sha256, future))
        except queue.Full as error:
            raise BusyError("Too many images wait. Try again in a second.") from error
        if self._ended:
            self._refuse()
        return future

    def close(self) -> None:
        """Stop after the batch that is computed now; the futures of what waits raise `BusyError`."""
        self._ended = True
        with contextlib.suppress(queue.Full):  # then the thread does not wait, and sees that it is to end
            self._queue.put_nowait(None)
        self._thread.join()
        self._refuse()
        atexit.unregister(self.close)

    def _refuse(self) -> None:
        """Let nobody wait for an image that is not embedded any more."""
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None and item[2].set_running_or_notify_cancel():
                    item[2].set_exception(BusyError("The server ends."))

    def _run(self) -> None:
        import torch

        running = True
        while running and not self._ended:
            first = self._queue.get()
            if first is None:
                return
            batch, until = [first], time.perf_counter() + self._linger_s
            while len(batch) < self._size:
                try:
                    item = self._queue.get(timeout=max(until - time.perf_counter(), 0))
                except queue.Empty:
                    break
                if item is None:
                    running = False
                    break
                batch.append(item)
            # A client may have gone meanwhile.
            batch = [item for item in batch if item[2].set_running_or_notify_cancel()]
            if not batch:
                continue
            if self._seen:
                self._seen(len(batch))
            try:
                rows = self._embed(torch.stack([image for image, _, _ in batch]), [sha for _, sha, _ in batch])
            except Exception as error:  # each client gets the error; the thread goes on
                for _, _, future in batch:
                    future.set_exception(error)
            else:
                for (_, _, future), row in zip(batch, rows, strict=True):
                    future.set_result(row)
