"""Weights of the backbones: finding, downloading, checking and loading them."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.config.paths import expanded
from ball_features.errors import WeightsError, is_of_the_machine, require_extra
from ball_features.extraction.backbones import Backbone
from ball_features.extraction.known_networks import file_sha256, network_sha256
from ball_features.files import user_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["checkpoint_path", "load_backbone", "weights_digest"]

_STATES = ("state_dict", "model_state_dict", "model_state", "model", "teacher")


def weights_digest(backbone: Backbone, weights: str, seed: int = 0) -> str:
    """SHA-256 of the weights' file, or of the description of random weights.

    Args:
        backbone: network.
        weights: "imagenet", "random" or the path of a file.
        seed: seed of random weights.

    Raises:
        WeightsError: The file is missing, or cannot be downloaded.
    """
    if weights == "random" and backbone.path is None:
        return hashlib.sha256(f"random:{backbone.name}:{seed}".encode()).hexdigest()
    path = backbone.path or (_published(backbone) if weights == "imagenet" else Path(weights))
    if not path.is_file():
        raise WeightsError(
            f"No weights file at {path}. Expected a PyTorch state dict of {backbone.name}; "
            "give its path as weights, or weights='imagenet'."
        )
    return file_sha256(path) if backbone.path is None else network_sha256(path)


def load_backbone(backbone: Backbone, weights: str, seed: int = 0) -> nn.Module:
    """Build a network and load its weights, frozen and in eval mode.

    Args:
        backbone: network.
        weights: "imagenet" (published weights, downloaded once), "random", or the path of a state dict with the names
            of torchvision (current or before 2017) or timm, in any floating-point precision. Ignored for a network in a
            file, which contains its weights.
        seed: seed of random weights.

    Returns:
        Module in float32, in eval mode and without gradients, that maps normalised images, float (batch, 3, height,
        width), to embeddings, float (batch, dim).

    Raises:
        WeightsError: The weights are missing, damaged or of another architecture.
    """
    import torch

    if backbone.path is not None:
        from ball_features.extraction.network_files import read_network

        return read_network(backbone.path)
    if weights != "random" and _is_own(backbone):
        from ball_features.extraction.dense_network import build_densenet

        module = build_densenet(backbone, empty=True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = _build(backbone)
    if weights != "random":
        path = _published(backbone) if weights == "imagenet" else Path(weights)
        state = _read_state(path)
        if backbone.source == "timm":
            from ball_features.extraction.transformer_weights import to_timm

            state = to_timm(state, module)
        _load_state(module, state, path, backbone)
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def _is_own(backbone: Backbone) -> bool:
    """Whether `dense_network` builds the network, so that torchvision need not be imported."""
    return backbone.source == "torchvision" and backbone.engine == "densenet" and not backbone.options


def _build(backbone: Backbone) -> nn.Module:
    """Build the network with random weights and without its classifier."""
    from torch import nn

    if _is_own(backbone):
        from ball_features.extraction.dense_network import build_densenet

        return build_densenet(backbone)
    name = backbone.builder or backbone.name
    if backbone.source == "timm":
        require_extra("timm", "timm", backbone.title)
        import timm

        return timm.create_model(name, pretrained=False, num_classes=0, **backbone.options)
    from ball_features.extraction.engine.modules import torchvision_models

    models = torchvision_models()
    module: Any = models.get_model(name, weights=None, **backbone.options)
    for head in ("classifier", "fc"):
        if hasattr(module, head):
            setattr(module, head, nn.Identity())
    if hasattr(module, "avgpool"):
        module.avgpool = nn.AdaptiveAvgPool2d(1)  # VGG pools to 7 x 7 for its fully connected layers
    return module


def checkpoint_path(backbone: Backbone) -> Path:
    """Path under which torch.hub caches the published weights; torch is not imported for it."""
    home = os.environ.get("TORCH_HOME")
    folder = expanded(home) if home else user_folder("torch")
    return folder / "hub" / "checkpoints" / backbone.url.rsplit("/", 1)[-1]


def _published(backbone: Backbone) -> Path:
    """The file of the ImageNet weights, downloaded if it is not cached."""
    return _download(backbone) if backbone.url else _download_timm(backbone)


def _download_timm(backbone: Backbone) -> Path:
    """The file of timm's weights in timm's own cache."""
    require_extra("timm", "timm", backbone.title)
    import timm

    name = backbone.builder
    found: Any = None if backbone.hub else timm.get_pretrained_cfg(name)
    source = backbone.hub or (found and (found.hf_hub_id or found.url))
    if not source:
        raise WeightsError(
            f"timm publishes no weights of {backbone.name}. Give a file as weights, or weights='random'."
        )
    try:
        if backbone.hub or found.hf_hub_id:
            from huggingface_hub import hf_hub_download

            return Path(hf_hub_download(source, "model.safetensors"))
        from timm.models import _hub

        return Path(_hub.download_cached_file(source, check_hash=False))
    except Exception as error:  # the hub, its cache and urllib raise different types of errors
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"The published weights of {backbone.name} could not be downloaded ({first}). Download {source} on a "
            "machine with internet access and give the file as weights."
        ) from error


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
            f"Download {backbone.url} on a machine with internet access and give the file as weights, or copy it to "
            f"{path}."
        ) from error
    return path


def _require_host(url: str, timeout_s: float = 5.0) -> None:
    """Raise `OSError` soon if the host cannot be reached; the download itself would wait for minutes."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in urllib.request.getproxies():
        return  # a proxy resolves the name
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=timeout_s).close()


