"""Caches under addresses of fsspec, such as s3://bucket/all.h5: copies on this machine, which HDF5 needs to write.

A copy lies in the user's cache folder and is used again as long as the store has the same version (size, date, tag).
What is written goes to a working copy, which outlives an interrupted command, and is stored whole: under a temporary
name, then moved. Keys and passwords are fsspec's affair; no text of ours and no file name shows them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ball_features.cache.lock import lock_cache
from ball_features.config.paths import called, disk_path, is_address
from ball_features.errors import CacheError
from ball_features.files import StoredFile, copies_folder, is_certain, make_folder

__all__ = ["forget", "local_copy", "written"]


def local_copy(path: Path | str) -> Path:
    """The path of a file to read: a local one itself, or the copy of what lies under an address, fetched if need be.

    Raises:
        CacheError: Nothing lies there, or the store refuses.
        MissingExtraError: fsspec, or its part for this kind of address, is not installed.
    """
    path = disk_path(path) or path
    return _Remote.at(path, CacheError).fetch() if is_address(path) else Path(path)


def forget(path: Path | str) -> None:
    """Remove the copy to read of what lies under an address, which is fetched again when it is needed."""
    if not is_address(path) or disk_path(path):
        return
    remote = _Remote.at(path, CacheError)
    for file in (remote.copy, _note(remote.copy)):
        file.unlink(missing_ok=True)
    for folder in (remote.copy.parent, remote.folder):
        with contextlib.suppress(OSError):  # a working copy is there
            folder.rmdir()


@contextlib.contextmanager
def written(path: Path | str, *, anew: bool = False, log: Callable[[str], None] = lambda line: None) -> Iterator[Path]:
    """A file of this machine to write: a local path itself, or the working copy of what lies under an address.

    The working copy holds what the address holds, if anything. It is stored there when the block ends without an error,
    unless the block has not changed it. After an error it stays, and the next call goes on with it, as long as the
    address still holds what it held; where it does not, the copy is kept under another name.

    Args:
        path: path or address.
        anew: begin with nothing; where the address holds a file, or an interrupted command has left a working copy,
            that is an error. What is written can be made again, and is not kept where it cannot be stored.
        log: takes a line where a copy is kept under another name.

    Raises:
        CacheBusyError: Another process writes the working copy that would be put aside.
        CacheError: The store refuses, or another program has changed the file meanwhile.
        MissingExtraError: fsspec, or its part for this kind of address, is not installed.
    """
    path = disk_path(path) or path
    if not is_address(path):
        yield Path(path)
        return
    remote = _Remote.at(path, CacheError)
    with _alone(remote):
        yield from _written(remote, anew, log)


@contextlib.contextmanager
def _alone(remote: _Remote) -> Iterator[None]:
    """Hold the lock of an address until its file is stored: one process of this machine at a time writes there."""
    place = remote.folder / "store" / remote.name
    with contextlib.ExitStack() as held:
        with called(place, remote.shown):
            held.enter_context(lock_cache(place))
        yield


def _written(remote: _Remote, anew: bool, log: Callable[[str], None]) -> Iterator[Path]:
    before = remote.version()
    if anew and before:
        raise CacheError(f"{remote.shown} exists. Give another output file, or remove it first.")
    if anew and remote.work.exists():
        raise CacheError(
            f"{remote.work} holds what an interrupted command has computed for {remote.shown}, and is not replaced. "
            "Run the `ball extract` that was interrupted again, which goes on with it; or remove that file; or give "
            "another output file."
        )
    remote.require_writable()
    work = remote.begin(before, log)
    fetched = _state(work)
    yield work
    if anew:
        try:
            remote.store(before, kept=False)
        except BaseException:
            remote.drop()
            raise
    elif _state(work) != fetched or remote.unsaved:
        remote.store(before)
    else:
        remote.drop()


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None if there is none."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None


@dataclass(frozen=True)
class _Note:
    """What is known of a copy.

    Attributes:
        version: version of the file that it began as, "" for none; None where nothing is known.
        unsaved: whether it holds what an interrupted command has not stored.
    """

    version: str | None
    unsaved: bool = False


@dataclass(frozen=True)
class _Remote(StoredFile):
    """A cache under an address, and its copies on this machine."""

    @property
    def folder(self) -> Path:
        """Folder of its copies."""
        return copies_folder() / self.token[:24]

    @property
    def copy(self) -> Path:
        """The copy that is read."""
        return self.folder / "read" / self.name

    @property
    def work(self) -> Path:
        """The copy that is written."""
        return self.folder / "work" / self.name

    @property
    def unsaved(self) -> bool:
        """Whether the working copy holds what an interrupted command has not stored."""
        return _read_note(self.work).unsaved and self.work.exists()

    def fetch(self) -> Path:
        """The copy that is read, of the version that the store has now."""
        version = self.version()
        if not version:
            raise CacheError(f"No cache at {self.shown}. Make one with `ball extract`.")
        if _read_note(self.copy).version != version or not is_certain(version) or not self.copy.exists():
            make_folder(self.copy.parent, CacheError)
            self.get(self.copy)
            _write_note(self.copy, _Note(version))
        return self.copy

    def begin(self, version: str, log: Callable[[str], None]) -> Path:
        """The working copy of a version: what an interrupted command left of it, or a new one."""
        work = self.work
        if _read_note(work).version != version:
            make_folder(work.parent, CacheError)
            if work.exists():
                self._put_aside(log)
            _write_note(work, _Note(version))
        if version and not work.exists():
            shutil.copyfile(self.fetch(), work)
        elif work.exists():
            _write_note(work, _Note(version, unsaved=True))
        return work

    def _put_aside(self, log: Callable[[str], None]) -> None:
        """Keep the working copy of another version, which may hold rows that are nowhere else, under a free name."""
        with lock_cache(self.work):
            names = (self.work.with_name(f"{self.name}.{number}") for number in itertools.count(1))
            aside = next(name for name in names if not name.exists())
            self.work.rename(aside)
        log(
            f"{self.shown} has changed since an interrupted command began. What that one computed is kept in {aside}: "
            "remove it if it is not needed."
        )

    def store(self, before: str, *, kept: bool = True) -> None:
        """Store the working copy under the address, which must still hold the version `before`.

        Args:
            before: version.
            kept: whether the caller keeps the working copy where this fails.
        """
        where = f" What was computed is in {self.work}: copy it elsewhere to keep it, or run the command again to "
        changed = f"{where}begin with what is there now." if kept else " Give another output file."
        again = f" What was computed is in {self.work}; the same command goes on with it." if kept else ""
        self.put(self.work, before, refused=again, changed=changed)
        make_folder(self.copy.parent, CacheError)
        self.work.replace(self.copy)
        _write_note(self.copy, _Note(self.version()))
        _note(self.work).unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove the working copy, which holds nothing new."""
        self.work.unlink(missing_ok=True)
        _note(self.work).unlink(missing_ok=True)


def _note(path: Path) -> Path:
    """The file that says of which version a copy is."""
    return path.with_name(f"{path.name}.json")


def _read_note(path: Path) -> _Note:
    try:
        values = json.loads(_note(path).read_text(encoding="utf-8"))
        return _Note(str(values["version"]), bool(values["unsaved"]))
    except (OSError, ValueError, TypeError, KeyError):
        return _Note(None)


def _write_note(path: Path, note: _Note) -> None:
    _note(path).write_text(json.dumps(asdict(note)), encoding="utf-8")
