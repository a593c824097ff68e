"""Image files below a folder, in natural order."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ball_features.files import IMAGE_SUFFIXES

__all__ = ["Rejected", "list_images", "natural_key", "printable"]


@dataclass(frozen=True)
class Rejected:
    """A file that cannot be used, and the reason.

    Attributes:
        path: path relative to the image folder.
        reason: reason, as the end of a sentence that the path begins.
        sha256: content hash, where the content is known to be bad; "" where the failure may pass.
    """

    path: str
    reason: str
    sha256: str = ""


def list_images(root: Path) -> tuple[list[str], int, list[Rejected]]:
    """Image files below a folder, relative to it with forward slashes, in natural order.

    What is hidden is left out. Linked folders are followed, each folder once.

    Returns:
        The files, the count of other files, and folders that cannot be read.
    """
    images, ignored = [], 0
    unreadable: list[Rejected] = []
    seen: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        below = Path(error.filename).relative_to(root).as_posix()
        unreadable.append(Rejected(printable(below), f"cannot be read ({error.strerror})"))

    for folder, names, files in os.walk(root, onerror=note, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        below = Path(folder).relative_to(root).as_posix()
        for name in files:
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                ignored += 1
            else:
                images.append(name if below == "." else f"{below}/{name}")
    return sorted(images, key=natural_key), ignored, unreadable


def natural_key(path: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts 2 before 10; the path itself breaks ties."""
    parts = re.split(r"(\d+)", path)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts], path


def printable(path: str) -> str:
    """A path whose bytes that are not UTF-8 are written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
