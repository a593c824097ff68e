"""Files that commands write: checks before the work, whole folders, CSV, strict JSON."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ball_features.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "json_text",
    "place_folder",
    "require_folder",
    "require_writable",
    "write_csv",
    "write_json",
]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff"})


def require_writable(path: Path | None, option: str = "") -> None:
    """Make the folder of a file that is to be written, and see whether it can be.

    Args:
        path: The file; None asks nothing.
        option: That named it, for the message.

    Raises:
        DataError: It cannot, or it is an image.
    """
    if path is None:
        return
    other = f"Give another {option}." if option else "Name another file."
    try:
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
            raise DataError(f"{path} is an image and would be overwritten. {other}")
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("ab").close()  # permissions do not tell: some file systems take no new files
        if not there:
            path.unlink()
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}). {other}") from error


def require_folder(path: Path | str, option: str = "--out") -> None:
    """Make a folder that is to be written into, and see whether it takes files.

    Raises:
        DataError: It cannot be made, or does not.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise DataError(f"{path} cannot be written to ({error.strerror}). Give another {option}.") from error


def place_folder(root: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Write a folder whole, then give it a name that is free."""
    partial = root / f".{name}.{os.getpid()}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
    except BaseException as error:  # an interrupt too leaves nothing that looks like a run
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise DataError(f"The run cannot be written to {root} ({error.strerror}). Give another --out.") from error
    for number in range(1, 10_000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            partial.rename(folder)
            return folder
    raise DataError(f"{root} holds 10,000 runs called {name}. Give another --name.")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table with full precision."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON; what is not a number becomes null."""
    path.write_text(json_text(values) + "\n", encoding="utf-8")


def json_text(values: Any) -> str:
    """Values as JSON; NaN and infinities become null, paths and other objects their text."""
    return json.dumps(_plain(values), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Values that JSON knows; NaN becomes null."""
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
