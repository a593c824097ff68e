"""The forward pass of a frozen DenseNet, rewritten for speed; torchvision's module stays its reference.

The rewrite equals torchvision's module in real arithmetic, except that it treats channels as switched off whose gain is
too small for the precision in use (`passes.NO_GAIN`: up to 4e-3 in bfloat16). It differs in these points:

* The second batch norm of each layer, and that of the stem, are folded into the convolution before them.
* Each dense block writes into one channels-last buffer, so nothing is concatenated.
* Batch norm and ReLU before a 1x1 convolution are one pass, in C++ on a CPU. On CUDA they and the convolution are one
  kernel, where that is faster.
* Channels that training switched off by a tiny gain are constants (a fifth of DenseNet-201's). That pass leaves them
  out, and their contribution goes into the bias after the convolution.
* On a CPU the early blocks, with many pixels and few weights, take a few images of the batch at a time, which stay in
  the cache. Large arrays are kept between calls: fresh memory costs a page fault every 4 KiB.
* A transition pools before its 1x1 convolution. The convolution is linear, so it does a quarter of the work.
* On CUDA a pass whose shape recurs is recorded as a graph and launched at once.
* On a CPU each weight is packed once for oneDNN, whose products then add the bias and apply the ReLU.

Biases stay in float32 when activations are bfloat16: a rounded bias makes the same error at every pixel, which pooling
cannot average out.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ball_features.extraction.engine.cuda import Graphs, gpu_kernels, make_fused
from ball_features.extraction.engine.devices import PRECISIONS
from ball_features.extraction.engine.passes import (
    NO_GAIN,
    Norm,
    Product,
    make_affine,
    make_conv,
    make_linear,
    make_norm,
    make_stem,
    packs,
    scale_and_bias,
)
from ball_features.extraction.readouts import LAST

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Engine"]

# Images that go through the stem and each of the four blocks together, on a CPU; 0 means the whole batch.
PART_IMAGES = (4, 2, 4, 0, 0)


@dataclass(frozen=True)
class _Layer:
    norm: Norm  # before the 1x1 convolution
    reduce: Product  # 1x1 convolution with the second batch norm and ReLU: (rows, kept) -> (rows, bottleneck)
    fused: Product | None  # norm and reduce in one kernel, if there is one: (rows, channels) -> (rows, bottleneck)
    spread: Product  # 3x3 convolution: (batch, bottleneck, height, width) -> (batch, growth, height, width)


@dataclass(frozen=True)
class _Block:
    layers: list[_Layer]
    growth: int  # channels that each layer adds
    norm: Norm  # after the block
    reduce: Product | None  # 1x1 convolution of the transition; None after the last block


class Engine:
    """Embeds normalised images with a frozen torchvision DenseNet.

    Args:
        module: network in eval mode; the engine copies its parameters and leaves it unchanged.
        device: device that computes.
        precision: key of `devices.PRECISIONS`, for activations and convolution weights.
        compiled: whether CUDA uses the kernels of `cuda_kernels`, which take some seconds to compile.
    """

    def __init__(self, module: nn.Module, device: torch.device, precision: str = "fp32", compiled: bool = True) -> None:
        self.device = device
        self.dtype = PRECISIONS[precision]
        self.precision = precision
        gpu = gpu_kernels(device) if compiled else None
        self._affine_relu, leaves_out = make_affine(device, precision, gpu)
        self._graphs = Graphs(self._maps) if device.type == "cuda" else None
        self._kept = threading.local()
        features: Any = module.features
        packed = device.type == "cpu" and precision != "fp16" and packs(self.dtype)
        fused = make_fused(device, self.dtype, gpu)
        no_gain = NO_GAIN[self.dtype] if leaves_out else 0.0
        put = functools.partial(torch.Tensor.to, device=device, dtype=self.dtype)
        keep = functools.partial(torch.Tensor.to, device=device)

        def kernel(weight: Tensor) -> Tensor:
            return put(weight).contiguous(memory_format=torch.channels_last)

        with torch.inference_mode():
            scale, bias = scale_and_bias(features.norm0)
            # Always float32: a smear's background is flat, so rounding makes one error all over the image, which alone
            # causes most of bfloat16's deviation. TF32 rounds an eighth as much.
            stem = keep(features.conv0.weight * scale[:, None, None, None])
            stem = stem.contiguous(memory_format=torch.channels_last)
            packs_stem = device.type == "cpu" and packs(torch.float32)
            self._stem = make_stem(stem, keep(bias), self.dtype, packs_stem, gpu, tf32=precision != "fp32")
            self._blocks: list[_Block] = []
            for number in range(1, 5):
                layers = []
                for layer in features.get_submodule(f"denseblock{number}").children():
                    norm, dead = make_norm(layer.norm1, device, no_gain)
                    scale2, bias2 = scale_and_bias(layer.norm2)
                    weight = layer.conv1.weight[:, :, 0, 0] * scale2[:, None]
                    bias2 = bias2 + weight[:, dead] @ torch.relu(layer.norm1.bias[dead])
                    weight = put(weight[:, ~dead]).contiguous()
                    reduce = make_linear(weight, keep(bias2), True, packed, gpu)
                    spread = make_conv(kernel(layer.conv2.weight), None, False, 1, 1, packed)
                    one_kernel = _bind(fused[number - 1], norm, weight, keep(bias2))
                    layers.append(_Layer(norm, reduce, one_kernel, spread))
                first: Any = next(features.get_submodule(f"denseblock{number}").children())
                between = features.get_submodule(f"transition{number}") if number < 4 else None
                norm, _ = make_norm(features.norm5 if between is None else between.norm, device, 0.0)
                reduce = None
                if between is not None:
                    reduce = make_linear(put(between.conv.weight[:, :, 0, 0]), None, False, packed)
                self._blocks.append(_Block(layers, first.conv2.out_channels, norm, reduce))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            images: normalised images, float (batch, 3, height, width).

        Returns:
            Embeddings, float32 (batch, dim), on the engine's device.
        """
        return self.maps(images, (LAST,))[LAST].flatten(1, 2).mean(1)

    @torch.inference_mode()
    def maps(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Compute the activations of dense blocks, and nothing behind the last block asked for.

        Args:
            images: normalised images, float (batch, 3, height, width).
            blocks: block numbers from 1 to 4.

        Returns:
            Block number -> activations (batch, height, width, dim); float32 for block 4, else the engine's precision.
        """
        images, wanted = images.to(self.device, torch.float32), tuple(sorted(blocks))
        return self._maps(images, wanted) if self._graphs is None else self._graphs(images, wanted)

    def _maps(self, images: Tensor, blocks: tuple[int, ...]) -> dict[int, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        x = _joined([self._stem(part) for part in self._parts(images, 0)])
        maps: dict[int, Tensor] = {}
        for number, block in enumerate(self._blocks, 1):
            last = number == max(blocks)
            passed = [self._pass(part, block, number in blocks, last) for part in self._parts(x, number)]
            if number in blocks:
                maps[number] = _joined([activated for activated, _ in passed])
            if last:
                break
            x = _joined([onward for _, onward in passed])
        return maps

    def _parts(self, x: Tensor, number: int) -> Sequence[Tensor]:
        """Split a batch into the parts that go through the stem (0) or a block (1 to 4) together."""
        images = PART_IMAGES[number] if self.device.type == "cpu" else 0
        return x.split(images) if images else [x]

    def _pass(self, x: Tensor, block: _Block, wanted: bool, last: bool) -> tuple[Tensor, Tensor]:
        """Compute one dense block and the transition after it.

        Args:
            x: input (batch, height, width, channels), contiguous.
            block: block to compute.
            wanted: whether its activations leave the engine.
            last: whether the pass ends here.

        Returns:
            Activations (batch, height, width, total), and the input of the next block, (batch, height / 2, width / 2,
            channels).
        """
        batch, height, width, channels = x.shape
        total = channels + block.growth * len(block.layers)
        rows = batch * height * width
        flat = self._scratch("block", rows, total)
        buffer = flat.view(batch, height, width, total)
        buffer[..., :channels] = x
        for layer in block.layers:
            if layer.fused is not None:
                h = layer.fused(flat[:, :channels])
            else:
                h = self._scratch("activated", rows, layer.norm.kept)
                self._affine_relu(flat[:, :channels], layer.norm, h)
                h = layer.reduce(h)
            new = layer.spread(h.view(batch, height, width, -1).permute(0, 3, 1, 2))
            buffer[..., channels : channels + block.growth] = new.permute(0, 2, 3, 1)
            channels += block.growth
        if wanted:
            dtype = torch.float32 if block.reduce is None else self.dtype
            h = torch.empty(rows, total, dtype=dtype, device=self.device)
        else:
            h = self._scratch("activated", rows, total)
        self._affine_relu(flat, block.norm, h)
        h = h.view(batch, height, width, total)
        if last or block.reduce is None:
            return h, h
        pooled = F.avg_pool2d(h.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)  # (batch, height / 2, width / 2, total)
        return h, block.reduce(pooled.reshape(-1, total)).view(*pooled.shape[:3], -1)

    def _scratch(self, name: str, rows: int, width: int) -> Tensor:
        """Return an uninitialised (rows, width) array, which the next one of this name in this thread overwrites."""
        if self.device.type != "cpu":  # CUDA's allocator keeps freed memory
            return torch.empty(rows, width, dtype=self.dtype, device=self.device)
        kept: dict[str, Tensor] = self._kept.__dict__
        if name not in kept or len(kept[name]) < rows * width:
            kept[name] = torch.empty(rows * width, dtype=self.dtype)
        return kept[name][: rows * width].view(rows, width)


def _bind(fused: Callable[..., Tensor] | None, norm: Norm, weight: Tensor, bias: Tensor) -> Product | None:
    return None if fused is None else lambda x: fused(x, norm.scale, norm.bias, weight, bias)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
