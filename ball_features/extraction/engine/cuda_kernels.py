"""The engine's CUDA kernels, in Triton: passes over memory, which bounds a DenseNet, that no library fuses.

A dense layer reads all channels so far. As separate passes, batch norm, ReLU and the 1x1 convolution read them, write
the activations and read those again. In one kernel the channels are read once, and activations stay in registers.

Untried on a GPU, see `cuda`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KERNELS", "affine_relu", "norm_product", "stem_pool"]

_ELEMENT_WISE = {"num_warps": 4, "enable_fp_fusion": True}
_PRODUCT = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": True}
_TILE = {"ROWS": 32, "COLUMNS": 64}
_PIXELS = 32
_BLOCK_CHANNELS = 64


@triton.jit
def _affine_relu(
    x, scale, bias, out, rows, channels, stride, out_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    there = (row[:, None] < rows) & inside[None, :]
    factor = tl.load(scale + column, mask=inside, other=0.0)
    offset = tl.load(bias + column, mask=inside, other=0.0)
    value = tl.load(x + row[:, None] * stride + column[None, :], mask=there, other=0.0).to(tl.float32)
    value = value * factor[None, :] + offset[None, :]
    value = tl.where(value < 0.0, 0.0, value)  # NaN stays NaN
    tl.store(out + row[:, None] * out_stride + column[None, :], value.to(out.dtype.element_ty), mask=there)


@triton.jit
def _stem_pool(
    x, bias, out, pixels, height, width, WIDTH: tl.constexpr, PADDED: tl.constexpr, PIXELS: tl.constexpr
):  # fmt: skip
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, PADDED)
    inside = channel < WIDTH
    down, across = (height + 1) // 2, (width + 1) // 2
    image = (pixel // (down * across)).to(tl.int64)
    top, left = pixel // across % down * 2 - 1, pixel % across * 2 - 1
    best = tl.full((PIXELS, PADDED), float("-inf"), tl.float32)
    for tap in tl.static_range(9):  # pyright: ignore
        y, z = top + tap // 3, left + tap % 3
        there = (pixel < pixels) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        at = (image * height + y) * width + z
        value = tl.load(
            x + at[:, None] * WIDTH + channel[None, :], mask=there[:, None] & inside[None, :], other=float("-inf")
        )
        best = tl.maximum(best, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    best += tl.load(bias + channel, mask=inside, other=0.0)[None, :]
    best = tl.where(best < 0.0, 0.0, best)
    tl.store(
        out + pixel.to(tl.int64)[:, None] * WIDTH + channel[None, :],
        best.to(out.dtype.element_ty),
        mask=(pixel < pixels)[:, None] & inside[None, :],
    )


@triton.jit
def _norm_product(
    x,
    scale,
    shift,
    weight,
    bias,
    out,
    rows,
    channels,
    stride,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, PADDED)
    total = tl.zeros((BLOCK_ROWS, PADDED), tl.float32)
    for start in range(0, channels, BLOCK_CHANNELS):
        channel = start + tl.arange(0, BLOCK_CHANNELS)
        inside = channel < channels
        tile = tl.load(
            x + row[:, None] * stride + channel[None, :], mask=(row[:, None] < rows) & inside[None, :], other=0.0
        )
        factor = tl.load(scale + channel, mask=inside, other=0.0)
        offset = tl.load(shift + channel, mask=inside, other=0.0)
        part = tl.load(
            weight + column[None, :] * channels + channel[:, None],
            mask=(column[None, :] < WIDTH) & inside[:, None],
            other=0.0,
        )
        active = tile.to(tl.float32) * factor[None, :] + offset[None, :]
        active = tl.where(active < 0.0, 0.0, active)
        total = tl.dot(active.to(part.dtype), part, total)
    total += tl.load(bias + column, mask=column < WIDTH, other=0.0)[None, :]
    total = tl.where(total < 0.0, 0.0, total)
    tl.store(
        out + row[:, None] * WIDTH + column[None, :],
        total.to(out.dtype.element_ty),
        mask=(row[:, None] < rows) & (column[None, :] < WIDTH),
    )


# Name -> kernel, launch options and constants of its tile; tests compile them ahead of time.
KERNELS: dict[str, tuple[Any, dict[str, int | bool], dict[str, int]]] = {
    "affine_relu": (_affine_relu, _ELEMENT_WISE, _TILE),
    "stem_pool": (_stem_pool, _ELEMENT_WISE, {"PIXELS": _PIXELS}),
    "norm_product": (_norm_product, _PRODUCT, {"BLOCK_CHANNELS": _BLOCK_CHANNELS}),
}


def affine_relu(x: Tensor, scale: Tensor, bias: Tensor, out: Tensor) -> None:
    """Fill `out` with max(0, x * scale + bias).

    Args:
        x: input (rows, channels) of any float dtype; contiguous within a row, with any stride between rows.
        scale: factors, float32 (channels,).
        bias: offsets, float32 (channels,).
        out: result (rows, channels) of any float dtype, laid out like x; it may be x.
    """
    rows, channels = x.shape
    grid = (triton.cdiv(rows, _TILE["ROWS"]), triton.cdiv(channels, _TILE["COLUMNS"]))
    kernel: Any = _affine_relu
    kernel[grid](x, scale, bias, out, rows, channels, x.stride(0), out.stride(0), **_TILE, **_ELEMENT_WISE)


def stem_pool(x: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the stem after its convolution: bias, ReLU, then max pooling of 3 x 3 pixels with stride 2.

    The kernel takes the maximum first, which gives the same numbers.

    Args:
        x: feature map, float32 (batch, height, width, channels), contiguous.
        bias: float32 (channels,).
        dtype: dtype of the result.

    Returns:
        Feature map (batch, height / 2, width / 2, channels), halves rounded up.
    """
    batch, height, width, channels = x.shape
    out = torch.empty(batch, (height + 1) // 2, (width + 1) // 2, channels, dtype=dtype, device=x.device)
    pixels = out[..., 0].numel()
    sizes = {"WIDTH": channels, "PADDED": triton.next_power_of_2(channels), "PIXELS": _PIXELS}
    kernel: Any = _stem_pool
    kernel[(triton.cdiv(pixels, _PIXELS),)](x, bias, out, pixels, height, width, **sizes, **_ELEMENT_WISE)
    return out


def norm_product(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute relu(relu(x * scale + shift) @ weight.T + bias), accumulated in float32.

    Args:
        x: input, bfloat16 or float16 (rows, channels); contiguous within a row, with any stride between rows.
        scale: factors, float32 (channels,).
        shift: offsets, float32 (channels,).
        weight: (width, channels) in the dtype of x, contiguous.
        bias: float32 (width,).

    Returns:
        (rows, width) in the dtype of x.
    """
    (rows, channels), width = x.shape, len(weight)
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    # On small feature maps, large tiles would leave processors of the GPU idle.
    block_rows = 128 if rows >= 40_000 else 64
    sizes = {"WIDTH": width, "PADDED": triton.next_power_of_2(width), "BLOCK_ROWS": block_rows}
    kernel: Any = _norm_product
    kernel[(triton.cdiv(rows, block_rows),)](
        x, scale, shift, weight, bias, out, rows, channels, x.stride(0),
        **sizes, BLOCK_CHANNELS=_BLOCK_CHANNELS, **_PRODUCT,
    )  # fmt: skip
    return out
