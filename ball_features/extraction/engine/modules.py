"""The forward pass of every backbone that is not a DenseNet, and networks that come whole in a file."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from ball_features.errors import ConfigError, WeightsError, require_extra
from ball_features.extraction.backbones import Backbone
from ball_features.extraction.engine.densenet import PRECISIONS, Engine

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EmbeddingEngine", "ModuleEngine", "build_engine", "read_network", "runs_on_all_cores"]


class EmbeddingEngine(Protocol):
    """What embeds a batch: float32 (batch, dim) of normalised float (batch, 3, height, width)."""

    precision: str

    def __call__(self, images: Tensor) -> Tensor:
        """Embed."""
        ...


class ModuleEngine:
    """Embeds with any module, in channels-last layout and, below float32, under autocast.

    Args:
        module: The network, in eval mode.
        device: Where to compute.
        precision: Key of `PRECISIONS`.
    """

    def __init__(self, module: nn.Module, device: torch.device, precision: str = "fp32") -> None:
        layout: Any = {"memory_format": torch.channels_last}
        self.module = module.to(device) if isinstance(module, _Network) else module.to(device, **layout)
        self.device, self.precision = device, precision

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch: normalised float (batch, 3, height, width) -> float32 (batch, dim)."""
        x = images.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
        half = contextlib.nullcontext()
        if self.precision != "fp32":
            half = torch.autocast(self.device.type, PRECISIONS[self.precision])
        with half:
            return self.module(x).float()


def build_engine(
    backbone: Backbone, module: nn.Module, device: torch.device, precision: str, compiled: bool
) -> EmbeddingEngine:
    """The fastest engine there is for a backbone.

    Args:
        backbone: Which network.
        module: It, from `load_backbone`.
        device: Where to compute.
        precision: Key of `PRECISIONS`.
        compiled: On CUDA, use kernels of our own for a DenseNet, which take some seconds to compile.

    Raises:
        ConfigError: An ONNX file, whose precision is fixed, is asked for another one.
    """
    if isinstance(module, OnnxNetwork) and precision != "fp32":
        raise ConfigError(
            f"{backbone.name} computes in the precision it was exported in. Use --precision fp32 or auto."
        )
    if backbone.engine == "densenet":
        return Engine(module, device, precision, compiled)
    return ModuleEngine(module, device, precision)


def runs_on_all_cores(engine: EmbeddingEngine) -> bool:
    """Whether one call has threads of its own for every core, as ONNX Runtime does."""
    return isinstance(getattr(engine, "module", None), OnnxNetwork)


class _Network(nn.Module):
    """A network from a file."""

    def probe(self, input_px: int) -> int:
        """Length of its embedding.

        Raises:
            WeightsError: It does not take such images, or gives no vector of one.
        """
        blank = torch.zeros(1, 3, input_px, input_px)
        try:
            with torch.inference_mode():
                out = self(blank)
        except Exception as error:  # runtimes raise their own kinds
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"The network does not take images of shape (1, 3, {input_px}, {input_px}): {first}. "
                "Give its own --input-px."
            ) from error
        if not isinstance(out, torch.Tensor) or out.ndim != 2:
            shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise WeightsError(
                f"The network gives {shape} of one image, expected (1, dim), or (1, dim, height, width), which is "
                "averaged. Export it with its pooling and without its classifier."
            )
        return out.shape[1]


def _pooled(out: Any) -> Any:
    """A feature map's global average; anything else as it is."""
    return out.float().mean((2, 3)) if isinstance(out, torch.Tensor) and out.ndim == 4 else out


class TorchScriptNetwork(_Network):
    """A TorchScript file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # loading is deprecated, the files are still about
                self.module = torch.jit.load(path, map_location="cpu").eval()
        except Exception as error:
            raise WeightsError(
                f"{path} is not TorchScript ({type(error).__name__}). A state dict has no architecture: give it to "
                "--weights, with the --backbone it belongs to."
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Embed."""
        return _pooled(self.module(images))


class OnnxNetwork(_Network):
    """An ONNX file, in ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        require_extra("onnxruntime", "onnx", f"file:{path.name}")
        import onnxruntime

        try:
            self.session: Any = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
        except Exception as error:
            raise WeightsError(f"{path} is not an ONNX network ({type(error).__name__}). Export it again.") from error
        self.input = self.session.get_inputs()[0]

    def forward(self, images: Tensor) -> Tensor:
        """Embed; a graph of a fixed batch gets it piece by piece."""
        fixed = self.input.shape[0] if self.input.shape else None
        size = fixed if isinstance(fixed, int) else len(images)
        pixels = images.cpu().contiguous().numpy()
        out = []
        for start in range(0, len(pixels), size):
            piece = pixels[start : start + size]
            full = np.concatenate([piece, np.zeros((size - len(piece), *piece.shape[1:]), piece.dtype)])
            out.append(self.session.run(None, {self.input.name: full})[0][: len(piece)])
        return _pooled(torch.from_numpy(np.concatenate(out))).to(images.device)


def read_network(path: Path) -> _Network:
    """The network of a file, by its ending.

    Raises:
        WeightsError: The file holds no network.
    """
    return OnnxNetwork(path) if path.suffix == ".onnx" else TorchScriptNetwork(path)
