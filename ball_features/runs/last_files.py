"""The last files of a run, verdict and page: hours of work lie beside them, which no failure of theirs may cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["write_last"]


def write_last(files: Mapping[str, Callable[[], object]]) -> list[str]:
    """Write the last files of a run.

    Args:
        files: name -> function that writes the file.

    Returns:
        A sentence for each file that could not be written: the disk is full, or its function has an error.
    """
    failed = []
    for name, write in files.items():
        try:
            write()
        except Exception as error:
            failed.append(f"{name} could not be written ({type(error).__name__}: {error}). The run is complete.")
    return failed
