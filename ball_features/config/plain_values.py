"""Settings as plain values, for JSON and fingerprints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ball_features.config.fields import Config, option_of

__all__ = ["digest", "plain"]


def plain(config: Config) -> dict[str, object]:
    """The settings as a configuration file has them: words for what a file cannot hold, and a table for each record."""
    values: dict[str, object] = {}
    for item in dataclasses.fields(config):
        value, about = getattr(config, item.name), option_of(item)
        values[item.name] = plain(value) if about is None else about.written(value)
    return {name: value for name, value in values.items() if value is not None}


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
