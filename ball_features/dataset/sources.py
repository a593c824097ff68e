"""Images that lie elsewhere than in a folder of this machine: in archives, and under addresses of object stores.

A `Source` has the methods of a `Path` that reading needs, so that all that reads images reads these too. Addresses are
those of fsspec, such as s3://bucket/folder; keys and passwords are its affair, and no text of ours shows them.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

from ball_features.config.paths import disk_path, is_address
from ball_features.dataset.archives import ARCHIVES, Entry, index_archive, is_archive, read_entry, require_bounded
from ball_features.dataset.decode import MAX_BYTES
from ball_features.errors import DataError
from ball_features.files import IMAGE_SUFFIXES, StoredFile

__all__ = ["Member", "Source", "fetched", "open_file", "open_source"]

_UNKNOWN = 1  # bytes of a file whose store does not say how large it is


@dataclass(frozen=True)
class Member:
    """A file of a source, read whole when it is needed.

    Attributes:
        text: its place, to be shown.
        size: bytes.
        read_bytes: function that reads them; raises `OSError`.
    """

    text: str
    size: int
    read_bytes: Callable[[], bytes] = field(compare=False)

    def __str__(self) -> str:
        """Where it lies."""
        return self.text

    @property
    def name(self) -> str:
        """The last part of where it lies."""
        return PurePosixPath(self.text).name

    def as_posix(self) -> str:
        """Where it lies."""
        return self.text

    def stat(self) -> SimpleNamespace:
        """Kind and size, as `Path.stat` has them."""
        return SimpleNamespace(st_mode=stat.S_IFREG, st_size=self.size)

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Open its content."""
        return io.BytesIO(self.read_bytes())


