"""Checksums of the files of a bundle, in the form that the program `sha256sum` reads."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ball_features.dataset.listing import printable
from ball_features.errors import DataError
from ball_features.files import open_plain, read_whole

__all__ = ["SUMS", "changed_files", "copy_files", "require_plain_files", "require_unchanged", "write_checksums"]

SUMS = "SHA256SUMS"
_MOST_SUMS_BYTES, _MOST_JSON_BYTES = 1 << 20, 1 << 32


def require_plain_files(folder: Path) -> None:
    """Raise `DataError` for a bundle that holds a pipe, a device, or a file that claims more than it has."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        try:
            open_plain(path, _MOST_JSON_BYTES if path.suffix == ".json" else None).close()
        except OSError as error:
            raise DataError(
                f"{folder} is a damaged bundle: {printable(path.name)} cannot be read ({error.strerror}). Copy it "
                "again from its source."
            ) from error


def write_checksums(folder: Path) -> None:
    """Write the hash of each file of a bundle's folder into `SHA256SUMS`."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    lines = [f"{_hash(path)}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def changed_files(folder: Path) -> list[str] | None:
    """Files of a bundle that are not those that were saved, sorted; None in bundles of earlier versions.

    A file that is missing counts, and so does the list itself if it is damaged.
    """
    try:
        text = read_whole(folder / SUMS, _MOST_SUMS_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError:
        return [SUMS]
    stated: dict[str, str] = {}
    for line in text.splitlines():
        found = re.fullmatch(r"([0-9a-f]{64})  ([^/\\]+)", line)
        if found is None or found[2] in stated:
            return [SUMS]
        stated[found[2]] = found[1]
    if "bundle.json" not in stated or text != "".join(f"{own}  {name}\n" for name, own in stated.items()):
        return [SUMS]
    there = {path.name for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".skops", ".joblib")}
    changed = {name for name, own in stated.items() if _hash(folder / name) != own}
    return sorted(changed | (there - stated.keys()))


def require_unchanged(folder: Path) -> None:
    """Raise `DataError` for a bundle whose files are not those that were saved."""
    changed = changed_files(folder)
    if changed:
        raise DataError(
            f"{folder} is a damaged bundle: {', '.join(changed)} is not what was saved. Copy it again from its source, "
            f"or save the model again with `ball fit`. If you changed it on purpose, delete {SUMS}."
        )


def copy_files(folder: Path, names: Iterable[str], out: Path) -> None:
    """Copy files of a bundle that was read, those that are there, and nothing else that lies in its folder.

    A link may lead to a file of the user's. What it leads to is copied only where `SHA256SUMS` states its bytes.

    Raises:
        DataError: A file is a link, and nothing states its bytes.
        OSError: A file cannot be read or written.
    """
    stated = changed_files(folder) == []
    for name in names:
        if (folder / name).is_symlink() and not stated:
            raise DataError(
                f"{folder / name} is a link, and {SUMS}, which would tell what it should lead to, is missing or of "
                "other files. Put the file itself in its place."
            )
        if (folder / name).exists():
            with open_plain(folder / name) as file, (out / name).open("xb") as copy:
                shutil.copyfileobj(file, copy)


def _hash(path: Path) -> str:
    try:
        with open_plain(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
