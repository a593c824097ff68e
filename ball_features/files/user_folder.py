"""The folder of this user's account for what `ball` keeps on a machine and can make anew."""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from pathlib import Path

__all__ = ["private_folder", "user_folder"]


def user_folder(program: str = "ball") -> Path:
    """Return the folder of a program: below XDG_CACHE_HOME or ~/.cache.

    It need not exist. An account of a container may have no home: then it is one of the temporary folder that only this
    user can write to.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / program
    except RuntimeError:
        return private_folder() / program


@functools.cache
def private_folder() -> Path:
    """A folder of the temporary one that only this user can write to, the same for all commands where it can be."""
    folder = Path(tempfile.gettempdir()) / f"ball-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            return folder
    except (OSError, AttributeError):
        pass
    return Path(tempfile.mkdtemp(prefix="ball-"))
