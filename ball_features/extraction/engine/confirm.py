"""An engine without a collection, as a bundle needs it: compared with the network before it answers anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.engine.deviation import Deviation, Reference
from ball_features.extraction.engine.modules import EmbeddingEngine, ModuleEngine, build_engine
from ball_features.extraction.engine.remembered import check_key, recall, remember

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ball_features.extraction.preprocessing import Preprocessing

__all__ = ["Confirmed", "confirm"]

# Smallest cosine to float32 of a pass that is right. How far bfloat16 strays depends on the images, and was settled
# when the cache was made; a pass that is wrong is far below both.
_LEAST = {"fp32": 0.9995}
_LEAST_OTHER = 0.98
_IMAGES = 2


@dataclass(frozen=True, eq=False)
class Confirmed:
    """An engine that agrees with its network.

    Attributes:
        engine: network, ready to embed.
        remark: what was found wrong on this machine, or "".
    """

    engine: EmbeddingEngine
    remark: str = ""


def confirm(
    module: nn.Module,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    compiled: bool = False,
) -> Confirmed:
    """Build an engine and compare it with its network in float32, on two drawn images; a wrong one is not used.

    Args:
        module: network.
        preprocessing: how an image becomes an embedding, with the precision to compute in.
        device: device that computes.
        compiled: compile kernels for CUDA.
    """
    precision = preprocessing.precision
    engine = build_engine(preprocessing.backbone, module, device, precision, compiled)
    if not isinstance(engine, Engine):  # the library's own pass
        return Confirmed(engine)
    pixels = _drawn(preprocessing.backbone.input_px)
    measured = _measure(engine, module, preprocessing, device, pixels)
    if measured.cosine >= _LEAST.get(precision, _LEAST_OTHER):
        return Confirmed(engine)
    remark = (
        f"The fast pass is wrong on this machine (cosine to float32 {measured.cosine:.5f}); torchvision's own "
        "computes, in float32."
    )
    return Confirmed(ModuleEngine(module, device, "fp32"), remark)


def _measure(
    engine: EmbeddingEngine, module: nn.Module, preprocessing: Preprocessing, device: torch.device, pixels: Tensor
) -> Deviation:
    """The deviation of an engine; on a CPU it is remembered for the same weights, code and processor."""
    key = f"bundle {check_key(preprocessing, _IMAGES, pixels)}" if device.type == "cpu" else ""
    known = recall(key) if key else None
    if known is not None:
        return known[2]
    plain = replace(preprocessing, overlay_mask="")
    measured = Reference(module, plain, device, _IMAGES, pixels).measure(engine)
    if key and measured.cosine >= _LEAST.get(preprocessing.precision, _LEAST_OTHER):
        remember(key, preprocessing.precision, False, measured)
    return measured


def _drawn(side_px: int) -> Tensor:
    """Two images of soft spots on a bright field, uint8 (2, 3, side, side), the same on every machine."""
    import torch

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side_px, :side_px] / side_px
    images = np.full((_IMAGES, 3, side_px, side_px), 215.0)
    for image in images:
        for _ in range(8):
            at_x, at_y, size = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.04, 0.12)
            spot = np.exp(-((((x - at_x) ** 2 + (y - at_y) ** 2) / size**2) ** 2))
            image -= np.array([110.0, 150.0, 60.0])[:, None, None] * spot
        image += rng.normal(0, 4, image.shape)
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8))
