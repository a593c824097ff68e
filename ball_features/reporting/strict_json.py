"""Strict JSON of results: what is not a number becomes null, so that every reader takes it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

__all__ = ["json_text"]


def json_text(values: Any) -> str:
    """Values as JSON; NaN and infinities become null, paths and other objects their text."""
    return json.dumps(_plain(values), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Values that JSON knows; NaN becomes null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
