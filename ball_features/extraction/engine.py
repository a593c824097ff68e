"""The forward pass of a frozen DenseNet, rewritten for speed; torchvision's module stays its reference.

What changes against torchvision's module, all of it exact in real arithmetic:

* the second batch norm of each layer, and the stem's, are folded into the convolution before them;
* each dense block writes into one channels-last buffer, so nothing is concatenated;
* batch norm and ReLU before a 1x1 convolution are one pass, compiled once for all widths;
* on a CPU the early blocks, wide in pixels and light in weights, take a few images of the batch at a time, which stay
  in the cache, and large arrays are kept from call to call: fresh memory costs a page fault every 4 KiB;
* a transition pools before its 1x1 convolution, which is linear and so does a quarter of the work;
* on a CPU every weight is packed once for oneDNN, whose products then add the bias and apply the ReLU on the way out.

Biases stay in float32 when activations are bfloat16: a rounded bias is the same error at every pixel, which pooling
cannot average away.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ball_features.errors import ConfigError
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
    if not present.get(name.split(":")[0], False):
        here = ", ".join(kind for kind, there in present.items() if there)
        raise ConfigError(f"Device {name!r} is not available here. Present: {here}; or use --device auto.")
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


def _affine_relu(x: Tensor, scale: Tensor, bias: Tensor, out: Tensor) -> None:
    out.copy_(torch.relu(x.float() * scale + bias))


@functools.cache
def _compiled_affine_relu() -> Callable[[Tensor, Tensor, Tensor, Tensor], None]:
    """The element-wise pass, compiled for any width where a compiler is there."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        affine_relu: Any = torch.compile(_affine_relu, dynamic=True)
        probe = torch.zeros(6, 10, dtype=torch.bfloat16)[:, :8]
        with torch.inference_mode():
            affine_relu(probe, torch.ones(8), torch.zeros(8), torch.empty(6, 8, dtype=torch.bfloat16))
    except Exception:  # no C++ compiler, or one that does not work: the same pass, slower
        return _affine_relu
    return affine_relu


Product = Callable[[Any], Any]


def _linear(weight: Tensor, bias: Tensor | None, relu: bool, packed: bool) -> Product:
    """(rows, in) -> (rows, out) by weight (out, in), with float32 bias and ReLU where asked for."""
    if packed:
        ready = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        after = "relu" if relu else "none"
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, ready, bias, after, [], "")
    return lambda x: _finish(F.linear(x, weight), bias, relu)


def _conv(weight: Tensor, bias: Tensor | None, relu: bool, stride: int, padding: int, packed: bool) -> Product:
    """A convolution of channels-last (batch, channels, height, width), with float32 bias and ReLU where asked for."""
    if packed:
        pad, step = [padding] * 2, [stride] * 2
        ready = torch.ops.mkldnn._reorder_convolution_weight(weight, pad, step, [1, 1], 1, None)
        after = "relu" if relu else "none"
        return lambda x: torch.ops.mkldnn._convolution_pointwise(x, ready, bias, pad, step, [1, 1], 1, after, [], "")
    shaped = None if bias is None else bias[:, None, None]
    return lambda x: _finish(F.conv2d(x, weight, None, stride=stride, padding=padding), shaped, relu)


