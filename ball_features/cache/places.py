"""Paths inside artefacts: they are stored relative to the artefact, so that they name no user and no machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PLACES", "from_stored", "to_stored"]

PLACES = ("images", "weights")  # settings that may hold a path


def to_stored(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings as an artefact in a folder stores them: paths begin with a dot and are relative to the folder."""
    return {key: _relative(value, folder) if key in PLACES else value for key, value in values.items()}


def from_stored(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of an artefact in a folder, with absolute paths."""
    return {key: _absolute(value, folder) if key in PLACES else value for key, value in values.items()}


def _relative(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    try:
        return f"./{Path(os.path.relpath(value, folder.resolve())).as_posix()}"
    except ValueError:  # another drive of Windows
        return value


def _absolute(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value.startswith("./"):
        return value
    return os.path.normpath(folder.resolve() / value)
