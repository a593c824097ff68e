"""Files that commands write: checks before the work, whole folders, CSV, strict JSON."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from ball_features.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "NewFolder",
    "json_text",
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


class NewFolder:
    """A folder that appears whole under a free name: it is written under another name, then renamed.

    An exception inside the `with` block, an interrupt too, removes it.

    Attributes:
        path: folder to write into; the final folder after the `with` block.

    Examples:
        >>> with NewFolder(Path("artifacts/runs"), "holdout") as new:  # doctest: +SKIP
        ...     (new.path / "run.json").write_text("{}")
        >>> new.path  # doctest: +SKIP
        PosixPath('artifacts/runs/holdout')
    """

    def __init__(self, root: Path, name: str) -> None:
        """Choose the folder.

        Args:
            root: parent folder, which is made.
            name: wanted name; a name that is taken gets a number.
        """
        self._root, self._name = root, name
        self.path = root / f".{name}.{os.getpid()}.partial"

    def __enter__(self) -> Self:
        """Make the folder.

        Raises:
            DataError: the folder cannot be made.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir()
        except OSError as error:
            raise self._refusal(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Give the folder its name, or remove it after an exception.

        Raises:
            DataError: the folder cannot be written, or 10,000 folders have its name.
        """
        if error is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise self._refusal(error) from error
            return
        for number in range(1, 10_000):
            folder = self._root / (self._name if number == 1 else f"{self._name}-{number}")
            if not folder.exists():
                self.path = self.path.rename(folder)
                return
        shutil.rmtree(self.path, ignore_errors=True)
        raise DataError(f"{self._root} holds 10,000 runs called {self._name}. Choose another name.")

    def _refusal(self, error: OSError) -> DataError:
        return DataError(f"The run cannot be written to {self._root} ({error.strerror}). Choose another folder.")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table with full precision; lines end with a line feed alone."""
    with path.open("w", newline="", encoding="utf-8") as file:
        usual, quoting = (
            csv.writer(file, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        for row in itertools.chain([header], rows):
            cells = list(row)
            # Python before 3.13 leaves a carriage return unquoted here, and refuses to read it back.
            returned = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            (quoting if returned else usual).writerow(cells)


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON; what is not a number becomes null."""
    path.write_text(json_text(values) + "\n", encoding="utf-8")


def json_text(values: Any) -> str:
    """Values as JSON; NaN and infinities become null, paths and other objects their text."""
    return json.dumps(_plain(values), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Convert values to those that JSON knows; a record gives its `to_dict`, and NaN becomes null."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
