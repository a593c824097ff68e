"""Settings of stage 1, one field a setting, with its default, range and help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ball_features.config.fields import COMMON, LAST_SEED, Config, digest, option

__all__ = ["ExtractConfig"]


@dataclass(frozen=True)
class ExtractConfig(Config):
    """Settings of stage 1: how images become embeddings."""

    backbone: str = option(
        "densenet201",
        "Network that makes the embeddings: {names}; timm:NAME is a network of timm (extra timm), and file:PATH your "
        "own network, in TorchScript or ONNX.",
        panel=COMMON,
        registry="backbones",
    )
    recipe: str = option(
        "auto",
        "How the views beside the plain image are made: {names}. a+b applies one recipe after the other, a,b makes one "
        "view of each, a@block2-nuclei reads an earlier block of the network over nuclei only. auto is robust (the "
        "four views of the model robust-views) for a DenseNet where the number of views is not given either, and the "
        "plain image elsewhere.",
        panel=COMMON,
        registry="recipes",
    )
    views: int | None = option(
        None,
        "Number of views of each image: the plain image, then views made by the recipe. As many as the recipe has if "
        "left out; 1 is the plain image alone.",
        panel=COMMON,
        low=1,
        high=1000,
        note="view 0 is the plain image",
    )
    device: str = option(
        "auto", "Device that computes the embeddings: auto, cpu, cuda (NVIDIA) or mps (Apple).", panel=COMMON
    )
    weights: str = option(
        "imagenet",
        "Weights of the network: imagenet (downloaded once), random, or the path of a PyTorch state dict.",
        panel="Network",
    )
    normalize: str = option(
        "auto",
        "Normalisation of pixel values: auto (as the network was trained), imagenet, half (-1 to 1), unit (0 to 1), or "
        "m,m,m/s,s,s: means and standard deviations of R, G and B in [0, 1].",
        panel="Network",
    )
    input_px: int = option(
        0,
        "Side of the network's input in pixels; 0 takes the network's own.",
        panel="Network",
        low=32,
        high=4096,
        special={0: "its own"},
    )
    precision: str = option(
        "auto",
        "Number format of the network's computations: auto (the fastest whose embeddings have a cosine to fp32 of at "
        "least 0.9995 on a sample of these images), fp32, bf16 or fp16.",
        panel="Network",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    dtype: str = option(
        "float16",
        "Number format of the stored embeddings: float16 or float32.",
        panel="Network",
        choices=("float16", "float32"),
    )
    batch_size: int = option(
        0,
        "Number of images that go through the network at once, up to 4096, or auto.",
        panel="Network",
        low=1,
        high=4096,
        special={0: "auto"},
        words={"auto": 0},
    )
    channels: tuple[str, ...] = option(
        ("original",),
        "Pictures that are embedded: original, or original,segmented (the picture, and its nuclei alone).",
        panel="Images",
        choices=("original", "original,segmented"),
    )
    twins: str = option(
        "auto",
        "Source of the segmented pictures: auto (the folder Segmented/ beside the images, else computed), none "
        "(computed), or a folder.",
        panel="Images",
    )
    seed: int = option(0, "Random seed of random views and of random weights.", panel="Images", low=0, high=LAST_SEED)
    limit: int = option(
        0,
        "Number of images to use, spread evenly over the folder; 0 uses all.",
        panel="Images",
        low=1,
        special={0: "all images"},
    )

    @property
    def view_count(self) -> int:
        """Number of views of each image, where it is decided; `extract` decides it before it makes any view."""
        assert self.views is not None
        return self.views

    def fingerprint(self, **resolved: Any) -> str:
        """SHA-256 of everything that changes a stored number, where the number of views is decided.

        Args:
            resolved: what settings such as "auto" became: the weights' digest, the precision in use, the recipe's
                version and so on.
        """
        several = self.view_count > 1
        own = {
            "backbone": self.backbone,
            "dtype": self.dtype,
            "normalize": self.normalize,
            "recipe": self.recipe if several else "plain",
            "seed": self.seed if several or self.weights == "random" else 0,
            "views": self.views,
        }
        return digest(own | resolved)

    @classmethod
    def of_cache(cls, attributes: Mapping[str, Any], views: int) -> ExtractConfig:
        """The settings that make a cache again, from what it keeps of them; those that change no number are left out.

        Args:
            attributes: attributes of the cache.
            views: number of views of each image.
        """
        twins = attributes.get("segmentation") == "twins"
        return cls(
            backbone=attributes["backbone"],
            weights=attributes["weights"],
            recipe=attributes["recipe"] if views > 1 else "auto",
            views=views,
            normalize=attributes["normalize"],
            input_px=attributes["input_px"],
            precision=attributes["precision"],
            dtype=attributes["dtype"],
            channels=attributes.get("channels", ("original",)),
            twins="auto" if twins else "none" if "segmentation" in attributes else cls.twins,
            seed=attributes["seed"],
        )
