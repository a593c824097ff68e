"""Frozen ImageNet backbones: a registry, any network of timm, and any network in a file.

To add one, add a record to `BACKBONES`. An embedding is the last feature map after global average pooling, or after the
network's own pooling; the classifier is left off.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ball_features.errors import ConfigError, WeightsError, require_extra

__all__ = ["BACKBONES", "Backbone", "get_backbone", "recorded_backbone"]


@dataclass(frozen=True)
class Backbone:
    """A frozen network: how it is built, what it expects and which feature maps it has.

    Attributes:
        name: key in `BACKBONES`, `timm:NAME`, or `file:NAME`.
        dim: length of an embedding.
        input_px: side of the square input, in pixels.
        url: address of the ImageNet weights, ending in the file's hash; "" where timm knows the address.
        source: library that builds the network, or "file" for a file that holds the whole network.
        builder: name in that library; `name` if "".
        options: arguments of the builder.
        title: name that its authors gave it.
        normalization: normalisation that its ImageNet weights expect, as `extraction.normalization.mean_std` takes it;
            "" where only the user knows.
        pooling: how the last feature map becomes an embedding.
        maps: dense blocks whose activations a readout can average; empty if only the embedding can be read.
        engine: forward pass: "densenet" is rewritten for speed, "module" is the library's own.
        path: file of a network in a file.
        hub: repository of its weights in the Hugging Face hub; "" where they lie elsewhere.
        trained_on: keys of `training_sets.TRAINING_SETS`: public collections of blood cells that it was trained on.
        collections: number of public collections of blood cells that it was trained on, named in `trained_on` or not.
        patch_px: side of a transformer's patch in pixels, of which `input_px` must be a multiple; 1 for other networks.
    """

    name: str
    dim: int
    input_px: int
    url: str = ""
    source: Literal["torchvision", "timm", "file"] = "torchvision"
    builder: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    normalization: str = "imagenet"
    pooling: str = "global average"
    maps: tuple[int, ...] = ()
    engine: Literal["densenet", "module"] = "module"
    path: Path | None = None
    hub: str = ""
    trained_on: tuple[str, ...] = ()
    collections: int = 0
    patch_px: int = 1


_HOST = "https://download.pytorch.org/models/"
_INCEPTION = {"aux_logits": False, "transform_input": True, "init_weights": False}


def _densenet(depth: str, dim: int, digest: str) -> Backbone:
    name = f"densenet{depth}"
    return Backbone(
        name,
        dim,
        224,
        f"{_HOST}{name}-{digest}.pth",
        title=f"DenseNet-{depth}",
        pooling="relu, global average",
        maps=(1, 2, 3, 4),
        engine="densenet",
    )


def _dinobloom(size: str, dim: int) -> Backbone:
    return Backbone(
        f"dinobloom-{size[0]}",
        dim,
        224,
        source="timm",
        builder=f"vit_{size}_patch14_dinov2",
        options={"img_size": 224, "dynamic_img_size": True},
        title=f"DinoBloom-{size[0].upper()}",
        pooling="class token",
        hub=f"1aurent/vit_{size}_patch14_224.dinobloom",
        trained_on=("acevedo", "aml-matek", "bmc", "aml-hehr", "apl", "raabin", "chula", "nuclick"),
        collections=13,
        patch_px=14,
    )


# The ten networks of Ghaderzadeh et al. 2021 (doi 10.1002/int.22753), and two smaller DenseNets.
BACKBONES: dict[str, Backbone] = {
    # Huang et al. 2017, "Densely connected convolutional networks".
    "densenet121": _densenet("121", 1024, "a639ec97"),
    "densenet169": _densenet("169", 1664, "b2777c0a"),
    "densenet201": _densenet("201", 1920, "c1103571"),
    # Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks".
    "efficientnet_b0": Backbone(
        "efficientnet_b0", 1280, 224, _HOST + "efficientnet_b0_rwightman-7f5810bc.pth", title="EfficientNet"
    ),
    # Howard et al. 2019, "Searching for MobileNetV3"; read before the classifier's hidden layer.
    "mobilenet_v3_large": Backbone(
        "mobilenet_v3_large", 960, 224, _HOST + "mobilenet_v3_large-8738ca79.pth", title="MobileNetV3"
    ),
    # Simonyan and Zisserman 2015; the last feature map, since the fully connected layers fix the input size.
    "vgg16": Backbone("vgg16", 512, 224, _HOST + "vgg16-397923af.pth", title="VGG-16"),
    "vgg19": Backbone("vgg19", 512, 224, _HOST + "vgg19-dcbb9e9d.pth", title="VGG-19"),
    # Szegedy et al. 2016, "Rethinking the inception architecture for computer vision".
    "inception_v3": Backbone(
        "inception_v3",
        2048,
        299,
        _HOST + "inception_v3_google-0cc3c7bd.pth",
        title="Inception-V3",
        options=_INCEPTION,
    ),
    # Chollet 2017, "Xception: deep learning with depthwise separable convolutions".
    "xception": Backbone(
        "xception", 2048, 299, source="timm", builder="legacy_xception", title="Xception", normalization="half"
    ),
    # He et al. 2016, "Identity mappings in deep residual networks".
    "resnet50_v2": Backbone(
        "resnet50_v2", 2048, 224, source="timm", builder="resnetv2_50", title="ResNet50-V2", normalization="half"
    ),
    # Zoph et al. 2018, "Learning transferable architectures for scalable image recognition".
    "nasnet_large": Backbone(
        "nasnet_large", 4032, 331, source="timm", builder="nasnetalarge", title="NASNet-Large", normalization="half"
    ),
    # Szegedy et al. 2017, "Inception-v4, Inception-ResNet and the impact of residual connections on learning".
    "inception_resnet_v2": Backbone(
        "inception_resnet_v2", 1536, 299, source="timm", title="Inception-ResNet-V2", normalization="half"
    ),
    # Koch et al. 2024, "DinoBloom: a foundation model for generalizable cell embeddings in hematology" (arXiv
    # 2404.05022): DINOv2 trained on 13 collections of blood and marrow cells. Original weights: Zenodo record 10908163.
    "dinobloom-s": _dinobloom("small", 384),
    "dinobloom-b": _dinobloom("base", 768),
    "dinobloom-l": _dinobloom("large", 1024),
}


def get_backbone(name: str, input_px: int = 0) -> Backbone:
    """Look up a backbone.

    Args:
        name: key of `BACKBONES` or a network's title (capitals, hyphens and underscores do not matter), `timm:NAME` for
            any network of timm, or `file:PATH` for TorchScript (.pt, .ts, .torchscript) or ONNX (.onnx).
        input_px: side of the input in pixels; 0 for the network's own, which a file does not state.

    Raises:
        ConfigError: The name is unknown, or a file comes without its input size.
        WeightsError: The file is missing, or holds no network that maps images to vectors.
        MissingExtraError: timm is not installed.
    """
    if name.startswith("timm:"):
        backbone = _timm(name)
    elif name.startswith("file:"):
        return _file(Path(name.removeprefix("file:")), input_px)
    else:
        plain = {_plain(text): record for record in BACKBONES.values() for text in (record.title, record.name)}
        if _plain(name) not in plain:
            near = difflib.get_close_matches(name, BACKBONES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"Unknown backbone {name!r}.{hint} Valid: {', '.join(sorted(BACKBONES))}; or timm:NAME, file:PATH."
            )
        backbone = plain[_plain(name)]
    if input_px % backbone.patch_px:
        near = max(round(input_px / backbone.patch_px), 1) * backbone.patch_px
        raise ConfigError(
            f"Got input_px={input_px} for {backbone.title}, expected a multiple of {backbone.patch_px}, such as {near}."
        )
    return dataclasses.replace(backbone, input_px=input_px) if input_px else backbone


def recorded_backbone(name: str, input_px: int, dim: int = 0, pooling: object = None) -> Backbone:
    """The network that a cache or a bundle names, without timm and without the network's file.

    Args:
        name: key of `BACKBONES`, `timm:NAME` or `file:NAME`; of the last two it has what is given here alone.
        input_px: side of the input in pixels.
        dim: length of an embedding; 0 for that of the registered network, or if it is unknown.
        pooling: how the last feature map becomes an embedding; None for that of the registered network.
    """
    known = BACKBONES.get(name) or Backbone(name, 0, 0, pooling="")
    pooling = known.pooling if pooling is None else str(pooling)
    return dataclasses.replace(known, input_px=input_px, dim=dim or known.dim, pooling=pooling)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _timm(name: str) -> Backbone:
    """Make the record of a network of timm from timm's default configuration."""
    require_extra("timm", "timm", "a network of timm")
    import timm
    import torch
    from timm.data.config import resolve_data_config

    builder = name.removeprefix("timm:")
    if not timm.is_model(builder):
        near = difflib.get_close_matches(builder, timm.list_models(), n=3)
        hint = f" Near: {', '.join(near)}." if near else ""
        raise ConfigError(
            f"timm has no network {builder!r}.{hint} List them: python -c 'import timm; print(timm.list_models())'"
        )
    try:
        with torch.device("meta"):
            module: Any = timm.create_model(builder, pretrained=False, num_classes=0)
    except Exception as error:  # a tag of weights that timm does not know, and what networks of timm raise themselves
        first = (str(error).splitlines() or [type(error).__name__])[0]
        named = builder.partition(".")[0]
        raise ConfigError(
            f"timm cannot build {builder!r} ({first}). List its networks and tags: python -c 'import timm; "
            f'print(timm.list_pretrained("{named}*"))\''
        ) from error
    config = resolve_data_config({}, model=module)
    triples = "/".join(",".join(f"{value:g}" for value in config[key]) for key in ("mean", "std"))
    return Backbone(
        name=name,
        dim=int(getattr(module, "head_hidden_size", None) or module.num_features),
        input_px=int(config["input_size"][-1]),
        source="timm",
        builder=builder,
        title=builder,
        normalization=triples,
        pooling="the network's own",
    )


def _file(path: Path, input_px: int) -> Backbone:
    """Make the record of a network in a file; a blank image shows the length of its embedding."""
    if path.suffix not in (".pt", ".ts", ".torchscript", ".onnx"):
        raise ConfigError(f"Got file:{path}, expected TorchScript (.pt, .ts, .torchscript) or ONNX (.onnx).")
    if not path.is_file():
        raise WeightsError(f"No network at {path}. Give file:PATH of a TorchScript or ONNX file.")
    if not input_px:
        raise ConfigError(
            f"{path.name} does not state the size of its input. Give input_px and normalize, such as 224 and imagenet."
        )
    from ball_features.extraction.network_files import read_network

    return Backbone(
        f"file:{path.name}",
        read_network(path).probe(input_px),
        input_px,
        source="file",
        path=path,
        title=path.stem,
        normalization="",
        pooling="the network's own",
    )