@dataclass(frozen=True, eq=False)
class Source:
    """A tree of files that are read in place.

    Attributes:
        text: its place, to be shown, without keys and passwords.
        sizes: path below the top -> bytes.
        read: function from such a path to the file's bytes; raises `OSError`.
        below: folder of the tree that paths are relative to, "" for its top.
    """

    text: str
    sizes: Mapping[str, int]
    read: Callable[[str], bytes]
    below: str = ""

    def __str__(self) -> str:
        """Where it lies."""
        return f"{self.text}/{self.below}" if self.below else self.text

    def __truediv__(self, name: str) -> Member:
        """A file."""
        path = f"{self.below}/{name}" if self.below else name
        return Member(f"{self.text}/{path}", self.sizes.get(path, 0), lambda: self._read(path))

    def _read(self, path: str) -> bytes:
        if path not in self.sizes:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.read(path)

    def joinpath(self, *names: str) -> Source:
        """A folder in it."""
        return replace(self, below="/".join([*([self.below] if self.below else []), *names])) if names else self

    def resolve(self) -> Source:
        """Itself."""
        return self

    @cached_property
    def _folders(self) -> dict[str, tuple[set[str], list[str]]]:
        """Folder -> (folders in it, files in it)."""
        folders: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
        for path in self.sizes:
            *above, name = path.split("/")
            for depth, own in enumerate(above):
                folders["/".join(above[:depth])][0].add(own)
                folders.setdefault("/".join(above[: depth + 1]), (set(), []))
            folders["/".join(above)][1].append(name)
        return folders

    def walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield (folder, folders in it, files in it) from the top, as `os.walk`: folders that are removed are left."""
        folders, rest = self._folders, [""]
        while rest:
            folder = rest.pop()
            names, files = sorted(folders[folder][0]), folders[folder][1]
            yield folder or ".", names, files
            rest += [f"{folder}/{name}" if folder else name for name in reversed(names)]

    def folders_in(self, folder: str) -> list[str]:
        """Names of the folders in a folder."""
        return sorted(self._folders[folder][0])

    def count_images(self, folder: str) -> int:
        """Number of image files below a folder."""
        names = (path for path in self.sizes if path.startswith(f"{folder}/"))
        return sum(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in names)


def open_source(root: Path | str) -> Source | None:
    """Open an archive, an address, or a folder of archives; None for anything else, such as a folder of images.

    Raises:
        DataError: Nothing is there, or it cannot be read.
        MissingExtraError: fsspec, or its part for this kind of address, is not installed.
    """
    if is_address(root):
        return _open_address(root)
    root = Path(root)
    try:
        if root.is_file() and is_archive(root.name):
            return _of_archives({root: root.absolute()})
        if not root.is_dir():
            return None
        files = sorted(path for path in root.iterdir() if path.name.lower().endswith(ARCHIVES) and path.is_file())
        if not files or any(map(_is_of_a_folder, root.iterdir())):
            return None
        return _of_archives({path: root.absolute() for path in files})
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}). Ask its owner, or name another folder.") from error


def _is_of_a_folder(path: Path) -> bool:
    """Whether a folder that holds this is one of images, and archives in it are passed over."""
    if path.name.startswith("."):
        return False
    return path.is_dir() or (path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _of_archives(files: Mapping[Path, Path]) -> Source:
    """A source of archives of this machine, path -> path of the source that is shown."""
    entries: dict[str, tuple[Path, Entry]] = {}
    for path in files:
        with path.open("rb") as file:
            _add(entries, path, index_archive(file, str(path)))

    def read(name: str) -> bytes:
        path, entry = entries[name]
        with path.open("rb") as file:
            return read_entry(lambda start, end: _range(file, start, end), entry)

    return Source(str(next(iter(files.values()))), {name: entry.size for name, (_, entry) in entries.items()}, read)


def _add(entries: dict[str, tuple[Any, Entry]], path: Path | str, found: Mapping[str, Entry]) -> None:
    """Add the members of one of several archives.

    Raises:
        DataError: An image has the name of one in another archive.
    """
    for name, entry in found.items():
        file = PurePosixPath(name)
        if name in entries and file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            one, other = (PurePosixPath(str(place)).name for place in (entries[name][0], path))
            raise DataError(
                f"{one} and {other} both hold an image {name!r}, expected each name once. Unpack each archive into "
                "a folder of its own, named for its class where it has one, and give the folder above them."
            )
        entries[name] = (path, entry)


def _range(file: Any, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _open_address(root: Path | str) -> Source:
    """The images, or archives of images, under an address; as `open_source`."""
    stored = StoredFile.at(root, DataError)
    return stored.asked(lambda: _stored_images(stored))


def _stored_images(stored: StoredFile) -> Source:
    system, base = stored.system, stored.base
    if is_archive(base):
        return _stored_archives(stored, [base])
    about = system.find(base, detail=True)
    found = {path: _UNKNOWN if own.get("size") is None else int(own["size"]) for path, own in about.items()}
    archives = sorted(path for path in found if path.lower().endswith(ARCHIVES))
    if archives and not any(PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES for path in found):
        return _stored_archives(stored, archives)
    if not found:
        raise DataError(f"Found nothing at {stored.shown}, expected images or archives of images.")
    top = base.rstrip("/") + "/"
    names = {path.removeprefix(top): path for path in found}
    for name in names:
        try:
            require_bounded(name, name.split("/"))
        except ValueError as error:
            raise DataError(f"{stored.shown} cannot be read: it holds {error}. Give another folder.") from error
    sizes = {name: found[path] for name, path in names.items()}
    files = {name: replace(stored, base=path) for name, path in names.items()}
    return Source(stored.shown.rstrip("/"), sizes, lambda name: fetched(lambda: files[name].read(MAX_BYTES)))


def _stored_archives(stored: StoredFile, paths: list[str]) -> Source:
    system = stored.system
    entries: dict[str, tuple[str, Entry]] = {}
    for path in paths:
        with system.open(path, "rb") as file:
            _add(entries, path, index_archive(file, PurePosixPath(path).name))

    def read(name: str) -> bytes:
        path, entry = entries[name]
        return read_entry(lambda start, end: fetched(lambda: system.cat_file(path, start=start, end=end)), entry)

    return Source(stored.shown.rstrip("/"), {name: entry.size for name, (_, entry) in entries.items()}, read)


def open_file(path: Path | str, most: int) -> Path | Member:
    """One file to read: a local path itself, or what lies under an address.

    Args:
        path: path or address.
        most: bytes of the latter; of more, one byte more than these is read.

    Raises:
        DataError: The store refuses, or its package is not installed; that nothing is there is told when it is read.
        MissingExtraError: fsspec is not installed.
    """
    path = disk_path(path) or path
    if not is_address(path):
        return Path(path)
    stored = StoredFile.at(path, DataError)
    return Member(stored.shown, 0, lambda: fetched(lambda: stored.read(most)))


def fetched(fetch: Callable[[], bytes]) -> bytes:
    """What a store gives; its errors become an `OSError` without their text, which may hold the address."""
    try:
        return fetch()
    except Exception as error:
        raise OSError(0, f"the store failed: {type(error).__name__}") from None
