"""Caches under addresses of fsspec, such as s3://bucket/all.h5: copies on this machine, which HDF5 needs to write.

A copy lies in the user's cache folder and is used again as long as the store has the same version (size, date, tag).
What is written goes to a working copy, which outlives an interrupted command, and is stored whole: under a temporary
name, then moved. Keys and passwords are fsspec's affair; no text of ours and no file name shows them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ball_features.config.paths import is_address, shown_address, whole_address
from ball_features.errors import CacheError, require_extra
from ball_features.files import whole_file

__all__ = ["local_copy", "written"]

# What a store says of a file, by the names of different stores.
_MARKS = ("size", "ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime", "created")


def local_copy(place: Path | str) -> Path:
    """The path of a file to read: a local one itself, or the copy of what lies under an address, fetched if need be.

    Raises:
        CacheError: Nothing lies there, or the store refuses.
        MissingExtraError: fsspec, or its part for this kind of address, is not installed.
    """
    return _Remote.at(place).fetch() if is_address(place) else Path(place)


@contextlib.contextmanager
def written(place: Path | str, *, anew: bool = False) -> Iterator[Path]:
    """A file of this machine to write: a local path itself, or the working copy of what lies under an address.

    The working copy holds what the address holds, if anything. It is stored there when the block ends without an error,
    unless the block has not changed it. After an error it stays, and the next call goes on with it, as long as the
    address still holds what it held.

    Args:
        place: path or address.
        anew: begin with nothing; where the address holds a file, that is an error.

    Raises:
        CacheError: The store refuses, or another program has changed the file meanwhile.
        MissingExtraError: fsspec, or its part for this kind of address, is not installed.
    """
    if not is_address(place):
        yield Path(place)
        return
    remote = _Remote.at(place)
    before = remote.version()
    if anew and before:
        raise CacheError(f"{remote.shown} exists. Give another output file, or remove it first.")
    remote.require_writable()
    if anew:
        remote.drop()
    work = remote.begin(before)
    fetched = _state(work)
    yield work
    if _state(work) != fetched or remote.unsaved:
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
class _Remote:
    """A file under an address.

    Attributes:
        system: file system of fsspec.
        base: path in it.
        shown: address without keys.
        folder: folder of its copies on this machine.
    """

    system: Any
    base: str
    shown: str
    folder: Path

    @classmethod
    def at(cls, place: Path | str) -> _Remote:
        """Look up a file system."""
        shown = shown_address(place)
        require_extra("fsspec", "remote", f"{shown}")
        import fsspec

        try:
            system, base = fsspec.core.url_to_fs(whole_address(place))
        except ImportError as error:
            raise CacheError(
                f"{shown} needs a package of fsspec for {shown.partition('://')[0]} addresses. Install it, such as "
                "s3fs for s3 or gcsfs for gs."
            ) from error
        except Exception as error:  # stores raise errors of many kinds, whose texts may hold the address
            raise _refused(shown, error) from None
        top = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ball" / "remote"
        return cls(system, base, shown, top / hashlib.sha256(shown.encode()).hexdigest()[:24])

    @property
    def copy(self) -> Path:
        """The copy that is read."""
        return self.folder / "read" / PurePosixPath(self.base).name

    @property
    def work(self) -> Path:
        """The copy that is written."""
        return self.folder / "work" / PurePosixPath(self.base).name

    @property
    def unsaved(self) -> bool:
        """Whether the working copy holds what an interrupted command has not stored."""
        return _read_note(self.work).unsaved and self.work.exists()

    def version(self) -> str:
        """What tells one version of the file from another; "" where there is none."""

        def look() -> str:
            self.system.invalidate_cache()
            try:
                about = self.system.info(self.base)
            except FileNotFoundError:
                return ""
            if about.get("type") == "directory":
                raise CacheError(f"Got the folder {self.shown}, expected the name of a file.")
            return " ".join(f"{name}={about[name]}" for name in _MARKS if about.get(name) is not None)

        return self._asked(look)

    def fetch(self) -> Path:
        """The copy that is read, of the version that the store has now."""
        version = self.version()
        if not version:
            raise CacheError(f"No cache at {self.shown}. Make one with `ball extract`.")
        if _read_note(self.copy).version != version or not self.copy.exists():
            _make(self.copy.parent)
            with whole_file(self.copy) as partial:
                self._asked(lambda: self.system.get_file(self.base, str(partial.path)))
            _write_note(self.copy, _Note(version))
        return self.copy

    def require_writable(self) -> None:
        """Raise `CacheError` where the store takes no new file, before the work."""
        probe = f"{self.base}.{secrets.token_hex(4)}.partial"

        def attempt() -> None:
            self._make_folder()
            self.system.pipe_file(probe, b"ball")
            self.system.rm_file(probe)

        self._asked(attempt)

    def begin(self, version: str) -> Path:
        """The working copy of a version: what an interrupted command left of it, or a new one."""
        work = self.work
        if _read_note(work).version != version:
            _make(work.parent)
            work.unlink(missing_ok=True)
            _write_note(work, _Note(version))
        if version and not work.exists():
            shutil.copyfile(self.fetch(), work)
        elif work.exists():
            _write_note(work, _Note(version, unsaved=True))
        return work

    def store(self, before: str) -> None:
        """Store the working copy under the address, which must still hold the version `before`."""
        partial = f"{self.base}.{secrets.token_hex(4)}.partial"
        if self.version() != before:
            raise CacheError(
                f"{self.shown} was changed by another program meanwhile, and stays as it is. What was computed is in "
                f"{self.work}: copy it elsewhere to keep it, or run the command again to begin with what is there now."
            )

        def put() -> None:
            self.system.put_file(str(self.work), partial)
            try:
                self.system.mv(partial, self.base)
            except BaseException:
                with contextlib.suppress(Exception):
                    self.system.rm_file(partial)
                raise

        self._asked(put, f" What was computed is in {self.work}; the same command goes on with it.")
        _make(self.copy.parent)
        self.work.replace(self.copy)
        _write_note(self.copy, _Note(self.version()))
        _note(self.work).unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove the working copy, which holds nothing new."""
        self.work.unlink(missing_ok=True)
        _note(self.work).unlink(missing_ok=True)

    def _make_folder(self) -> None:
        """Make the folder of a file in file systems that have folders."""
        kind = self.system.protocol
        if "file" in ([kind] if isinstance(kind, str) else kind):
            self.system.makedirs(str(PurePosixPath(self.base).parent), exist_ok=True)

    def _asked(self, ask: Callable[[], Any], more: str = "") -> Any:
        try:
            return ask()
        except CacheError:
            raise
        except Exception as error:  # stores raise errors of many kinds, whose texts may hold the address
            raise _refused(self.shown, error, more) from None


def _refused(shown: str, error: Exception, more: str = "") -> CacheError:
    return CacheError(f"{shown} cannot be used ({type(error).__name__}). Check the address and your access.{more}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(
            f"{folder} cannot be made ({error.strerror}). It keeps copies of caches under addresses; XDG_CACHE_HOME "
            "names another place."
        ) from error


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
