"""The last files of a run, verdict and page: hours of work lie beside them, which no failure of theirs may cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["write_last"]


def write_last(folder: Path, files: Mapping[str, Callable[[], object]]) -> list[str]:
    """Write the last files of a run.

    Args:
        folder: folder of the run; where somebody has moved it since, it is not made anew.
        files: name -> function that writes the file.

    Returns:
        A sentence for each file that could not be written: the disk is full, or its function has an error.
    """
    if not folder.is_dir():
        return [f"{folder} was moved or removed once it was whole: it lacks {' and '.join(files)}."]
    failed = []
    for name, write in files.items():
        try:
            write()
        except Exception as error:
            failed.append(f"{name} could not be written ({type(error).__name__}: {error}). The run is complete.")
    return failed
