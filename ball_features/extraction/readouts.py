"""Readouts: which feature map of a network is averaged into an embedding, and with which weights.

A recipe names a readout behind an @: `haematoxylin@block2-nuclei`. Views with equal pixels share one forward pass.
Embeddings that are shorter than the backbone's are padded with zeros, so that a cache has one length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AVERAGE", "LAST", "READOUTS", "Read", "Readout", "module_maps", "pooling_weights", "read_maps", "reader"]

LAST = 4  # dense blocks of a DenseNet
_BACKGROUND_WEIGHT = 1e-3  # weight of a position without nucleus, so that an image without any has an embedding


@dataclass(frozen=True)
class Readout:
    """A way to pool a network's feature map into a vector.

    Attributes:
        name: key in `READOUTS`.
        block: dense block whose activations are averaged, 1 to 4.
        nuclei: weight each position of the map by the share of it that nuclei cover.
    """

    name: str
    block: int
    nuclei: bool

    @property
    def work(self) -> float:
        """Share of a DenseNet's work up to the block that is read."""
        return {1: 0.35, 2: 0.6, 3: 0.9}.get(self.block, 1.0)


READOUTS: dict[str, Readout] = {
    "average": Readout("average", LAST, False),  # the published embedding
    "nuclei": Readout("nuclei", LAST, True),
    "block3": Readout("block3", 3, False),  # less specific to ImageNet's classes
    "block3-nuclei": Readout("block3-nuclei", 3, True),
    "block2": Readout("block2", 2, False),  # texture, edges, size
    "block2-nuclei": Readout("block2-nuclei", 2, True),  # chromatin
}

AVERAGE = READOUTS["average"]

# (normalised images, readouts, nuclei) -> embeddings of each readout.
Read = Callable[["Tensor", Sequence[Readout], "Tensor | None"], list["Tensor"]]


def read_maps(maps: Mapping[int, Tensor], readouts: Sequence[Readout], nuclei: Tensor | None) -> list[Tensor]:
    """Average feature maps.

    Args:
        maps: activations (batch, height, width, dim) of each dense block.
        readouts: readouts to compute.
        nuclei: nuclei, float32 (batch, 1, side, side), or None if no readout needs them.

    Returns:
        Embeddings of each readout, float32 (batch, dim); dim is that of the readout's block.
    """
    out = []
    for readout in readouts:
        activations = maps[readout.block].float()
        if not readout.nuclei:
            out.append(activations.flatten(1, 2).mean(1))
            continue
        assert nuclei is not None
        weight = pooling_weights(nuclei, *activations.shape[:3])
        out.append((weight[:, None] @ activations.flatten(1, 2))[:, 0])
    return out


def pooling_weights(nuclei: Tensor | None, batch: int, height: int, width: int) -> Tensor:
    """Weight of each position of a feature map in its average.

    Args:
        nuclei: nuclei, float32 (batch, 1, side, side), or None for equal weights.
        batch: number of images.
        height: height of the map.
        width: width of the map.

    Returns:
        Weights, float32 (batch, height * width); each row sums to 1.
    """
    import torch
    import torch.nn.functional as F

    if nuclei is None:
        return torch.full((batch, height * width), 1 / (height * width))
    weight = F.adaptive_avg_pool2d(nuclei.float(), (height, width)).flatten(1) + _BACKGROUND_WEIGHT
    return weight / weight.sum(1, keepdim=True)


def module_maps(module: Any, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
    """Compute activations of the dense blocks of a torchvision DenseNet.

    This is the reference of `Engine.maps`, and what an exported graph holds.

    Args:
        module: DenseNet with torchvision's `features`.
        images: normalised pixels, float32 (batch, 3, height, width).
        blocks: numbers of the blocks, 1 to 4; nothing behind the last of them is computed.

    Returns:
        ReLU of the batch-normalised output of each block, float32 (batch, height, width, dim).
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
    """The function that reads views out of a network.

    Args:
        network: engine or module; readouts other than the average need a DenseNet, which `extract` checks.

    Returns:
        Function (normalised images, readouts, nuclei) -> embeddings of each readout.
    """

    def read(images: Tensor, readouts: Sequence[Readout], nuclei: Tensor | None) -> list[Tensor]:
        if all(readout == AVERAGE for readout in readouts):
            return [network(images)] * len(readouts)
        blocks = sorted({readout.block for readout in readouts})
        if hasattr(network, "maps"):
            return read_maps(network.maps(images, blocks), readouts, nuclei)
        maps = module_maps(getattr(network, "module", network), images, blocks)  # an engine's module, or a module
        return read_maps(maps, readouts, nuclei)

    return read
