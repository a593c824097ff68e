"""How far an engine's embeddings are from those of the published module in float32, on a sample of the images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ball_features.extraction.cells import find_nuclei
from ball_features.extraction.memory import batch_size
from ball_features.extraction.normalization import normalize
from ball_features.extraction.preprocessing import Preprocessing, pad
from ball_features.extraction.readouts import reader
from ball_features.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ball_features.extraction.engine.modules import EmbeddingEngine

__all__ = ["Deviation", "Reference", "deviation", "single_thread"]


@dataclass(frozen=True)
class Deviation:
    """Difference between an engine and float32 on a sample.

    Attributes:
        cosine: smallest cosine between an embedding and its float32 reference.
        relative: largest norm of the difference, divided by the norm of the reference.
        images: number of images in the sample.
    """

    cosine: float
    relative: float
    images: int


def deviation(engine: Callable[[Tensor], Tensor], module: Callable[[Tensor], Tensor], images: Tensor) -> Deviation:
    """Compare an engine with the published module in float32.

    Args:
        engine: engine under test.
        module: reference in float32, on the engine's device.
        images: normalised images, float32 (batch, 3, height, width).
    """
    with torch.inference_mode():
        reference = module(images)
        ours = engine(images)
        cosine = F.cosine_similarity(reference.double(), ours.double(), dim=1).min()
        relative = ((ours - reference).norm(dim=1) / reference.norm(dim=1).clamp_min(1e-12)).max()
    return Deviation(float(cosine), float(relative), len(images))


def single_thread(device: torch.device) -> Any:
    """Context in which an engine runs as it does in an extraction: on one core of a CPU."""
    return one_thread() if device.type == "cpu" else contextlib.nullcontext()


@dataclass(frozen=True, eq=False)
class Reference:
    """A sample of images with the float32 module that engines are compared with, over every readout in use.

    Attributes:
        module: network.
        preprocessing: how images become embeddings; its readouts are compared.
        device: device of the engines.
        batch: images in a forward pass; 0 for the default of the device.
        pixels: images, uint8 (images, 3, side, side).
    """

    module: nn.Module
    preprocessing: Preprocessing
    device: torch.device
    batch: int
    pixels: Tensor

    def measure(self, engine: EmbeddingEngine, pixels: Tensor | None = None) -> Deviation:
        """Compare an engine with the module.

        Args:
            engine: engine under test.
            pixels: the same images as another decoder reads them, for the engine alone; those of the sample if None.
        """
        readouts = self.preprocessing.plan.readouts
        # Batches as large as those of the extraction, so that the comparison also warms the engine up.
        size = self.batch or batch_size(self.device.type, engine.precision, self.preprocessing.backbone.input_px)

        def read(network: Any, images: Tensor, nuclei: Tensor | None) -> Tensor:
            """Embed: a row for each image and readout, all padded to one length."""
            masks = [None] * len(images.split(size)) if nuclei is None else nuclei.split(size)
            return torch.cat(
                [
                    pad(vector, self.preprocessing.backbone.dim)
                    for part, mask in zip(images.split(size), masks, strict=True)
                    for vector in reader(network)(part, readouts, mask)
                ]
            )

        images, nuclei = self._prepare(self.pixels)
        engine_images, engine_nuclei = (images, nuclei) if pixels is None else self._prepare(pixels)
        module = self.module.to(self.device)

        def embed(_: Tensor) -> Tensor:
            with single_thread(self.device):
                return read(engine, engine_images, engine_nuclei)

        def embed_by_module(images: Tensor) -> Tensor:
            # Convolutions on CUDA round their input to TF32 unless this is switched off.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                return read(module, images, nuclei)

        return deviation(embed, embed_by_module, images)

    def _prepare(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised images and, where a readout needs them, masks of their nuclei."""
        scaled = pixels.to(self.device).float() / 255
        nuclei = find_nuclei(scaled) if any(readout.nuclei for readout in self.preprocessing.plan.readouts) else None
        return normalize(scaled, self.preprocessing.normalization), nuclei
