"""Image files that the arguments of a prediction stand for."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from ball_features.dataset.listing import Rejected, list_images, printable

__all__ = ["find_images"]


def find_images(arguments: Iterable[str]) -> tuple[list[Path], list[Rejected]]:
    """Find image files.

    Args:
        arguments: folders (searched as `extract` does), patterns such as `*.png`, or files.

    Returns:
        Files in the order given, each once, and the arguments and files that cannot be used.
    """
    found: dict[Path, None] = {}
    rejected = []
    for text in arguments:
        path = Path(text)
        matches = [path] if path.exists() else [Path(item) for item in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207, since a pattern may be absolute
        files = []
        for match in matches:
            own, passed = _files(match)
            files += own
            rejected += passed
        if not files:
            rejected.append(Rejected(printable(text), "holds no image" if matches else "is not there"))
        for file in files:
            if printable(str(file)) == str(file):
                found[file] = None
            else:
                rejected.append(Rejected(printable(str(file)), "its name is not UTF-8; rename it"))
    return list(found), rejected


def _files(path: Path) -> tuple[list[Path], list[Rejected]]:
    """Images, and pictures of kinds that are not supported, of a folder; the file itself of a file."""
    if not path.is_dir():
        return [path] if path.is_file() else [], []
    listing = list_images(path)
    passed = [Rejected(printable(str(path / item.path)), item.reason) for item in listing.rejected]
    return [path / name for name in listing.images], passed
