"""Forward pass of backbones other than DenseNets, and networks from TorchScript and ONNX files."""

from __future__ import annotations

import contextlib
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from ball_features.errors import ConfigError, WeightsError, require_extra
from ball_features.extraction.backbones import Backbone
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.engine.devices import PRECISIONS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "EmbeddingEngine",
    "ModuleEngine",
    "build_engine",
    "read_network",
    "runs_on_all_cores",
    "torchvision_models",
]


class EmbeddingEngine(Protocol):
    """Embeds batches: normalised images, float (batch, 3, height, width) -> embeddings, float32 (batch, dim)."""

    precision: str

    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        ...


class ModuleEngine:
    """Embeds with any module, in channels-last layout and, below float32, under autocast.

    Args:
        module: network in eval mode.
        device: device that computes.
        precision: key of `devices.PRECISIONS`.
    """

    def __init__(self, module: nn.Module, device: torch.device, precision: str = "fp32") -> None:
        layout: Any = {"memory_format": torch.channels_last}
        self.module = module.to(device) if isinstance(module, _Network) else module.to(device, **layout)
        self.device, self.precision = device, precision

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Embed a batch: normalised images, float (batch, 3, height, width) -> float32 (batch, dim)."""
        x = images.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
        half = contextlib.nullcontext()
        if self.precision != "fp32":
            half = torch.autocast(self.device.type, PRECISIONS[self.precision])
        with half:
            return self.module(x).float()


def build_engine(
    backbone: Backbone, module: nn.Module, device: torch.device, precision: str, compiled: bool
) -> EmbeddingEngine:
    """Build the fastest engine for a backbone.

    Args:
        backbone: record of the network.
        module: network, from `load_backbone`.
        device: device that computes.
        precision: key of `devices.PRECISIONS`.
        compiled: whether a DenseNet on CUDA uses the kernels of `cuda_kernels`, which take some seconds to compile.

    Raises:
        ConfigError: The network is an ONNX file, whose precision is fixed, and another precision was asked for.
    """
    if isinstance(module, OnnxNetwork) and precision != "fp32":
        raise ConfigError(
            f"Got precision={precision} for {backbone.name}, which computes in the precision it was exported in. "
            "Use fp32 or auto."
        )
    if backbone.engine == "densenet":
        return Engine(module, device, precision, compiled)
    return ModuleEngine(module, device, precision)


def torchvision_models() -> Any:
    """Import torchvision's networks.

    Raises:
        WeightsError: torchvision does not load, most often because it belongs to another version of torch.
    """
    try:
        from torchvision import models
    except Exception as error:  # a missing operator, a missing library, a missing package
        versions = []
        for name in ("torchvision", "torch"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions.append(f"{name} {metadata.version(name)}")
        raise WeightsError(
            f"torchvision does not load ({error}). Installed are {' and '.join(versions)}, expected versions that "
            "belong together. Install both again: pip install --upgrade torch torchvision."
        ) from error
    return models


def runs_on_all_cores(engine: EmbeddingEngine) -> bool:
    """Tell whether one call uses every core by threads of its own, as ONNX Runtime does."""
    return isinstance(getattr(engine, "module", None), OnnxNetwork)


class _Network(nn.Module):
    """Network from a file."""

    def probe(self, input_px: int) -> int:
        """Run the network on a blank image and return the length of its embedding.

        Raises:
            WeightsError: The network refuses an image of this size, or does not return one vector for it.
        """
        blank = torch.zeros(1, 3, input_px, input_px)
        try:
            with torch.inference_mode():
                out = self(blank)
        except Exception as error:  # runtimes raise their own kinds
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"The network does not take images of shape (1, 3, {input_px}, {input_px}): {first}. "
                "Set input_px to the size that it takes."
            ) from error
        if not isinstance(out, torch.Tensor) or out.ndim != 2:
            shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise WeightsError(
                f"The network returns {shape} for one image, expected (1, dim), or (1, dim, height, width), which is "
                "averaged. Export it with its pooling and without its classifier."
            )
        return out.shape[1]


def _pooled(out: Any) -> Any:
    """Average a feature map over its pixels; return anything else unchanged."""
    return out.float().mean((2, 3)) if isinstance(out, torch.Tensor) and out.ndim == 4 else out


class TorchScriptNetwork(_Network):
    """Network from a TorchScript file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # loading is deprecated, but such files are in use
                self.module = torch.jit.load(path, map_location="cpu").eval()
        except Exception as error:
            raise WeightsError(
                f"{path} is not TorchScript ({type(error).__name__}). A state dict has no architecture: give it as the "
                "weights of the backbone that it belongs to."
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        return _pooled(self.module(images))


class OnnxNetwork(_Network):
    """Network from an ONNX file, run by ONNX Runtime."""

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
        """Embed a batch, in pieces if the graph has a fixed batch size."""
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
    """Read a network: ONNX if the name ends in .onnx, else TorchScript.

    Raises:
        WeightsError: The file holds no such network.
    """
    return OnnxNetwork(path) if path.suffix == ".onnx" else TorchScriptNetwork(path)
