"""Frozen ImageNet backbones: a literal registry and the loading of their weights."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BACKBONES", "Backbone", "checkpoint_path", "embed", "get_backbone", "load_backbone", "weights_digest"]


@dataclass(frozen=True)
class Backbone:
    """A frozen network, by the name of its torchvision builder.

    Attributes:
        name: Key in `BACKBONES`, and torchvision's builder of that name.
        dim: Length of the embedding, the channels of the last feature map.
        input_px: Side of the square input, in pixels.
        url: Where torchvision publishes the ImageNet weights; the name ends in the file's hash.
    """

    name: str
    dim: int
    input_px: int
    url: str


_HOST = "https://download.pytorch.org/models/"

# Huang et al. 2017, "Densely connected convolutional networks".
BACKBONES: dict[str, Backbone] = {
    "densenet121": Backbone("densenet121", 1024, 224, _HOST + "densenet121-a639ec97.pth"),
    "densenet169": Backbone("densenet169", 1664, 224, _HOST + "densenet169-b2777c0a.pth"),
    "densenet201": Backbone("densenet201", 1920, 224, _HOST + "densenet201-c1103571.pth"),
}


def get_backbone(name: str) -> Backbone:
    """Look a backbone up.

    Raises:
        ConfigError: The name is not in the registry.
    """
    if name not in BACKBONES:
        raise ConfigError(f"Unknown backbone {name!r}. Valid: {', '.join(sorted(BACKBONES))}.")
    return BACKBONES[name]


def embed(module: nn.Module, images: Tensor) -> Tensor:
    """Reference embedding: global average pool of ReLU of the last feature map.

    Args:
        module: A torchvision DenseNet.
        images: Normalised images, float (batch, 3, height, width).

    Returns:
        Float (batch, dim).
    """
    import torch.nn.functional as F

    features: Any = module.features  # (batch, dim, height / 32, width / 32)
    return F.adaptive_avg_pool2d(F.relu(features(images)), 1).flatten(1)


def weights_digest(backbone: Backbone, weights: str, seed: int = 0) -> str:
    """SHA-256 that identifies the weights, without loading them where that is possible.

    Raises:
        WeightsError: The file is missing, or cannot be downloaded.
    """
    if weights == "random":
        return hashlib.sha256(f"random:{backbone.name}:{seed}".encode()).hexdigest()
    path = _download(backbone) if weights == "imagenet" else Path(weights)
    if not path.is_file():
        raise WeightsError(
            f"No weights file at {path}. Expected a PyTorch state dict of {backbone.name}; "
            "give its path to --weights, or use --weights imagenet."
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_backbone(backbone: Backbone, weights: str, seed: int = 0) -> nn.Module:
    """Build the network and load its weights, frozen and in eval mode.

    Args:
        backbone: Which network.
        weights: "imagenet" (torchvision's, downloaded once), "random", or the path of a state dict in
            torchvision's present naming or in its older one, in any floating precision.
        seed: Seeds the random weights; unused otherwise.

    Returns:
        torchvision's module in float32, eval mode, without gradients.

    Raises:
        WeightsError: The weights are missing, damaged or of another architecture.
    """
    import torch
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = models.get_model(backbone.name, weights=None)
    if weights != "random":
        path = _download(backbone) if weights == "imagenet" else Path(weights)
        _load_state(module, _read_state(path), path, backbone)
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def checkpoint_path(backbone: Backbone) -> Path:
    """Where torch.hub keeps the published weights, found without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints" / backbone.url.rsplit("/", 1)[-1]


def _download(backbone: Backbone) -> Path:
    path = checkpoint_path(backbone)
    if path.is_file():
        return path
    prefix = path.stem.rsplit("-", 1)[-1]
    try:
        _require_host(backbone.url)
        from torch import hub

        path.parent.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(backbone.url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: the hash does not match
        raise WeightsError(
            f"The ImageNet weights of {backbone.name} could not be downloaded ({error}). "
            f"Fetch {backbone.url} on a machine with a network and give the file to --weights, or put it at {path}."
        ) from error
    return path


def _require_host(url: str, timeout_s: float = 5.0) -> None:
    """Fail soon where the host cannot be reached, since the download itself would wait for minutes."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in urllib.request.getproxies():
        return  # a proxy resolves the name
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=timeout_s).close()


def _read_state(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"No weights file at {path}. Give the path of a state dict to --weights.") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(
            f"{path} is not a PyTorch state dict ({type(error).__name__}). "
            "Expected a file saved with torch.save(module.state_dict(), ...); fetch it again."
        ) from error
    if isinstance(loaded, Mapping):
        for key in ("state_dict", "model"):
            if isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise WeightsError(f"{path} holds {type(loaded).__name__}, expected a state dict of tensors.")
    state = {}
    for key, value in loaded.items():
        # Before 2017 torchvision wrote `norm.1.weight`; the published files still do.
        key = re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", key.removeprefix("module."))
        state[key] = value.float() if value.is_floating_point() else value
    return state


def _load_state(module: nn.Module, state: dict[str, Tensor], path: Path, backbone: Backbone) -> None:
    own = module.state_dict()
    # The classifier plays no part in an embedding, and fine-tuned files have another one.
    needed = {key for key in own if not key.startswith("classifier.") and not key.endswith("num_batches_tracked")}
    missing = sorted(needed - state.keys())
    wrong = sorted(key for key in needed & state.keys() if state[key].shape != own[key].shape)
    if missing or wrong:
        example = missing[0] if missing else f"{wrong[0]} {tuple(state[wrong[0]].shape)}"
        raise WeightsError(
            f"{path} does not fit {backbone.name}: {len(missing)} tensors missing, {len(wrong)} of another shape "
            f"(first: {example}). Choose the --backbone that the file belongs to."
        )
    module.load_state_dict({k: v for k, v in state.items() if k in own and v.shape == own[k].shape}, strict=False)
