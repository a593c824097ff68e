"""DenseNets as torchvision builds them, without its import, which takes two seconds and loads all of its networks.

Names and order of the parameters, initial random weights and the forward pass are torchvision's, to the last bit; tests
compare both. `engine.densenet` is the fast forward pass, this module its float32 reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from ball_features.extraction.backbones import Backbone

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LAYERS", "DenseNet", "build_densenet"]

LAYERS: dict[str, tuple[int, int, int, int]] = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
_STEM, _GROWTH, _BOTTLENECK, _CLASSES = 64, 32, 128, 1000


class _Layer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, _BOTTLENECK, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(_BOTTLENECK)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(_BOTTLENECK, _GROWTH, 3, padding=1, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        bottleneck = self.conv1(self.relu1(self.norm1(torch.cat(maps, 1))))
        return self.conv2(self.relu2(self.norm2(bottleneck)))


class _Block(nn.ModuleDict):
    def __init__(self, layers: int, channels: int) -> None:
        super().__init__({f"denselayer{n + 1}": _Layer(channels + n * _GROWTH) for n in range(layers)})

    def forward(self, images: Tensor) -> Tensor:
        maps = [images]
        for layer in self.values():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class _Transition(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2)


class DenseNet(nn.Module):
    """DenseNet-BC (Huang et al. 2017) with growth 32, as torchvision's class of this name.

    Args:
        layers: number of layers of each of the four blocks.
    """

    def __init__(self, layers: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.features: Any = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, _STEM, 7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(_STEM))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        channels = _STEM
        for number, count in enumerate(layers, 1):
            self.features.add_module(f"denseblock{number}", _Block(count, channels))
            channels += count * _GROWTH
            if number < len(layers):
                self.features.add_module(f"transition{number}", _Transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier: nn.Module = nn.Linear(channels, _CLASSES)

    def draw_weights(self) -> None:
        """Draw random weights as torchvision does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images, float (batch, 3, height, width) -> float (batch, channels)."""
        maps = F.relu(self.features(images), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(maps, (1, 1)), 1))


def build_densenet(backbone: Backbone, *, empty: bool = False) -> nn.Module:
    """Build a DenseNet without its classifier.

    Args:
        backbone: record whose builder is in `LAYERS`.
        empty: leave the parameters without memory, for a state dict that is assigned to them.
    """
    layers = LAYERS[backbone.builder or backbone.name]
    if empty:
        with torch.device("meta"):
            module = DenseNet(layers)
    else:
        module = DenseNet(layers)
        module.draw_weights()
    module.classifier = nn.Identity()
    return module
