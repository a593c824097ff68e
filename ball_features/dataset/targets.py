"""Whether something can be written where it is to be, asked before the work that it would be the result of."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ball_features.dataset.manifest import SUFFIXES
from ball_features.errors import DataError

__all__ = ["require_folder", "require_writable"]


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
        if path.is_file() and path.suffix.lower() in SUFFIXES:
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
