"""Files and folders that appear whole under their final name, and only in the place that was checked.

A file is written beside its name, synced and renamed. The name beside it is made anew, never followed where it leads,
and libraries are given the open file itself where the system can name it: what somebody else does to names in the
folder meanwhile leads no write elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ball_features.errors import DataError
from ball_features.files.partial import clear_partial, partial_of, sync_folder

__all__ = [
    "Partial",
    "expect",
    "forget",
    "free_name",
    "is_changed",
    "is_expected",
    "replacing",
    "where_checked",
    "whole_file",
]


@dataclass(frozen=True)
class _Place:
    """What is found at the name of an output.

    Attributes:
        target: the file that is written: in the real folder, and where a link leads.
        stamp: identity of the file there, with the time of its last change; None if there is none.
        mode: type and permissions of that file; 0 if there is none.
    """

    target: Path
    stamp: tuple[int, ...] | None
    mode: int

    @classmethod
    def of(cls, path: Path) -> _Place:
        """Look at a name; raises `OSError` if it cannot be looked up."""
        folder = Path(os.path.realpath(path.parent))
        target = Path(os.path.realpath(path)) if path.is_symlink() else folder / path.name
        try:
            about = os.lstat(target)
        except FileNotFoundError:
            return cls(target, None, 0)
        stamp = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
        return cls(target, stamp, about.st_mode)

    @property
    def special(self) -> bool:
        """Whether a device or a pipe is there, which is written directly."""
        return stat.S_ISFIFO(self.mode) or stat.S_ISCHR(self.mode)


@dataclass(frozen=True)
class _Expected:
    """An output that was checked before the work.

    Attributes:
        place: what was found.
        again: the check; it is made again where something else is found at the end.
    """

    place: _Place
    again: Callable[[], None]


_EXPECTED: dict[str, _Expected] = {}


def expect(path: Path, again: Callable[[], None]) -> None:
    """Remember what is at the name of an output that was just checked; `replacing` compares once.

    Args:
        path: the output.
        again: the check, which raises `DataError`.

    Raises:
        OSError: The name cannot be looked up.
    """
    _EXPECTED[_key(path)] = _Expected(_Place.of(path), again)


def _key(path: Path) -> str:
    return os.path.normpath(path.absolute())


def is_expected(path: Path) -> bool:
    """Whether an output was checked and is not written yet."""
    return _key(path) in _EXPECTED


def forget(path: Path) -> None:
    """Forget what is expected at a name, as where a further check of it has failed."""
    _EXPECTED.pop(_key(path), None)


def is_changed(path: Path) -> bool:
    """Whether something that must stay has come to the name of an output since it was checked."""
    expected = _EXPECTED.get(_key(path))
    try:
        if expected is not None:
            _require_same(path, expected.place, expected)
    except (DataError, OSError):
        return True
    return False


@contextlib.contextmanager
def replacing(path: Path | str, *, sweep: bool = True) -> Iterator[Path]:
    """Write a file under a temporary name beside `path`, sync it, and rename it when the block ends without an error.

    A crash, a full disk or an interrupt leaves the older file of that name as it was. A device or a pipe, such as
    /dev/stdout, is written directly. A link is followed where it led when the output was checked. Where another file or
    link has come to the name since, it stays, and what was written is kept under a free name.

    Args:
        path: the file to write; its folder is made.
        sweep: remove what killed processes left of this name; False where many files go to one folder.

    Yields:
        Name to write to, of an empty file.

    Raises:
        DataError: The file cannot be written, or something else has come to its name.
    """
    try:
        with where_checked(Path(path), sweep=sweep) as partial:
            yield partial
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}). Give another output file.") from error


@contextlib.contextmanager
def where_checked(path: Path, *, sweep: bool = True) -> Iterator[Path]:
    """As `replacing`, for writers with messages of their own.

    Raises:
        DataError: Something else has come to the name.
        OSError: The file cannot be written.
    """
    expected = _EXPECTED.pop(_key(path), None)
    place = expected.place if expected else _Place.of(path)
    if place.special:
        _require_same(path, place, expected)
        yield path
        return
    if place.target.parent != Path(os.path.realpath(place.target.parent)):
        _require_same(path, place, expected)  # before anything is written to where the folder leads by now

    def check(partial: Partial) -> bool:
        try:
            _require_same(path, place, expected)
        except DataError as error:
            kept = partial.keep(place.target)
            raise DataError(f"{error} What was to be written is in {kept}.") from error
        return expected is not None and place.stamp is None

    with whole_file(place.target, sweep=sweep, check=check) as partial:
        yield partial.path


def free_name(final: Path) -> Path:
    """A name beside that of an output which nothing has."""
    names = (final.with_name(f"{final.stem}-{number}{final.suffix}") for number in range(2, 10_000))
    return next(name for name in names if not os.path.lexists(name))


def _require_same(path: Path, place: _Place, expected: _Expected | None) -> None:
    """Raise `DataError` where a name leads elsewhere than it did, or to what must not be replaced."""
    now = _Place.of(path)
    if now == place:
        return
    changed = f"{path} was changed by another program while the command ran, and is left as it is"
    if now.target != place.target:
        raise DataError(f"{changed}: it leads to {now.target}.")
    if now.mode and not stat.S_ISREG(now.mode):
        raise DataError(f"{changed}: it is no file.")
    if expected is not None and now.stamp is not None:
        try:
            expected.again()
        except DataError as error:
            raise DataError(f"{changed}. {error}") from error
        raise DataError(f"{changed}: it holds another result by now.")


@dataclass(frozen=True)
class Partial:
    """A file that is being written.

    Attributes:
        path: name to write to.
        name: its name beside the final one.
        handle: descriptor of the file.
    """

    path: Path
    name: Path
    handle: int

    def keep(self, final: Path) -> Path:
        """Give the file a free name in place of its final one, or tell where its folder was moved with it."""
        os.fsync(self.handle)
        if not self.is_own() and self.path != self.name:
            return self.path.readlink()
        free = free_name(final)
        self.name.replace(free)
        return free

    def is_own(self) -> bool:
        """Whether the name beside still belongs to the file."""
        try:
            return os.path.samestat(os.lstat(self.name), os.fstat(self.handle))
        except OSError:
            return False


@contextlib.contextmanager
def whole_file(
    target: Path, *, sweep: bool = True, check: Callable[[Partial], bool] = lambda partial: False
) -> Iterator[Partial]:
    """Write a file beside `target` and rename it when the block ends without an error; a link there is replaced.

    Args:
        target: the file; its folder is made.
        sweep: remove what killed processes left of this name.
        check: called when everything is on the disk, before the rename; whether nothing may be there.

    Raises:
        OSError: It cannot be written, or another program moved it meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if sweep:
        clear_partial(target.parent, target.name)
    name = partial_of(target)
    with contextlib.suppress(FileNotFoundError):
        name.unlink()
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(name, flags, 0o666)
    partial = Partial(_by_descriptor(handle, name), name, handle)
    try:
        yield partial
        if target.is_file():
            shutil.copymode(target, partial.path)
        os.fsync(handle)
        free = check(partial)
        if not partial.is_own():
            raise OSError("another program moved it while it was written")
        if os.name == "nt":  # no open file is renamed there
            os.close(handle)
            handle = -1
        while not _renamed(name, target, free):
            check(partial)
        sync_folder(target.parent)
    finally:
        own = handle < 0 or partial.is_own()
        if handle >= 0:
            os.close(handle)
        with contextlib.suppress(OSError):
            if own:
                name.unlink(missing_ok=True)


def _renamed(name: Path, target: Path, free: bool) -> bool:
    """Give a file its name; a name that must be free is looked at and taken in one step. False if it is not free."""
    if not free:
        name.replace(target)
        return True
    try:
        if os.name == "nt":
            name.rename(target)
        else:
            target.hardlink_to(name)
            name.unlink()
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        name.replace(target)
    return True


def _by_descriptor(handle: int, name: Path) -> Path:
    """A name of an open file that nobody can lead elsewhere, where the system has one."""
    own = Path(f"/proc/self/fd/{handle}")
    try:
        return own if os.path.samestat(own.stat(), os.fstat(handle)) else name
    except OSError:
        return name