def _finish(x: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    out = x if bias is None else (x.float() + bias).to(x.dtype)
    return torch.relu(out) if relu else out


@functools.cache
def _packs() -> bool:
    """Whether this torch has oneDNN's packed products; they are not public, so they are tried once."""
    try:
        with torch.inference_mode():
            weight, x = torch.eye(32).repeat(1, 2), torch.ones(4, 64)
            linear = _linear(weight, torch.ones(32), True, packed=True)(x)
            kernel = torch.zeros(32, 32, 3, 3).contiguous(memory_format=torch.channels_last)
            image = torch.ones(1, 32, 4, 4).contiguous(memory_format=torch.channels_last)
            conv = _conv(kernel, torch.ones(32), True, 1, 1, packed=True)(image)
            return bool(torch.all(linear == 3)) and bool(torch.all(conv == 1))
    except Exception:  # missing, or with other arguments in this version
        return False


@dataclass(frozen=True)
class _Layer:
    scale: Tensor  # (channels,) float32, of the batch norm before the 1x1 convolution
    bias: Tensor  # (channels,) float32
    reduce: Product  # (rows, channels) -> (rows, bottleneck), with the second batch norm and ReLU
    conv: Product  # (batch, bottleneck, height, width) -> (batch, growth, height, width)


@dataclass(frozen=True)
class _Block:
    layers: list[_Layer]
    channels: int  # that come in
    growth: int  # channels that each layer adds
    scale: Tensor  # (channels,) of the batch norm after it
    bias: Tensor
    reduce: Product | None  # of the transition; None after the last block


def _fold(norm: Any) -> tuple[Tensor, Tensor]:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


class Engine:
    """Embeds normalised images with a frozen torchvision DenseNet.

    Args:
        module: The network, in eval mode; its parameters are copied, the module is not changed.
        device: Where to compute.
        precision: Key of `PRECISIONS`, of activations and of convolution weights.
        compiled: Compile the element-wise passes where a compiler is there.
    """

    def __init__(self, module: nn.Module, device: torch.device, precision: str = "fp32", compiled: bool = True) -> None:
        self.device = device
        self.dtype = PRECISIONS[precision]
        self.precision = precision
        self._affine_relu = _compiled_affine_relu() if compiled else _affine_relu
        self._kept = threading.local()
        features: Any = module.features
        packed = device.type == "cpu" and precision != "fp16" and _packs()
        put = functools.partial(torch.Tensor.to, device=device, dtype=self.dtype)
        keep = functools.partial(torch.Tensor.to, device=device)

        def kernel(weight: Tensor) -> Tensor:
            return put(weight).contiguous(memory_format=torch.channels_last)

        with torch.inference_mode():
            scale, bias = _fold(features.norm0)
            # Always float32: a smear's background is flat, so rounding its pixels is one error all over the image, and
            # alone makes most of the deviation of bfloat16.
            stem = keep(features.conv0.weight * scale[:, None, None, None])
            stem = stem.contiguous(memory_format=torch.channels_last)
            self._stem = _conv(stem, keep(bias), True, 2, 3, device.type == "cpu" and _packs())
            self._blocks: list[_Block] = []
            for number in range(1, 5):
                layers = []
                for layer in features.get_submodule(f"denseblock{number}").children():
                    scale1, bias1 = _fold(layer.norm1)
                    scale2, bias2 = _fold(layer.norm2)
                    reduce = _linear(put(layer.conv1.weight[:, :, 0, 0] * scale2[:, None]), keep(bias2), True, packed)
                    conv = _conv(kernel(layer.conv2.weight), None, False, 1, 1, packed)
                    layers.append(_Layer(keep(scale1), keep(bias1), reduce, conv))
                first: Any = next(features.get_submodule(f"denseblock{number}").children())
                between = features.get_submodule(f"transition{number}") if number < 4 else None
                scale, bias = _fold(features.norm5 if between is None else between.norm)
                reduce = None if between is None else _linear(put(between.conv.weight[:, :, 0, 0]), None, False, packed)
                sizes = (first.conv1.in_channels, first.conv2.out_channels)
                self._blocks.append(_Block(layers, *sizes, keep(scale), keep(bias), reduce))

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
        x = _joined([self._begin(part) for part in self._parts(images.to(self.device, torch.float32), 0)])
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

    def _begin(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, height / 4, width / 4, channels), contiguous."""
        x = self._stem(images.contiguous(memory_format=torch.channels_last)).to(self.dtype)
        return F.max_pool2d(x, 3, stride=2, padding=1).permute(0, 2, 3, 1)

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
            h = self._scratch("activated", rows, channels)
            self._affine_relu(flat[:, :channels], layer.scale, layer.bias, h)
            h = layer.reduce(h)
            new = layer.conv(h.view(batch, height, width, -1).permute(0, 3, 1, 2))
            buffer[..., channels : channels + block.growth] = new.permute(0, 2, 3, 1)
            channels += block.growth
        if wanted:
            dtype = torch.float32 if block.reduce is None else self.dtype
            h = torch.empty(rows, total, dtype=dtype, device=self.device)
        else:
            h = self._scratch("activated", rows, total)
        self._affine_relu(flat, block.scale, block.bias, h)
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
