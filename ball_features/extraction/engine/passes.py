"""Building blocks of a forward pass: products and element-wise passes, each the fastest that the device has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ball_features.extraction.engine.cpu import affine_relu_kernel, pack_bits
from ball_features.extraction.engine.cuda import cudnn_convolution, linear_relu

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NO_GAIN",
    "Norm",
    "Product",
    "make_affine",
    "make_conv",
    "make_linear",
    "make_norm",
    "make_stem",
    "packs",
    "scale_and_bias",
]

# Gains of a batch norm that are too small for a precision to represent their effect on normalised input.
NO_GAIN = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 0.0}


@dataclass(frozen=True, eq=False)
class Norm:
    """Batch norm followed by ReLU.

    Attributes:
        scale: factors, float32 (channels,).
        bias: offsets, float32 (channels,).
        keep: channels that are computed, packed by `pack_bits`.
        kept: number of these channels.
    """

    scale: Tensor
    bias: Tensor
    keep: np.ndarray
    kept: int


Affine = Callable[["Tensor", Norm, "Tensor"], None]


def _affine_relu(x: Tensor, scale: Tensor, bias: Tensor, out: Tensor) -> None:
    if x.dtype == out.dtype == torch.float32:
        torch.addcmul(bias, x, scale, out=out).relu_()
    else:
        out.copy_(torch.addcmul(bias, x.float(), scale).relu_())


def make_affine(device: torch.device, precision: str, gpu: Any) -> tuple[Affine, bool]:
    """Return the fastest batch norm with ReLU, (rows, channels) -> (rows, kept), and whether it leaves channels out."""
    if device.type == "cpu" and precision != "fp16" and (kernel := affine_relu_kernel()) is not None:
        return lambda x, norm, out: kernel(x, norm.scale, norm.bias, norm.keep, out), True
    element_wise = _affine_relu if gpu is None else gpu.affine_relu
    return lambda x, norm, out: element_wise(x, norm.scale, norm.bias, out), False


Product = Callable[[Any], Any]


def make_linear(weight: Tensor, bias: Tensor | None, relu: bool, packed: bool, gpu: Any = None) -> Product:
    """Return the product (rows, in) -> (rows, out) by weight (out, in), with optional float32 bias and ReLU."""
    if packed:
        ready = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        after = "relu" if relu else "none"
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, ready, bias, after, [], "")
    if gpu is None or bias is None or not relu:
        return lambda x: _finish(F.linear(x, weight), bias, relu)
    return linear_relu(weight, bias, gpu)


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
    """Return a convolution of channels-last (batch, channels, height, width), with optional float32 bias and ReLU.

    Args:
        weight: kernel (out, in, height, width), channels-last.
        bias: float32 (out,).
        relu: whether a ReLU follows.
        stride: step in pixels, in both directions.
        padding: pixels added on each side.
        packed: whether oneDNN's packed convolution computes it.
        tf32: whether CUDA may round float32 to ten bits of mantissa, which is its default.
    """
    pad, step, one = [padding] * 2, [stride] * 2, [1, 1]
    if packed:
        ready = torch.ops.mkldnn._reorder_convolution_weight(weight, pad, step, one, 1, None)
        after = "relu" if relu else "none"
        return lambda x: torch.ops.mkldnn._convolution_pointwise(x, ready, bias, pad, step, one, 1, after, [], "")
    shaped = None if bias is None else bias[:, None, None]

    convolve = cudnn_convolution(weight, stride, padding, tf32=tf32) if weight.device.type == "cuda" else None
    if convolve is None:
        convolve = functools.partial(F.conv2d, weight=weight, bias=None, stride=stride, padding=padding)
    return lambda x: _finish(convolve(x), shaped, relu)


def make_stem(
    weight: Tensor, bias: Tensor, dtype: torch.dtype, packed: bool, gpu: Any = None, *, tf32: bool = False
) -> Product:
    """Return the stem: (batch, 3, height, width) -> (batch, height / 4, width / 4, channels), contiguous.

    It pools before it rounds: the maximum is the same, and a quarter of the numbers is left to round.

    Args:
        weight: kernel of the 7x7 convolution with its batch norm folded in, float32, channels-last.
        bias: bias of that batch norm, float32 (channels,).
        dtype: dtype of the result.
        packed: see `make_conv`.
        gpu: kernels from `cuda.gpu_kernels`, or None.
        tf32: see `make_conv`.
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
    """Tell whether oneDNN's packed products work here in a dtype; they are not public in torch, so this tries them."""
    try:
        with torch.inference_mode():
            weight, x = torch.eye(32, dtype=dtype).repeat(1, 2), torch.ones(4, 64, dtype=dtype)
            linear = make_linear(weight, torch.ones(32), True, packed=True)(x)
            kernel = torch.zeros(32, 32, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
            image = torch.ones(1, 32, 4, 4, dtype=dtype).contiguous(memory_format=torch.channels_last)
            conv = make_conv(kernel, torch.ones(32), True, 1, 1, packed=True)(image)
            return bool(torch.all(linear == 3)) and bool(torch.all(conv == 1))
    except Exception:  # missing, changed in this version of torch, or bfloat16 on a processor without AVX-512
        return False


def scale_and_bias(norm: Any) -> tuple[Tensor, Tensor]:
    """Return a batch norm in eval mode as scale and bias, each (channels,)."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def make_norm(module: Any, device: torch.device, no_gain: float) -> tuple[Norm, Tensor]:
    """Return a batch norm in eval mode, and the mask of its constant channels, which are left out, bool (channels,).

    Args:
        module: batch norm.
        device: device that computes.
        no_gain: gain below which a channel counts as constant; 0 keeps every channel.
    """
    scale, bias = scale_and_bias(module)
    dead = module.weight.abs() < no_gain
    keep = pack_bits(~dead.numpy(force=True))
    return Norm(scale.to(device), bias.to(device), keep, int((~dead).sum())), dead
