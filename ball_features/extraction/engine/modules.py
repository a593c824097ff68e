"""Forward pass of backbones other than DenseNets."""

from __future__ import annotations

import contextlib
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from ball_features.errors import ConfigError, WeightsError
from ball_features.extraction.backbones import Backbone
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.engine.devices import PRECISIONS
from ball_features.extraction.network_files import FileNetwork, OnnxNetwork

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EmbeddingEngine", "ModuleEngine", "build_engine", "runs_on_all_cores", "torchvision_models"]


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
        self.module = module.to(device) if isinstance(module, FileNetwork) else module.to(device, **layout)
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
