"""Options of `ball fit` by name, after someone's publication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Settings of `ball fit` by name, after someone's publication.

    Attributes:
        settings: Option of `ball fit` -> value.
        keeps: What of the original is kept.
        changes: What is not, with {splits} for their number.
    """

    settings: Mapping[str, Any]
    keeps: str
    changes: str

    def told(self, repeats: int) -> str:
        """What is kept and what is not, for so many random splits."""
        splits = f"{repeats} split{'' if repeats == 1 else 's'}"
        return f"keeps {self.keeps}. It changes: {self.changes.format(splits=splits)}."


_SHORTCUTS = "majority,colour,histogram,nuclei,corner"
PRESETS: dict[str, Preset] = {
    "report": Preset(
        {
            "protocol": "holdout",
            "test_size": 0.20,
            "val_size": 0.16,
            "channels": "original",
            "models": f"mlp,{_SHORTCUTS}",
            "hidden": "64,64",
            "learning_rate": 1e-4,
            "l2": 1e-5,
            "epochs": 40,
            "head_batch_size": 16,
            "dropout": 0.2,
            "clip_norm": 0.01,
            "class_weight": "none",
            "compat_batch_metrics": True,
        },
        keeps="the embedding, two layers of 64, Adam at 1e-4, 40 epochs, L2, dropout, clipping, random 64/16/20 splits",
        changes="copies of an image kept together, metrics pooled over all test images of {splits} (the "
        "student report has one split; its averages over batches stand in a table of their own), shortcuts beside it",
    ),
    "paper": Preset(
        {
            "protocol": "holdout",
            "channels": "original,segmented",
            "combine": "concat",
            "models": f"mlp,logistic,{_SHORTCUTS}",
        },
        keeps="two channels, the picture and its nuclei alone, through an ImageNet network, joined before a "
        "classifier; random splits",
        changes="the network is frozen instead of fine-tuned and its feature maps are averaged before they are joined, "
        "one network serves both channels, no augmentation unless the cache has views, copies of an image kept "
        "together, metrics pooled over {splits}, shortcuts beside it; `ball compare` sets backbones side by side",
    ),
}
