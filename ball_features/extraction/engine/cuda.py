"""What the engine does on CUDA: recorded graphs, and the choice between our kernels, cuDNN and torch.

Untried on a GPU: this module and `cuda_kernels` were written without one. The kernels' results are tested in Triton's
interpreter and their code by its compiler, the handling of graphs with stand-ins for CUDA. For that reason every fast
path is compared with a plain one on the device when a run starts, and left out where it is wrong or slower.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ball_features.files import user_folder

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "GRAPH_FROM",
    "MOST_GRAPHS",
    "Fused",
    "Graphs",
    "cudnn_convolution",
    "gpu_kernels",
    "linear_relu",
    "make_fused",
]

# A pass is recorded when its shape comes for this time: recording costs some passes.
GRAPH_FROM = 3
# Each graph holds its output, and all of them the working memory of the largest.
MOST_GRAPHS = 4

Maps = dict[int, "Tensor"]
Run = Callable[["Tensor", tuple[int, ...]], Maps]
Fused = Callable[["Tensor", "Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]


@functools.cache
def gpu_kernels(device: torch.device) -> Any:
    """Return the module `cuda_kernels` if Triton is installed and its kernels prove right on the device, else None."""
    if device.type != "cuda":
        return None
    try:
        _keep_kernels_private()
        from ball_features.extraction.engine import cuda_kernels as gpu

        with torch.inference_mode():
            strided = torch.linspace(-2, 2, 37 * 104, device=device).view(37, 104).to(torch.float16)
            x, vector = strided[:, :72], torch.linspace(-1, 1, 72, device=device)
            out = torch.empty(37, 72, device=device)
            gpu.affine_relu(x, vector, vector, out)
            image = torch.linspace(-2, 2, 2 * 9 * 7 * 24, device=device).view(2, 9, 7, 24)
            bias = vector[:24].contiguous()
            pooled = gpu.stem_pool(image, bias, torch.float32)
            maxima = F.max_pool2d(image.permute(0, 3, 1, 2), 3, stride=2, padding=1).permute(0, 2, 3, 1)
        same = torch.allclose(out, torch.relu(x.float() * vector + vector), atol=1e-5)
        same = same and torch.allclose(pooled, torch.relu(maxima + bias), atol=1e-5)
        return gpu if same else None
    except Exception:  # no Triton, or one that does not work here: torch's own passes, slower
        return None


def _keep_kernels_private() -> None:
    """Let Triton keep compiled kernels, which it loads again, where only this user can write; before its import."""
    if "TRITON_CACHE_DIR" in os.environ:
        return
    folder = user_folder() / "triton"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    os.environ["TRITON_CACHE_DIR"] = str(folder)


def linear_relu(weight: Tensor, bias: Tensor, gpu: Any) -> Callable[[Tensor], Tensor]:
    """Return the product (rows, in) -> (rows, out) with float32 bias and ReLU in one kernel behind it."""
    ones = torch.ones_like(bias)

    def product(x: Tensor) -> Tensor:
        out = F.linear(x, weight)
        gpu.affine_relu(out, ones, bias, out)
        return out

    return product


# Rows and channels that a layer in the middle of each of DenseNet-201's blocks reads, for 64 images.
_TRIALS = ((200_704, 160), (50_176, 320), (12_544, 1008), (3_136, 1392))


def make_fused(device: torch.device, dtype: torch.dtype, gpu: Any) -> list[Fused | None]:
    """Return for each block `gpu.norm_product` if it is right and faster than single passes on this device."""
    none: list[Fused | None] = [None] * len(_TRIALS)
    if gpu is None or dtype == torch.float32:
        return none
    try:
        with torch.cuda.device(device), torch.inference_mode():
            return [gpu.norm_product if _pays(gpu, device, dtype, *trial) else None for trial in _TRIALS]
    except Exception:  # too little shared memory, or a processor that Triton has no products for
        return none


def _pays(gpu: Any, device: torch.device, dtype: torch.dtype, rows: int, channels: int) -> bool:
    generator = torch.Generator(device).manual_seed(0)
    strided = torch.randn(rows, channels + 64, device=device, generator=generator).to(dtype)
    x = strided[:, :channels]
    weight = (torch.randn(128, channels, device=device, generator=generator) / channels**0.5).to(dtype)
    scale, shift = torch.rand(2, channels, device=device, generator=generator)
    bias = torch.randn(128, device=device, generator=generator)
    linear = linear_relu(weight, bias, gpu)

    def one_by_one() -> Tensor:
        h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        gpu.affine_relu(x, scale, shift, h)
        return linear(h)

    fused = functools.partial(gpu.norm_product, x, scale, shift, weight, bias)
    expected, got = one_by_one().float(), fused().float()
    if not (got - expected).norm() <= 0.01 * expected.norm():
        return False
    return _device_seconds(fused) < _device_seconds(one_by_one)


def _device_seconds(run: Callable[[], object], calls: int = 10) -> float:
    run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def cudnn_convolution(weight: Tensor, stride: int, padding: int, *, tf32: bool) -> Callable[[Tensor], Tensor] | None:
    """Return cuDNN's convolution with a TF32 switch of its own (torch's is one for all threads); None without cuDNN."""
    pad, step, one = [padding] * 2, [stride] * 2, [1, 1]

    def convolve(x: Tensor) -> Tensor:
        return torch.cudnn_convolution(x, weight, pad, step, one, 1, torch.backends.cudnn.benchmark, False, tf32)

    example = torch.zeros(1, weight.shape[1], 16, 16, dtype=weight.dtype, device=weight.device)
    try:
        convolve(example.contiguous(memory_format=torch.channels_last))
    except Exception:  # a GPU of AMD, or a torch without cuDNN
        return None
    return convolve


class _Graph:
    """A pass recorded for one shape."""

    def __init__(self, run: Callable[[Tensor], Maps], images: Tensor, pool: Any, stream: Any) -> None:
        self.images = images.clone()
        before = torch.cuda.current_stream(images.device)
        stream.wait_stream(before)
        try:
            # These switches hold for all threads; TF32 is set in each call, see `cudnn_convolution`.
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
        """Replay the pass; the next call leaves the result alone."""
        self.images.copy_(images)
        self.graph.replay()
        return {block: values.clone() for block, values in self.maps.items()}


class Graphs:
    """Recorded passes of one engine, shared by threads.

    Args:
        run: (images, blocks) -> maps, made of operations on the device alone.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._graphs: dict[Any, _Graph | None] = {}
        self._seen: Counter[Any] = Counter()
        # Graphs share their working memory, so they run one after another, on one stream.
        self._lock = threading.Lock()
        self._pool: Any = None
        self._stream: Any = None

    def __call__(self, images: Tensor, blocks: tuple[int, ...]) -> Maps:
        """Return what `run` returns, from a recorded graph where there is one."""
        key = (tuple(images.shape), blocks)
        with torch.cuda.device(images.device), self._lock:
            self._seen[key] += 1
            if self._seen[key] == GRAPH_FROM and len(self._graphs) < MOST_GRAPHS:
                self._graphs[key] = self._record(images, blocks)
            graph = self._graphs.get(key)
            return self._run(images, blocks) if graph is None else graph(images)

    def _record(self, images: Tensor, blocks: tuple[int, ...]) -> _Graph | None:
        """Record a graph and compare it with the pass on other images; None if that fails."""
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
