"""Forward passes recorded as CUDA graphs: one launch instead of a thousand."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GRAPH_FROM", "MOST_GRAPHS", "Graphs"]

# A pass is recorded when images of its shape come for this time: recording costs some passes.
GRAPH_FROM = 3
# Each graph holds its output, and all of them the working memory of the largest.
MOST_GRAPHS = 4

Maps = dict[int, "Tensor"]
Run = Callable[["Tensor", tuple[int, ...]], Maps]


class _Graph:
    """A pass on one shape."""

    def __init__(self, run: Callable[[Tensor], Maps], images: Tensor, pool: Any, stream: Any) -> None:
        self.images = images.clone()
        before = torch.cuda.current_stream(images.device)
        stream.wait_stream(before)
        try:
            # The switches are one for all threads; rounding to TF32 is set in each call, see `passes.make_conv`.
            tf32 = torch.backends.cudnn.allow_tf32
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
                with torch.cuda.stream(stream):
                    for _ in range(3):  # algorithms are chosen and workspaces made before anything is recorded
                        run(self.images)
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    self.maps = run(self.images)
        finally:
            torch.cuda.set_stream(before)  # a capture that fails may leave its own
            before.wait_stream(stream)

    def __call__(self, images: Tensor) -> Maps:
        """As the pass; what comes out is not touched by the next call."""
        self.images.copy_(images)
        self.graph.replay()
        return {block: values.clone() for block, values in self.maps.items()}


class Graphs:
    """The passes of one engine, by threads that may take turns.

    Args:
        run: (images, blocks) -> maps, by operations on the device alone.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._graphs: dict[Any, _Graph | None] = {}
        self._seen: Counter[Any] = Counter()
        # Graphs share their working memory, so one is launched after the other, on one stream.
        self._lock = threading.Lock()
        self._pool: Any = None
        self._stream: Any = None

    def __call__(self, images: Tensor, blocks: tuple[int, ...]) -> Maps:
        """As `run`."""
        key = (tuple(images.shape), blocks)
        with torch.cuda.device(images.device), self._lock:
            self._seen[key] += 1
            if self._seen[key] == GRAPH_FROM and len(self._graphs) < MOST_GRAPHS:
                self._graphs[key] = self._record(images, blocks)
            graph = self._graphs.get(key)
            return self._run(images, blocks) if graph is None else graph(images)

    def _record(self, images: Tensor, blocks: tuple[int, ...]) -> _Graph | None:
        """A graph that was held against the pass, on other images than it recorded; None where it cannot be had."""
        try:
            if self._pool is None:
                self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(images.device)
            graph = _Graph(lambda own: self._run(own, blocks), images, self._pool, self._stream)
            generator = torch.Generator(images.device).manual_seed(0)
            other = torch.randn(images.shape, device=images.device, generator=generator)
            expected, got = self._run(other, blocks), graph(other)
        except Exception:  # too little memory, or an operation that cannot be recorded
            return None
        finally:
            torch.cuda.empty_cache()  # what the passes outside of a graph worked in
        near = (F.cosine_similarity(expected[b].float().flatten(1), got[b].float().flatten(1)).min() for b in expected)
        return graph if all(cosine > 0.999 for cosine in near) else None
