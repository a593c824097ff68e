"""Outputs of one command, each of which is a file of its own."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from ball_features.config.paths import disk_path, is_address, shown_path, whole_address
from ball_features.errors import DataError

__all__ = ["require_apart"]


def require_apart(outputs: Mapping[str, Path | str | None]) -> None:
    """Check before the work that no two outputs of a command are one file, of which the second would cost the first.

    Names in one folder that differ by letter case or Unicode form alone are one file on many disks, and count as one.

    Args:
        outputs: name of the setting -> path or address of the file, or None.

    Raises:
        DataError: Two of them are one file.
    """
    seen: dict[tuple[object, str], str] = {}
    for setting, path in outputs.items():
        if path is None or os.path.realpath(path) == os.path.realpath(os.devnull):
            continue
        key = _key(path)
        if key in seen:
            raise DataError(
                f"Got {shown_path(path)} for both {seen[key]} and {setting}, expected a file of its own for each. Give "
                f"another {setting}."
            )
        seen[key] = setting


def _key(path: Path | str) -> tuple[object, str]:
    """What tells a file that may not be there yet: its folder, and its name as the laxest disks take it."""
    path = disk_path(path) or path
    if is_address(path):
        return "", whole_address(path).rstrip("/")
    real = Path(os.path.realpath(path))
    try:
        about = real.parent.stat()
        folder: object = (about.st_dev, about.st_ino)
    except OSError:
        folder = unicodedata.normalize("NFC", str(real.parent)).casefold()
    return folder, unicodedata.normalize("NFC", real.name).casefold()