def _read_state(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # plain settings, which many scripts add
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"No weights file at {path}. Give the path of a state dict as weights.") from error
    except Exception as error:  # torch raises many types of errors for a damaged file
        if is_of_the_machine(error):
            raise
        raise WeightsError(
            f"{path} is not a PyTorch state dict ({_reason(error)}). Expected a file saved with "
            "torch.save(module.state_dict(), ...), with nothing but tensors and plain values in it."
        ) from error
    if isinstance(loaded, Mapping):
        for key in _STATES:
            if isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
    if isinstance(loaded, Mapping) and not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        loaded = dict(_nested(loaded)) or loaded
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        keys = f" with the keys {', '.join(map(str, list(loaded)[:8]))}" if isinstance(loaded, Mapping) else ""
        raise WeightsError(f"{path} holds {type(loaded).__name__}{keys}, expected a state dict of tensors.")
    state = {}
    for key, value in loaded.items():
        # Before 2017 torchvision wrote `norm.1.weight`, and the published files still have these names.
        key = re.sub(r"\.(norm|relu|conv)\.([12])\.", r".\1\2.", str(key))
        state[key] = value.float() if value.is_floating_point() else value
    return state


def _nested(loaded: Mapping[Any, Any], before: str = "", depth: int = 5) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a checkpoint, in mappings of so many levels, with what leads to them before their names."""
    import torch

    for key, value in loaded.items():
        if isinstance(value, torch.Tensor):
            yield f"{before}{key}", value
        elif isinstance(value, Mapping) and depth:
            yield from _nested(value, f"{before}{key}.", depth - 1)


def _reason(error: Exception) -> str:
    """What the reader of a file said, in short: the type that it refused, or the kind of error."""
    refused = re.search(r"Unsupported global: GLOBAL ([\w.]+)", str(error))
    return f"it holds {refused[1]}, which could run code" if refused else type(error).__name__


def _unprefixed(state: dict[str, Tensor], needed: set[str], path: Path) -> dict[str, Tensor]:
    """The state under the names of a network: one prefix that all its tensors share is taken off.

    Wrappers put one before each name, such as `module.`, `_orig_mod.`, `model.` or `backbone.`, and several wrappers
    one before the other.

    Raises:
        WeightsError: Several prefixes lead to the whole network, with other values, as of a student and its teacher.
    """
    if not needed or needed <= state.keys():
        return state
    first = min(needed)
    prefixes = [key.removesuffix(first) for key in state if key.endswith(f".{first}")]
    found = {prefix: sum(prefix + name in state for name in needed) for prefix in prefixes}
    best = max(found, key=lambda prefix: found[prefix], default="")
    rivals = [prefix for prefix in found if found[prefix] == len(needed) and not _same(state, best, prefix, needed)]
    if rivals:
        raise WeightsError(
            f"{path} holds the network {len(rivals) + 1} times, with different weights, under {best} and "
            f"{', '.join(rivals)}. Save the state dict of one of them and give that file as weights."
        )
    return {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)} if best else state


def _same(state: dict[str, Tensor], one: str, other: str, names: set[str]) -> bool:
    return all(state[one + name].equal(state[other + name]) for name in names)


def _load_state(module: nn.Module, state: dict[str, Tensor], path: Path, backbone: Backbone) -> None:
    own = module.state_dict()
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    state = _unprefixed(state, needed, path)
    missing = sorted(needed - state.keys())
    wrong = sorted(key for key in needed & state.keys() if state[key].shape != own[key].shape)
    if missing or wrong:
        example = missing[0] if missing else f"{wrong[0]} {tuple(own[wrong[0]].shape)}"
        got = ", ".join(list(state)[:3]) if missing else f"{tuple(state[wrong[0]].shape)}"
        raise WeightsError(
            f"{path} does not fit {backbone.name}: {len(missing)} tensors missing, {len(wrong)} of another shape "
            f"(first: expected {example}, found {got}). Choose the backbone that the file belongs to."
        )
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    if any(value.is_meta for value in own.values()):
        import torch

        counts = {key: torch.tensor(0) for key in own if key.endswith("num_batches_tracked")}
        module.load_state_dict(counts | fitting, strict=False, assign=True)
    else:
        module.load_state_dict(fitting, strict=False)
