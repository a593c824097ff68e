"""What a forward pass is made of: products and element-wise passes, each the fastest that a device has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ball_features.extraction.kernels import affine_relu_kernel, pack_bits

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NO_GAIN",
    "Norm",
    "Product",
    "fold",
    "make_affine",
    "make_conv",
    "make_finish",
    "make_fused",
    "make_linear",
    "make_norm",
    "packs",
]

# A batch norm's gain below this times its input, which is normalised, is less than the precision can tell.
NO_GAIN = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 0.0}


@dataclass(frozen=True)
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


def _affine_relu_fused(x: Tensor, scale: Tensor, bias: Tensor, out: Tensor) -> None:
    out.copy_(torch.relu(x.float() * scale + bias))


def make_affine(device: torch.device, precision: str, compiled: bool) -> tuple[Affine, bool]:
    """Batch norm and ReLU, (rows, channels) -> (rows, kept), the fastest there is; whether it leaves channels out."""
    if device.type == "cpu" and precision != "fp16" and (kernel := affine_relu_kernel()) is not None:
        return lambda x, norm, out: kernel(x, norm.scale, norm.bias, norm.keep, out), True
    element_wise = _compiled(_affine_relu_fused, device) if compiled else None
    element_wise = element_wise or _affine_relu
    return lambda x, norm, out: element_wise(x, norm.scale, norm.bias, out), False


Product = Callable[[Any], Any]
Finish = Callable[["Tensor", "Tensor | None", bool], "Tensor"]


def _finish(x: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    out = x if bias is None else (x.float() + bias).to(x.dtype)
    return torch.relu(out) if relu else out


def _bias_relu_fused(x: Tensor, bias: Tensor) -> None:
    x.copy_(torch.relu(x.float() + bias))


def make_finish(device: torch.device, compiled: bool) -> Finish:
    """Bias and ReLU behind a product, in one pass where they can be compiled; what the product wrote is overwritten."""
    fused = _compiled(_bias_relu_fused, device) if compiled else None
    if fused is None:
        return _finish

    def finish(x: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        if bias is None or not relu:
            return _finish(x, bias, relu)
        fused(x, bias)
        return x

    return finish


def _compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any] | None:
    """An element-wise function of x, float32 vectors and perhaps out, compiled for any width; None off CUDA."""
    if device.type != "cuda":
        return None
    compiled: Any = torch.compile(function, dynamic=True)
    try:
        with torch.inference_mode():
            for width in (8, 24):
                x = torch.zeros(6, 32, dtype=torch.bfloat16, device=device)[:, :width]
                vector = torch.zeros(width, device=device)
                compiled(*((x, vector, vector, x.clone()) if function is _affine_relu_fused else (x, vector)))
    except Exception:  # no Triton, or one that does not work here: the same passes, slower
        return None
    return compiled


Fused = Callable[["Tensor", "Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]
# What a layer of DenseNet-201 reads in its first, third and fourth block, rows and channels of 64 images.
_FUSED_TRIALS = ((200_704, 160), (12_544, 1008), (3_136, 1392))


def make_fused(device: torch.device, dtype: torch.dtype, affine: Affine, finish: Finish) -> Fused | None:
    """`fused.norm_product`, where it is right and faster than one pass after another on this very device; else None."""
    if device.type != "cuda" or dtype == torch.float32:
        return None
    try:
        from ball_features.extraction.fused import norm_product

        return norm_product if _pays(norm_product, device, dtype, affine, finish) else None
    except Exception:  # no Triton, or one that does not work here; too little shared memory
        return None


def _pays(fused: Fused, device: torch.device, dtype: torch.dtype, affine: Affine, finish: Finish) -> bool:
    seconds = [0.0, 0.0]
    generator = torch.Generator(device).manual_seed(0)
    for rows, channels in _FUSED_TRIALS:
        apart = torch.randn(rows, channels + 64, device=device, generator=generator).to(dtype)
        x = apart[:, :channels]
        weight = (torch.randn(128, channels, device=device, generator=generator) / channels**0.5).to(dtype)
        scale, shift = torch.rand(2, channels, device=device, generator=generator)
        bias = torch.randn(128, device=device, generator=generator)
        norm = Norm(scale, shift, pack_bits(np.ones(channels, bool)), channels)
        linear = make_linear(weight, bias, True, False, finish)

        def one_by_one(x: Tensor = x, norm: Norm = norm, linear: Product = linear) -> Tensor:
            h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            affine(x, norm, h)
            return linear(h)

        def at_once(x: Tensor = x, norm: Norm = norm, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
            return fused(x, norm.scale, norm.bias, weight, bias)

        expected, got = one_by_one().float(), at_once().float()
        if not (got - expected).norm() <= 0.01 * expected.norm():
            return False
        for way, run in enumerate((one_by_one, at_once)):
            seconds[way] += _device_seconds(run)
    return seconds[1] < seconds[0]


def _device_seconds(run: Callable[[], object], calls: int = 10) -> float:
    run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def make_linear(weight: Tensor, bias: Tensor | None, relu: bool, packed: bool, finish: Finish = _finish) -> Product:
    """(rows, in) -> (rows, out) by weight (out, in), with float32 bias and ReLU where asked for."""
    if packed:
        ready = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        after = "relu" if relu else "none"
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, ready, bias, after, [], "")
    return lambda x: finish(F.linear(x, weight), bias, relu)


def make_conv(weight: Tensor, bias: Tensor | None, relu: bool, stride: int, padding: int, packed: bool) -> Product:
    """A convolution of channels-last (batch, channels, height, width), with float32 bias and ReLU where asked for."""
    if packed:
        pad, step = [padding] * 2, [stride] * 2
        ready = torch.ops.mkldnn._reorder_convolution_weight(weight, pad, step, [1, 1], 1, None)
        after = "relu" if relu else "none"
        return lambda x: torch.ops.mkldnn._convolution_pointwise(x, ready, bias, pad, step, [1, 1], 1, after, [], "")
    shaped = None if bias is None else bias[:, None, None]
    return lambda x: _finish(F.conv2d(x, weight, None, stride=stride, padding=padding), shaped, relu)


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


def fold(norm: Any) -> tuple[Tensor, Tensor]:
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
    scale, bias = fold(module)
    dead = module.weight.abs() < no_gain
    keep = pack_bits(~dead.numpy(force=True))
    return Norm(scale.to(device), bias.to(device), keep, int((~dead).sum())), dead
