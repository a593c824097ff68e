"""Files from strangers, read only where they are files."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

__all__ = ["open_plain", "open_regular", "read_json", "read_whole"]

_MOST_JSON_BYTES, _MOST_DIGITS = 1 << 28, 300
_FREE_BYTES, _HOLES = 1 << 26, 16  # a file that claims so many times the bytes it has on disk is a trap


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading in bytes, if it is one: a pipe, a device or a folder is refused, and never waited for.

    Raises:
        OSError: The file cannot be read, or is refused.
    """
    # Without O_NONBLOCK a pipe would wait for somebody who writes to it.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "it is a pipe or a device, and no file")
    return io.BufferedReader(io.FileIO(handle))


def open_plain(path: Path, most: int | None = None) -> io.BufferedReader:
    """Open a file from a stranger for reading in bytes, if it is one: no pipe, no device, not made of holes.

    Args:
        path: the file.
        most: largest number of bytes; None for no bound.

    Raises:
        OSError: The file cannot be read, or is refused.
    """
    file = open_regular(path)
    about = os.fstat(file.fileno())
    on_disk = getattr(about, "st_blocks", about.st_size) * 512
    why = ""
    if most is not None and about.st_size > most:
        why = f"it has {about.st_size / 1e6:.0f} MB, more than {most / 1e6:.0f}"
    elif about.st_size > _HOLES * on_disk + _FREE_BYTES and (on_disk or _is_empty(file)):
        why = f"it claims {about.st_size / 1e9:.1f} GB and has {on_disk / 1e6:.1f} MB on disk"
    if why:
        file.close()
        raise OSError(errno.EINVAL, why)
    return file


def _is_empty(file: io.BufferedReader) -> bool:
    """Whether a file is one hole. Some file systems tell 0 bytes on disk of every file: these find data at once."""
    try:
        os.lseek(file.fileno(), 0, getattr(os, "SEEK_DATA", os.SEEK_SET))
    except OSError as error:
        return error.errno == errno.ENXIO
    return False


def read_whole(path: Path, most: int | None = None) -> bytes:
    """The bytes of a file from a stranger; see `open_plain`."""
    with open_plain(path, most) as file:
        return file.read()


def read_json(path: Path) -> Any:
    """The values in a JSON file from a stranger, of at most 268 MB.

    Raises:
        OSError: The file cannot be read; see `open_plain`.
        ValueError: It is no JSON, nested too deeply, or holds a number that no float holds.
    """
    try:
        return json.loads(read_whole(path, _MOST_JSON_BYTES).decode("utf-8"), parse_int=_whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has more than {_MOST_DIGITS} digits")
    return int(text)
