"""What a forward pass is made of: products and element-wise passes, each the fastest that a device has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ball_features.extraction.engine.cpu import affine_relu_kernel, pack_bits

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NO_GAIN",
    "Norm",
    "Product",
    "gpu_kernels",
    "make_affine",
    "make_conv",
    "make_fused",
    "make_linear",
    "make_norm",
    "make_stem",
    "packs",
    "scale_and_bias",
]

# A batch norm's gain below this times its input, which is normalised, is less than the precision can tell.
NO_GAIN = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 0.0}


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch norm and the ReLU behind it."""

    scale: Tensor  # (channels,) float32
    bias: Tensor  # (channels,) float32
    keep: np.ndarray  # the channels that are wanted, see `pack_bits`
    kept: int


Affine = Callable[["Tensor", Norm, "Tensor"], None]


def _affine_relu(x: Tensor, scale: Tensor, bias: Tensor, out: Tensor) -> None:
    if x.dtype == out.dtype == torch.float32:
        torch.addcmul(bias, x, scale, out=out).relu_()
    else:
        out.copy_(torch.addcmul(bias, x.float(), scale).relu_())


@functools.cache
def gpu_kernels(device: torch.device) -> Any:
    """`engine.cuda_kernels` where Triton is installed and its passes prove right on the device, else None."""
    if device.type != "cuda":
        return None
    try:
        from ball_features.extraction.engine import cuda_kernels as gpu

        with torch.inference_mode():
            apart = torch.linspace(-2, 2, 37 * 104, device=device).view(37, 104).to(torch.float16)
            x, vector = apart[:, :72], torch.linspace(-1, 1, 72, device=device)
            out = torch.empty(37, 72, device=device)
            gpu.affine_relu(x, vector, vector, out)
            image = torch.linspace(-2, 2, 2 * 9 * 7 * 24, device=device).view(2, 9, 7, 24)
            bias = vector[:24].contiguous()
            pooled = gpu.stem_pool(image, bias, torch.float32)
        same = torch.allclose(out, torch.relu(x.float() * vector + vector), atol=1e-5)
        same = same and torch.allclose(pooled, _pool_relu(image.permute(0, 3, 1, 2), bias), atol=1e-5)
        return gpu if same else None
    except Exception:  # no Triton, or one that does not work here: the same passes, slower
        return None


def make_affine(device: torch.device, precision: str, gpu: Any) -> tuple[Affine, bool]:
    """Batch norm and ReLU, (rows, channels) -> (rows, kept), the fastest there is; whether it leaves channels out."""
    if device.type == "cpu" and precision != "fp16" and (kernel := affine_relu_kernel()) is not None:
        return lambda x, norm, out: kernel(x, norm.scale, norm.bias, norm.keep, out), True
    element_wise = _affine_relu if gpu is None else gpu.affine_relu
    return lambda x, norm, out: element_wise(x, norm.scale, norm.bias, out), False


