"""Settings of stage 1, one field a setting, with its default, range and help."""

from __future__ import annotations

from dataclasses import dataclass

from ball_features.config.fields import COMMON, LAST_SEED, Config, option

__all__ = ["PRECISION_CHOICES", "ExtractConfig"]

PRECISION_CHOICES = ("auto", "fp32", "bf16", "fp16")


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
        "How the views beside the plain image are made: {names}. a+b applies one after the other, a,b makes one "
        "view of each, a@block2-nuclei reads an earlier block of the network over nuclei only. fields are four "
        "views of whole fields, cells six of the cell in the middle of an image, robust both, as far as they suit the "
        "images: what the model robust chooses from. auto is the plain image alone.",
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
        "Weights of the network: imagenet (the published ones, downloaded once), random, or the path of a PyTorch "
        "state dict.",
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
        choices=PRECISION_CHOICES,
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
