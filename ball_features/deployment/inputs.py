"""Image files that the arguments of a prediction stand for."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.config.paths import disk_path
from ball_features.dataset.listing import Listing, Rejected, list_images, printable
from ball_features.dataset.sources import Source, open_source
from ball_features.errors import DataError
from ball_features.files import walk

__all__ = ["Inputs", "find_images", "require_images"]

_SEPARATOR = r"[/\\]" if os.name == "nt" else "/"
_DEEP = re.compile(rf"(?:^|(?<={_SEPARATOR}))\*\*(?:{_SEPARATOR}+\*\*)*(?:{_SEPARATOR}+|$)")


@dataclass(frozen=True)
class Inputs:
    """What the arguments of a prediction stand for.

    Attributes:
        files: image files in the order given, each once.
        rejected: arguments and files that cannot be used.
        remarks: files that were passed over, by ending, and folders that were skipped by name.
    """

    files: list[Path]
    rejected: list[Rejected]
    remarks: list[str]


def find_images(arguments: Iterable[str]) -> Inputs:
    """Find image files.

    Args:
        arguments: folders, archives and addresses (searched as `extract` does), patterns such as `*.png`, or files.
    """
    found: dict[str, Path] = {}  # where it lies -> the file, once
    rejected = []
    passed = Listing()
    for text in arguments:
        text = str(disk_path(text) or text)
        path, source = Path(text), open_source(text)
        if source is not None:
            matches: list[Any] = [source]  # its files have the methods of a `Path` that reading needs
        else:
            matches = [path] if path.exists() else [Path(item) for item in sorted(_matches(text))]
        files = []
        for match in matches:
            files += _files(match, rejected, passed)
        if not files:
            rejected.append(Rejected(printable(text), "holds no image" if matches else "is not there"))
        for file in files:
            if printable(str(file)) == str(file):
                found.setdefault(str(file.absolute() if isinstance(file, Path) else file), file)
            else:
                rejected.append(Rejected(printable(str(file)), "its name is not UTF-8; rename it"))
    return Inputs(list(found.values()), rejected, passed.remarks())


def require_images(names: Sequence[str], inputs: Inputs) -> None:
    """Raise `DataError` where arguments stand for no image; it says what was passed over and why."""
    if inputs.files:
        return
    passed = "".join(f" {remark}" for remark in inputs.remarks)
    listed = "".join(f"\n  {item.path}: {item.reason}" for item in inputs.rejected[:5])
    raise DataError(
        f"Found no image in {', '.join(map(printable, names[:3]))}, expected folders, patterns or files.{passed}"
        + (f" Rejected files:{listed}" if listed else "")
    )


def _matches(pattern: str, root: str = "") -> set[str]:
    """What a pattern stands for in a folder; `**` enters no folder that is a link, since links may lead in circles."""
    deep = _DEEP.search(pattern)
    if deep is None:
        return {str(Path(root, name)) for name in glob.glob(pattern, root_dir=root or None)}  # noqa: PTH207, since a pattern may be absolute
    before, after = pattern[: deep.start()], pattern[deep.end() :]
    found: set[str] = set()
    for top in glob.glob(before, root_dir=root or None) if before else [""]:  # noqa: PTH207
        found |= set() if after else {str(Path(root, top))}
        for folder, inner, files in walk(Path(root, top)):
            inner[:] = [name for name in inner if not (name.startswith(".") or Path(folder, name).is_symlink())]
            names = (name for name in (*inner, *files) if not name.startswith("."))
            found |= _matches(after, folder) if after else {str(Path(folder, name)) for name in names}
    return found


def _files(path: Path, rejected: list[Rejected], passed: Listing) -> list[Path]:
    """Images of a folder or `Source`; the file itself of a file. What is passed over is noted in the two lists."""
    if not isinstance(path, Source) and not path.is_dir():
        return [path] if path.is_file() else []
    listing = list_images(path)
    rejected += [Rejected(printable(str(path / item.path)), item.reason) for item in listing.rejected]
    passed.others.update(listing.others)
    passed.archives += [f"{printable(str(path))}/{name}" for name in listing.archives]
    passed.skipped.update({f"{printable(str(path))}/{name}": why for name, why in listing.skipped.items()})
    return [path / name for name in listing.images]
