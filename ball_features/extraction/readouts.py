"""What is read out of a network: which feature map, and over which places it is averaged.

A recipe names it behind an @: `haematoxylin@block2-nuclei`. Views of one picture share one forward pass. Embeddings
that are shorter than the backbone's are filled up with zeros, so that a cache has one width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LAST", "READOUTS", "Read", "Readout", "module_maps", "place_weights", "read_maps", "reader"]

LAST = 4  # dense blocks of a DenseNet
_ELSEWHERE = 1e-3  # weight of a place without nucleus, so that a picture without any has an embedding


@dataclass(frozen=True)
class Readout:
    """A way to make a vector of a network's feature maps.

    Attributes:
        block: Dense block whose activations are averaged, 1 to 4.
        nuclei: Average over nuclei only, each place weighted by how much of it is nucleus.
        purpose: What it is for, in a line.
    """

    block: int
    nuclei: bool
    purpose: str


READOUTS: dict[str, Readout] = {
    "average": Readout(LAST, False, "the published embedding: the last feature map, averaged"),
    "nuclei": Readout(LAST, True, "the last feature map over nuclei: nothing of what lies between cells"),
    "block3": Readout(3, False, "the third block's activations, averaged: less of ImageNet's objects"),
    "block3-nuclei": Readout(3, True, "the third block's activations over nuclei"),
    "block2": Readout(2, False, "the second block's activations, averaged: texture, edges, size"),
    "block2-nuclei": Readout(2, True, "the second block's activations over nuclei: chromatin, and little of the slide"),
}

Read = Callable[["Tensor", Sequence[str], "Tensor | None"], list["Tensor"]]


def read_maps(maps: Mapping[int, Tensor], readouts: Sequence[str], nuclei: Tensor | None) -> list[Tensor]:
    """Average feature maps.

    Args:
        maps: Block -> activations (batch, height, width, dim).
        readouts: Keys of `READOUTS`.
        nuclei: float32 (batch, 1, side, side), or None where no readout needs it.

    Returns:
        float32 (batch, dim) a readout; dim is the block's.
    """
    out = []
    for name in readouts:
        readout = READOUTS[name]
        activations = maps[readout.block].float()
        if not readout.nuclei:
            out.append(activations.flatten(1, 2).mean(1))
            continue
        assert nuclei is not None
        weight = place_weights(nuclei, *activations.shape[:3])
        out.append((weight[:, None] @ activations.flatten(1, 2))[:, 0])
    return out


def place_weights(nuclei: Tensor | None, batch: int, height: int, width: int) -> Tensor:
    """Weight of each place of a feature map in an average, float32 (batch, height * width), rows that sum to 1.

    Args:
        nuclei: float32 (batch, 1, side, side), or None, for equal weights.
        batch: Images.
        height: Of the map.
        width: Of the map.
    """
    import torch
    import torch.nn.functional as F

    if nuclei is None:
        return torch.full((batch, height * width), 1 / (height * width))
    weight = F.adaptive_avg_pool2d(nuclei.float(), (height, width)).flatten(1) + _ELSEWHERE
    return weight / weight.sum(1, keepdim=True)


def module_maps(module: Any, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
    """Activations of a torchvision DenseNet's dense blocks: the reference of `Engine.maps`, and what a graph holds.

    Args:
        module: With torchvision's `features`.
        images: Normalised, float32 (batch, 3, height, width).
        blocks: Which; nothing behind the last of them is computed.

    Returns:
        Block -> ReLU of its batch-normalised output, float32 (batch, height, width, dim).
    """
    import torch

    features = module.features
    x = features.pool0(features.relu0(features.norm0(features.conv0(images))))
    maps = {}
    for number in range(1, max(blocks) + 1):
        x = features.get_submodule(f"denseblock{number}")(x)
        if number == LAST:
            active = torch.relu(features.norm5(x))
        else:
            transition = features.get_submodule(f"transition{number}")
            active = torch.relu(transition.norm(x))
            x = transition.pool(transition.conv(active))
        if number in blocks:
            maps[number] = active.permute(0, 2, 3, 1)
    return maps


def reader(network: Any) -> Read:
    """How views are read out of an engine or a module: (normalised images, readouts, nuclei) -> embeddings.

    Only DenseNets have more than the plain average; `extract` refuses other readouts for other backbones.
    """

    def read(images: Tensor, readouts: Sequence[str], nuclei: Tensor | None) -> list[Tensor]:
        if set(readouts) == {"average"}:
            return [network(images)] * len(readouts)
        blocks = sorted({READOUTS[name].block for name in readouts})
        if hasattr(network, "maps"):
            return read_maps(network.maps(images, blocks), readouts, nuclei)
        maps = module_maps(getattr(network, "module", network), images, blocks)  # an engine's, or the reference itself
        return read_maps(maps, readouts, nuclei)

    return read
