"""Settings of `ball fit` after publications, written as a configuration file has them."""

from __future__ import annotations

from ball_features.cli.layers import Preset

__all__ = ["PRESETS"]

_SHORTCUTS = ("majority", "colour", "histogram", "nuclei", "corner")
PRESETS: dict[str, Preset] = {
    "report": Preset(
        {
            "protocol": "holdout",
            "test_size": 0.20,
            "val_size": 0.16,
            "channels": ["original"],
            "models": ["mlp", *_SHORTCUTS],
            "compat_batch_metrics": True,
            "head": {
                "hidden": [64, 64],
                "learning_rate": 1e-4,
                "l2": 1e-5,
                "epochs": 40,
                "batch_size": 16,
                "dropout": 0.2,
                "clip_norm": 0.01,
                "class_weight": "none",
            },
        },
        keeps="the embedding, two layers of 64, Adam at 1e-4, 40 epochs, L2, dropout, clipping, random 64/16/20 splits",
        changes="copies of an image kept together, metrics pooled over all test images of {splits} (the "
        "student report has one split; its averages over batches stand in a table of their own), shortcuts beside it",
    ),
    "paper": Preset(
        {
            "protocol": "holdout",
            "channels": ["original", "segmented"],
            "combine": "concat",
            "models": ["mlp", "logistic", *_SHORTCUTS],
        },
        keeps="two channels, the picture and its nuclei alone, through an ImageNet network, joined before a "
        "classifier; random splits",
        changes="the network is frozen instead of fine-tuned and its feature maps are averaged before they are joined, "
        "one network serves both channels, no augmentation unless the cache has views, copies of an image kept "
        "together, metrics pooled over {splits}, shortcuts beside it; `ball compare` sets backbones side by side",
    ),
}
