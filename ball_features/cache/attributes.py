"""Attributes of a cache: how they are read, and which values each of them may have."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache.places import from_stored

__all__ = [
    "LABELLING",
    "LISTING",
    "MOST_SHARDS",
    "REQUIRED_ATTRIBUTES",
    "SHARD",
    "fault_of_attributes",
    "fault_of_shape",
    "from_attribute",
    "read_attributes",
    "to_attribute",
]

SHARD = "shard"  # attribute of a shard: its number, from 1, and the number of shards
LISTING = "listing"  # attribute of a shard: number and hash of the images that shards were dealt from
LABELLING = "labelling"  # attribute of a shard: hash of the classes and columns of these images
MOST_SHARDS = 1_000_000
REQUIRED_ATTRIBUTES = ("backbone", "batch_size", "fingerprint", "precision", "recipe")
_LONGEST_TEXT = 1 << 22
_TEXTS = (
    "backbone", "ball_version", "combine", "created", "decoder", "device", "dtype", "fingerprint", "images",
    "labelling", "listing", "normalize", "pass", "pooling", "recipe", "resize", "segmentation", "weights",
    "weights_sha256",
)  # fmt: skip
_COUNTS = {  # name -> smallest and largest value
    "batch_size": (1, 1 << 20),
    "deviation_images": (0, 1 << 40),
    "input_px": (0, 1 << 14),
    "seed": (0, 1 << 63),
    "views": (0, 10_000),
}
_MEASURES = ("deviation_cosine", "deviation_relative")
_CHANNELS = ("original", "segmented")
_PRECISIONS = ("fp32", "bf16", "fp16")


def read_attributes(file: Any) -> dict[str, Any]:
    """The attributes of an open cache by name, with absolute paths.

    Raises:
        ValueError: One is no JSON where it says so, or is too long.
    """
    own = {key: from_attribute(value) for key, value in file.attrs.items()}
    return from_stored(own, Path(file.filename).parent)


def from_attribute(value: Any) -> Any:
    """A value out of what is stored.

    Raises:
        ValueError: It is no JSON where it says so, or is too long.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and value.startswith("json:"):
        if len(value) > _LONGEST_TEXT:
            raise ValueError(f"an attribute of {len(value)} characters")
        read = json.loads(value[5:])
        json.dumps(read, ensure_ascii=False).encode()  # an error for halves of characters, which nothing can print
        return read
    return value


def to_attribute(value: Any) -> Any:
    """A value as it is stored.

    Raises:
        ValueError: It has no JSON or no bytes, or would be read as another one.
        TypeError: As above.
    """
    stored = "json:" + json.dumps(value, sort_keys=True) if isinstance(value, dict | list | tuple) else value
    if isinstance(value, str) and value.startswith("json:"):
        raise ValueError("a text that begins as JSON does in a cache")
    if isinstance(value, str):
        value.encode("utf-8", "surrogateescape")  # as names of files may need
    return stored


def fault_of_shape(attributes: Mapping[str, Any], views: int, dtype: str) -> str:
    """What attributes say of the embeddings that is not so, in words, or "".

    Args:
        attributes: attributes by name, each as `fault_of_attributes` wants it.
        views: number of views that are stored for each image.
        dtype: number format.
    """
    channels = attributes.get("channels", ["original"])
    if views % len(channels):
        return f"embeddings has {views} views, expected the same number for each channel of {channels}"
    said = attributes.get("views")
    if said is not None and said * len(channels) != views:
        return f"the attribute views is {said}, and embeddings has {views} for {len(channels)} channels"
    if attributes.get("dtype", dtype) != dtype:
        return f"the attribute dtype is {attributes['dtype']}, and embeddings is {dtype}"
    return ""


def fault_of_attributes(attributes: Mapping[str, Any]) -> str:
    """The first attribute that is not what this version writes, with what was expected, in words, or ""."""
    for name, value in attributes.items():
        expected, fits = _rule(name)
        if not fits(value):
            return f"the attribute {name} is {repr(value)[:200]}, expected {expected}"
    mask, side = attributes.get("overlay_mask"), attributes.get("input_px")
    if mask and side is not None and int(mask.partition(":")[0]) != side:
        return f"the attribute overlay_mask is one of {mask.partition(':')[0]} px, expected {side} px, as input_px says"
    return ""


def _rule(name: str) -> tuple[str, Callable[[Any], bool]]:
    """What an attribute is, in words, and the function that tells whether a value is that."""
    if name in _TEXTS:
        return "a text", _is_text
    if name in _COUNTS:
        low, high = _COUNTS[name]
        return f"a whole number from {low} to {high}", lambda value: _is_whole(value) and low <= value <= high
    if name in _MEASURES:
        return "a number", lambda value: isinstance(value, float) or (_is_whole(value) and _is_plain(value))
    return _RULES.get(name, ("a text, a number or what JSON holds", _is_plain))


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be stored again as it is."""
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and "\0" not in value and value[:5] != "json:"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    """Whether a value of an attribute that this version does not know can be shown and stored again."""
    if _is_whole(value):
        return -(1 << 63) <= value < 1 << 63
    return _is_text(value) or isinstance(value, bool | float | list | dict)


def _is_shard(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(map(_is_whole, value))
        and 1 <= value[0] <= value[1] <= MOST_SHARDS
    )


def _is_channels(value: Any) -> bool:
    return isinstance(value, list) and value in ([*_CHANNELS], [*_CHANNELS[::-1]], *([name] for name in _CHANNELS))


def _is_versions(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_version(value: Any) -> bool:
    return _is_text(value) or (_is_whole(value) and _is_plain(value))


def _is_mask(value: Any) -> bool:
    """Whether a text is "" or that of a packed mask, which must hold as many bits as its side says."""
    found = re.fullmatch(r"([0-9]{1,5}):([A-Za-z0-9+/]*={0,2})", value) if _is_text(value) else None
    if found is None:
        return value == ""
    packed = (int(found[1]) ** 2 + 7) // 8  # bytes
    return len(found[2]) == (packed + 2) // 3 * 4


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    SHARD: (f"the number of a shard and that of all, [I, N] with 1 <= I <= N <= {MOST_SHARDS}", _is_shard),
    "channels": (f"a list of {' and '.join(_CHANNELS)}, each at most once", _is_channels),
    "channels_used": (f"a list of {' and '.join(_CHANNELS)}, each at most once", _is_channels),
    "overlay_mask": ("a packed mask", _is_mask),
    "precision": (f"one of {', '.join(_PRECISIONS)}", lambda value: value in _PRECISIONS),
    "recipe_version": ("a whole number or a text", _is_version),
    "versions": ("versions by name", _is_versions),
}
