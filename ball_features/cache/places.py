"""Paths inside artefacts: they are stored relative to the artefact, so that they name no user and no machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ball_features.config.paths import expanded

__all__ = ["PLACES", "from_stored", "place_beside", "place_of", "to_stored"]

PLACES = ("images", "weights")  # settings that may hold a path


def to_stored(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings as an artefact in a folder stores them: paths are relative to it, or to the user's folder."""
    return {key: _relative(value, folder) if key in PLACES else value for key, value in values.items()}


def from_stored(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of an artefact in a folder, with absolute paths."""
    return {key: _absolute(value, folder) if key in PLACES else value for key, value in values.items()}


def place_beside(path: Path | str, folder: Path) -> str:
    """A path as an artefact in a folder stores it."""
    return str(_relative(str(Path(path).resolve()), folder))


def place_of(stored: str, folder: Path) -> Path:
    """The path that `place_beside` was given."""
    return Path(_absolute(stored, folder))


def _relative(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    home, folder = expanded("~"), folder.resolve()
    if Path(value).is_relative_to(home) and home != Path(home.anchor) and not folder.is_relative_to(home):
        return f"~/{Path(value).relative_to(home).as_posix()}"
    try:
        return f"./{Path(os.path.relpath(value, folder)).as_posix()}"
    except ValueError:  # another drive of Windows
        return value


def _absolute(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value.startswith(("./", "~/")):
        return value
    if value.startswith("~/"):
        return str(expanded(value))
    return os.path.normpath(folder.resolve() / value)
