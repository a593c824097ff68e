"""A dense layer's way in, on CUDA, as one Triton kernel: batch norm, ReLU, 1x1 convolution, bias, ReLU.

A dense block is bound by memory: each layer reads all channels so far. One after another these passes read them, write
them activated and read that again; here they are read once, and what is activated never leaves the registers. No
library has a product that does something to its input on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["norm_product", "norm_product_kernel"]

BLOCK_CHANNELS = 64
OPTIONS = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": True}


@triton.jit
def norm_product_kernel(
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
    """BLOCK_ROWS rows of relu(relu(x * scale + shift) @ weight.T + bias).

    Args:
        x: (rows, channels), rows `stride` apart.
        scale: float32 (channels,).
        shift: float32 (channels,).
        weight: (WIDTH, channels), contiguous.
        bias: float32 (WIDTH,).
        out: (rows, WIDTH), contiguous.
        rows: Of x.
        channels: Of x.
        stride: Of x.
        WIDTH: Of the product.
        PADDED: WIDTH, or the next power of two.
        BLOCK_ROWS: Rows of a tile.
        BLOCK_CHANNELS: Channels of a tile.
    """
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
        active = tl.maximum(tile.to(tl.float32) * factor[None, :] + offset[None, :], 0.0)
        total = tl.dot(active.to(part.dtype), part, total)
    total += tl.load(bias + column, mask=column < WIDTH, other=0.0)[None, :]
    total = tl.maximum(total, 0.0)
    tl.store(
        out + row[:, None] * WIDTH + column[None, :],
        total.to(out.dtype.element_ty),
        mask=(row[:, None] < rows) & (column[None, :] < WIDTH),
    )


def norm_product(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(relu(x * scale + shift) @ weight.T + bias), accumulated in float32.

    Args:
        x: bfloat16 or float16 (rows, channels); the values of a row lie side by side, rows may be apart.
        scale: float32 (channels,).
        shift: float32 (channels,).
        weight: As x, (width, channels), contiguous.
        bias: float32 (width,).

    Returns:
        As x, (rows, width).
    """
    (rows, channels), width = x.shape, len(weight)
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    # Small maps give large tiles too few programs for the processors of a GPU.
    block_rows = 128 if rows >= 40_000 else 64
    grid = (triton.cdiv(rows, block_rows),)
    kernel: Any = norm_product_kernel
    kernel[grid](
        x, scale, shift, weight, bias, out, rows, channels, x.stride(0),
        WIDTH=width, PADDED=triton.next_power_of_2(width), BLOCK_ROWS=block_rows, BLOCK_CHANNELS=BLOCK_CHANNELS,
        **OPTIONS,
    )  # fmt: skip
    return out