Product = Callable[[Any], Any]
Fused = Callable[["Tensor", "Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]


def make_fused(device: torch.device, dtype: torch.dtype, gpu: Any) -> list[Fused | None]:
    """For each block `gpu.norm_product`, where it is right and faster than one pass after another on this device."""
    none: list[Fused | None] = [None] * len(_TRIALS)
    if gpu is None or dtype == torch.float32:
        return none
    try:
        with torch.cuda.device(device), torch.inference_mode():
            return [gpu.norm_product if _pays(gpu, device, dtype, *trial) else None for trial in _TRIALS]
    except Exception:  # too little shared memory, or a processor that Triton has no products for
        return none


# What a layer in the middle of DenseNet-201's blocks reads of 64 images: rows and channels.
_TRIALS = ((200_704, 160), (50_176, 320), (12_544, 1008), (3_136, 1392))


def _pays(gpu: Any, device: torch.device, dtype: torch.dtype, rows: int, channels: int) -> bool:
    generator = torch.Generator(device).manual_seed(0)
    apart = torch.randn(rows, channels + 64, device=device, generator=generator).to(dtype)
    x = apart[:, :channels]
    weight = (torch.randn(128, channels, device=device, generator=generator) / channels**0.5).to(dtype)
    scale, shift = torch.rand(2, channels, device=device, generator=generator)
    bias = torch.randn(128, device=device, generator=generator)
    linear = make_linear(weight, bias, True, False, gpu)

    def one_by_one() -> Tensor:
        h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        gpu.affine_relu(x, scale, shift, h)
        return linear(h)

    at_once = functools.partial(gpu.norm_product, x, scale, shift, weight, bias)
    expected, got = one_by_one().float(), at_once().float()
    if not (got - expected).norm() <= 0.01 * expected.norm():
        return False
    return _device_seconds(at_once) < _device_seconds(one_by_one)


def _device_seconds(run: Callable[[], object], calls: int = 10) -> float:
    run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def make_linear(weight: Tensor, bias: Tensor | None, relu: bool, packed: bool, gpu: Any = None) -> Product:
    """(rows, in) -> (rows, out) by weight (out, in), with float32 bias and ReLU where asked for."""
    if packed:
        ready = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        after = "relu" if relu else "none"
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, ready, bias, after, [], "")
    if gpu is None or bias is None or not relu:
        return lambda x: _finish(F.linear(x, weight), bias, relu)
    ones = torch.ones_like(bias)

    def product(x: Tensor) -> Tensor:
        out = F.linear(x, weight)
        gpu.affine_relu(out, ones, bias, out)
        return out

    return product


def _finish(x: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    out = x if bias is None else (x.float() + bias).to(x.dtype)
    return torch.relu(out) if relu else out


def make_conv(
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    stride: int,
    padding: int,
    packed: bool,
    *,
    tf32: bool = False,
) -> Product:
    """A convolution of channels-last (batch, channels, height, width), with float32 bias and ReLU where asked for.

    Args:
        weight: Its weight, channels-last.
        bias: float32 (out,).
        relu: Whether a ReLU follows.
        stride: Both ways.
        padding: On each side.
        packed: Whether by oneDNN's packed product.
        tf32: Whether CUDA may round float32 to ten bits of mantissa, which is its default.
    """
    pad, step, one = [padding] * 2, [stride] * 2, [1, 1]
    if packed:
        ready = torch.ops.mkldnn._reorder_convolution_weight(weight, pad, step, one, 1, None)
        after = "relu" if relu else "none"
        return lambda x: torch.ops.mkldnn._convolution_pointwise(x, ready, bias, pad, step, one, 1, after, [], "")
    shaped = None if bias is None else bias[:, None, None]

    def convolve(x: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, stride=stride, padding=padding)

    def by_cudnn(x: Tensor) -> Tensor:
        # torch's switch is one for all threads.
        return torch.cudnn_convolution(x, weight, pad, step, one, 1, torch.backends.cudnn.benchmark, False, tf32)

    if weight.device.type == "cuda":
        example = torch.zeros(1, weight.shape[1], 16, 16, dtype=weight.dtype, device=weight.device)
        try:
            by_cudnn(example.contiguous(memory_format=torch.channels_last))
            convolve = by_cudnn
        except Exception:  # AMD's, or one without cuDNN
            pass
    return lambda x: _finish(convolve(x), shaped, relu)


def make_stem(
    weight: Tensor, bias: Tensor, dtype: torch.dtype, packed: bool, gpu: Any = None, *, tf32: bool = False
) -> Product:
    """All before the first block: (batch, 3, height, width) -> (batch, height / 4, width / 4, channels), contiguous.

    A maximum is the same before and after rounding, and a quarter of the numbers is left to round.

    Args:
        weight: Of the 7x7 convolution, float32, channels-last, with its batch norm.
        bias: Of that batch norm, float32.
        dtype: Of the result.
        packed: See `make_conv`.
        gpu: From `gpu_kernels`.
        tf32: See `make_conv`.
    """
    if packed:
        convolve = make_conv(weight, bias, True, 2, 3, True)
        return lambda x: F.max_pool2d(convolve(x), 3, stride=2, padding=1).to(dtype).permute(0, 2, 3, 1)
    convolve = make_conv(weight, None, False, 2, 3, False, tf32=tf32)
    if gpu is not None:
        return lambda x: gpu.stem_pool(convolve(x).permute(0, 2, 3, 1).contiguous(), bias, dtype)
    return lambda x: _pool_relu(convolve(x), bias).to(dtype)


def _pool_relu(x: Tensor, bias: Tensor) -> Tensor:
    """(batch, channels, height, width) -> (batch, height / 2, width / 2, channels)."""
    return torch.relu(F.max_pool2d(x, 3, stride=2, padding=1).permute(0, 2, 3, 1) + bias)


@functools.cache
def packs(dtype: torch.dtype) -> bool:
    """Whether this torch and processor have oneDNN's packed products in a dtype; not public, so they are tried once."""
    try:
        with torch.inference_mode():
            weight, x = torch.eye(32, dtype=dtype).repeat(1, 2), torch.ones(4, 64, dtype=dtype)
            linear = make_linear(weight, torch.ones(32), True, packed=True)(x)
            kernel = torch.zeros(32, 32, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
            image = torch.ones(1, 32, 4, 4, dtype=dtype).contiguous(memory_format=torch.channels_last)
            conv = make_conv(kernel, torch.ones(32), True, 1, 1, packed=True)(image)
            return bool(torch.all(linear == 3)) and bool(torch.all(conv == 1))
    except Exception:  # missing, or with other arguments in this version; bfloat16 on a processor without AVX-512
        return False


def scale_and_bias(norm: Any) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as scale and bias, each (channels,)."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def make_norm(module: Any, device: torch.device, no_gain: float) -> tuple[Norm, Tensor]:
    """A batch norm in eval mode, and which of its channels are constants that are left out, bool (channels,).

    Args:
        module: The batch norm.
        device: Where to compute.
        no_gain: A gain below it is none; 0 leaves nothing out.
    """
    scale, bias = scale_and_bias(module)
    dead = module.weight.abs() < no_gain
    keep = pack_bits(~dead.numpy(force=True))
    return Norm(scale.to(device), bias.to(device), keep, int((~dead).sum())), dead
