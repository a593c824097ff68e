"""Forward passes recorded as CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Graph"]


class Graph:
    """A forward pass on one shape, recorded as a CUDA graph.

    Args:
        run: Images -> maps, by operations on the device alone.
        images: Of the shape to record for.
    """

    def __init__(self, run: Callable[[Tensor], dict[int, Tensor]], images: Tensor) -> None:
        self.lock = threading.Lock()
        self.images = images.clone()
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            with torch.cuda.stream(stream):
                for _ in range(3):  # algorithms are chosen and workspaces made before anything is recorded
                    run(self.images)
            torch.cuda.current_stream(images.device).wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.maps = run(self.images)

    def __call__(self, images: Tensor) -> dict[int, Tensor]:
        """As `run`; what comes out is not touched by the next call."""
        with self.lock:  # on one stream what is launched together stays together
            self.images.copy_(images)
            self.graph.replay()
            return {block: values.clone() for block, values in self.maps.items()}

    @classmethod
    def record(cls, run: Callable[[Tensor], dict[int, Tensor]], images: Tensor) -> Graph | None:
        """A graph that was held against the pass itself; None where it cannot be recorded or says something else."""
        try:
            graph = cls(run, images)
            expected, other = run(images), graph(images)
        except RuntimeError:  # too little memory for the graph's own, or an operation that cannot be recorded
            torch.cuda.empty_cache()
            return None
        same = all(F.cosine_similarity(expected[b].float().flatten(1), other[b].float().flatten(1)).min() > 0.999
                   for b in expected)  # fmt: skip
        return graph if same else None
