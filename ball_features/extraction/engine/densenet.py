"""The forward pass of a frozen DenseNet, rewritten for speed; torchvision's module stays its reference.

What changes against torchvision's module, exact in real arithmetic but for channels whose gain is too small for the
precision in use (`passes.NO_GAIN`: in bfloat16 up to 4e-3), which count as switched off:

* the second batch norm of each layer, and the stem's, are folded into the convolution before them;
* each dense block writes into one channels-last buffer, so nothing is concatenated;
* batch norm and ReLU before a 1x1 convolution are one pass, in C++ on a CPU; on CUDA they and the convolution are one
  kernel, where that is faster;
* channels that training has switched off, by a gain of next to nothing, are constants (a fifth of DenseNet-201's): that
  pass leaves them out, and what they add goes into the bias behind the convolution;
* on a CPU the early blocks, wide in pixels and light in weights, take a few images of the batch at a time, which stay
  in the cache, and large arrays are kept from call to call: fresh memory costs a page fault every 4 KiB;
* a transition pools before its 1x1 convolution, which is linear and so does a quarter of the work;
* on CUDA a pass whose shape comes again is recorded as a graph and launched at once;
* on a CPU every weight is packed once for oneDNN, whose products then add the bias and apply the ReLU on the way out.

Biases stay in float32 when activations are bfloat16: a rounded bias is the same error at every pixel, which pooling
cannot average away.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ball_features.errors import ConfigError
from ball_features.extraction.engine.cuda import Graphs
from ball_features.extraction.engine.passes import (
    NO_GAIN,
    Norm,
    Product,
    gpu_kernels,
    make_affine,
    make_conv,
    make_fused,
    make_linear,
    make_norm,
    make_stem,
    packs,
    scale_and_bias,
)
from ball_features.extraction.readouts import LAST

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["PRECISIONS", "Deviation", "Engine", "best_precision", "deviation", "resolve_device"]

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Images of a batch that go through the stem and each block together, on a CPU; 0: all.
PART_IMAGES = (4, 2, 4, 0, 0)


def resolve_device(name: str) -> torch.device:
    """The device by name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: The device is not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if present[kind])
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not present.get(kind, False) or (name != kind and not (number.isdecimal() and int(number) < count)):
        here = [one for one, there in present.items() if there]
        here += [f"cuda:{one}" for one in range(torch.cuda.device_count()) if present["cuda"]]
        raise ConfigError(f"Device {name!r} is not available here. Present: {', '.join(here)}; or use --device auto.")
    return torch.device(name)


def best_precision(device: torch.device) -> str:
    """The fastest precision that the device computes in hardware: by capability, not by timing.

    bf16 on processors with AVX-512 BF16 or AMX and on CUDA from Ampere on, fp16 on older CUDA devices and on MPS,
    fp32 elsewhere, where emulated half precision would only be slower.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "mps":
        return "fp16"
    capabilities = torch.backends.cpu.get_cpu_capability()
    flags: Any = torch.cpu
    has_bf16 = getattr(flags, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if has_bf16 and "AVX512" in capabilities else "fp32"


@dataclass(frozen=True)
class _Layer:
    norm: Norm  # before the 1x1 convolution
    reduce: Product  # (rows, kept) -> (rows, bottleneck), with the second batch norm and ReLU
    fused: Product | None  # (rows, channels) -> (rows, bottleneck), both, where that is one kernel
    spread: Product  # (batch, bottleneck, height, width) -> (batch, growth, height, width)


@dataclass(frozen=True)
class _Block:
    layers: list[_Layer]
    channels: int  # that come in
    growth: int  # channels that each layer adds
    norm: Norm  # after it
    reduce: Product | None  # of the transition; None after the last block


class Engine:
    """Embeds normalised images with a frozen torchvision DenseNet.

    Args:
        module: The network, in eval mode; its parameters are copied, the module is not changed.
        device: Where to compute.
        precision: Key of `PRECISIONS`, of activations and of convolution weights.
        compiled: On CUDA, use kernels of our own, which take some seconds to compile.
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
            # Always float32: a smear's background is flat, so rounding its pixels is one error all over the image, and
            # alone makes most of the deviation of bfloat16. TF32 rounds them an eighth as much.
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
                    at_once = _at_once(fused[number - 1], norm, weight, keep(bias2))
                    layers.append(_Layer(norm, reduce, at_once, spread))
                first: Any = next(features.get_submodule(f"denseblock{number}").children())
                between = features.get_submodule(f"transition{number}") if number < 4 else None
                norm, _ = make_norm(features.norm5 if between is None else between.norm, device, 0.0)
                reduce = None
                if between is not None:
                    reduce = make_linear(put(between.conv.weight[:, :, 0, 0]), None, False, packed)
                self._blocks.append(_Block(layers, first.conv1.in_channels, first.conv2.out_channels, norm, reduce))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            images: Normalised, float (batch, 3, height, width).

        Returns:
            float32 (batch, dim), on the engine's device.
        """
        return self.maps(images, (LAST,))[LAST].flatten(1, 2).mean(1)

    @torch.inference_mode()
    def maps(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Activations of dense blocks; nothing behind the last that is wanted is computed.

        Args:
            images: Normalised, float (batch, 3, height, width).
            blocks: Numbers from 1 to 4.

        Returns:
            Block -> (batch, height, width, dim), float32 of the last block, of others in the engine's precision.
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
        """A batch as it goes through the stem (0) or a block."""
        images = PART_IMAGES[number] if self.device.type == "cpu" else 0
        return x.split(images) if images else [x]

    def _pass(self, x: Tensor, block: _Block, wanted: bool, last: bool) -> tuple[Tensor, Tensor]:
        """One dense block, and the transition after it.

        Args:
            x: (batch, height, width, channels), contiguous.
            block: The block.
            wanted: Its activations leave the engine.
            last: Nothing behind it is wanted.

        Returns:
            Activations (batch, height, width, total), and what goes on, (batch, height / 2, width / 2, channels).
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
        """An uninitialised (rows, width) that is overwritten by the next one of this name in this thread."""
        if self.device.type != "cpu":  # CUDA's allocator keeps what was freed
            return torch.empty(rows, width, dtype=self.dtype, device=self.device)
        kept: dict[str, Tensor] = self._kept.__dict__
        if name not in kept or len(kept[name]) < rows * width:
            kept[name] = torch.empty(rows * width, dtype=self.dtype)
        return kept[name][: rows * width].view(rows, width)


def _at_once(fused: Callable[..., Tensor] | None, norm: Norm, weight: Tensor, bias: Tensor) -> Product | None:
    return None if fused is None else lambda x: fused(x, norm.scale, norm.bias, weight, bias)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True)
class Deviation:
    """How far an engine is from float32 on a sample.

    Attributes:
        cosine: Smallest cosine between an embedding and its float32 reference.
        relative: Largest norm of the difference over the norm of the reference.
        images: Images in the sample.
    """

    cosine: float
    relative: float
    images: int


def deviation(engine: Callable[[Tensor], Tensor], module: Callable[[Tensor], Tensor], images: Tensor) -> Deviation:
    """Compare an engine with the published module in float32 on a sample.

    Args:
        engine: The engine to check.
        module: The reference, float32, on the engine's device.
        images: Normalised, float32 (batch, 3, height, width).
    """
    with torch.inference_mode():
        reference = module(images)
        ours = engine(images)
        cosine = F.cosine_similarity(reference, ours, dim=1).min()
        relative = ((ours - reference).norm(dim=1) / reference.norm(dim=1).clamp_min(1e-12)).max()
    return Deviation(float(cosine), float(relative), len(images))
