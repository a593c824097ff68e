"""Folders walked from the top, however deep they lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["walk"]


def walk(
    top: Path | str, *, onerror: Callable[[OSError], object] | None = None, followlinks: bool = False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, folders in it, files in it) as `os.walk`, which before Python 3.12 calls itself for each level.

    Args:
        top: folder to begin with.
        onerror: called with the error where a folder cannot be read; None passes over it.
        followlinks: walk into folders that are links.
    """
    waiting = [os.fspath(top)]
    while waiting:
        folder = waiting.pop()
        folders: list[str] = []
        files: list[str] = []
        linked: set[str] = set()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    (folders if _is_folder(entry) else files).append(entry.name)
                    if not followlinks and entry.is_symlink():
                        linked.add(entry.name)
        except OSError as error:
            if onerror is not None:
                onerror(error)
            continue
        yield folder, folders, files
        waiting += [os.path.join(folder, name) for name in reversed(folders) if name not in linked]  # noqa: PTH118


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
