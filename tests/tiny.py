"""A DenseNet of two layers a block, with every kind of layer and map of the large ones, where depth proves nothing."""

from dataclasses import replace

from ball_features.extraction.backbones import BACKBONES
from ball_features.extraction.dense_network import LAYERS

__all__ = ["TINY", "forget", "register"]

TINY = "densenet-tiny"


def register() -> None:
    """Add it to the backbones of this process."""
    LAYERS[TINY] = (2, 2, 2, 2)
    BACKBONES[TINY] = replace(BACKBONES["densenet121"], name=TINY, dim=128, url="", title="Tiny DenseNet")


def forget() -> None:
    """Take it out again."""
    del LAYERS[TINY], BACKBONES[TINY]
