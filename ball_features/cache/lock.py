"""The lock of a cache's writer, which says who holds it.

Where the file system has no locks (some network and cluster file systems), a file that only one process can make stands
for the lock. It tells host and process, so that one whose process is gone is known as such.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ball_features.config.sizes import whole_number
from ball_features.dataset.listing import printable
from ball_features.errors import CacheBusyError, CacheError
from ball_features.files import is_running, open_regular, this_host

__all__ = ["lock_cache"]

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_LONGEST_NOTE = 200
_YOUNG_S = 10.0  # a marker that is still empty is being written


@contextlib.contextmanager
def lock_cache(path: Path) -> Iterator[None]:
    """Hold the lock of a cache's writer; a killed process releases it.

    Raises:
        CacheBusyError: Another process holds the lock; the message tells its host and number.
        CacheError: The folder cannot be written to.
    """
    file = Path(f"{path}.lock")
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _require_lock_file(path, file)
            os.close(_opened(file))  # if no file can be made, the lock would seem to be held
            marker = Path(f"{path}.writer")
            if _has_locks(file):
                locked = _locked(path, file)
            else:
                _require_lock_file(path, marker)
                locked = _marked(path, marker)
            held.enter_context(locked)
        except OSError as error:
            reason = error.strerror or error
            raise CacheError(f"{path} cannot be written ({reason}). Give another output file.") from error
        yield


def _require_lock_file(path: Path, file: Path) -> None:
    """Raise `CacheError` where a file that is not a lock has the name of one, or a link to one."""
    is_lock = not file.is_symlink() and (file.is_file() or not file.exists())
    if not is_lock or not _is_note(_read(file)):
        raise CacheError(
            f"{file} is no lock of {path}, and would be overwritten. Move it, or give another output file."
        )


def _has_locks(file: Path) -> bool:
    """Whether the file system of a file has locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    with open_regular(file) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _NO_LOCKS
    return True


@contextlib.contextmanager
def _locked(path: Path, file: Path) -> Iterator[None]:
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _busy(path, _read(file)) from error
    try:
        with contextlib.suppress(OSError):  # a note for people; on Windows the lock forbids it
            _write(file, _own())
        yield
    finally:
        with contextlib.suppress(OSError):
            _write(file, "")
        lock.release()


@contextlib.contextmanager
def _marked(path: Path, marker: Path) -> Iterator[None]:
    for _ in range(2):
        try:
            handle = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            break
        except FileExistsError:
            if not _is_stale(marker):
                raise _busy(path, _read(marker), marker) from None
            marker.unlink(missing_ok=True)
    else:
        raise _busy(path, _read(marker), marker)
    with os.fdopen(handle, "w") as opened:
        opened.write(_own())
    try:
        yield
    finally:
        if _read(marker) == _own():
            marker.unlink(missing_ok=True)


def _opened(file: Path) -> int:
    """Descriptor of a lock file, which is made if it is not there; a link is not followed, a pipe not waited for."""
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(file, os.O_RDWR | os.O_CREAT | more, 0o644)


def _write(file: Path, text: str) -> None:
    """Replace the text of a lock file, if it is one by now."""
    with os.fdopen(_opened(file), "rb+") as opened:
        if _is_note(opened.read(_LONGEST_NOTE).decode(errors="replace")):
            opened.seek(0)
            opened.truncate()
            opened.write(text.encode())


def _is_note(text: str) -> bool:
    return not text.strip() or text.startswith("process ")


def _own() -> str:
    return f"process {os.getpid()} on {_host()}"


def _host() -> str:
    return f"{socket.gethostname()}, {this_host()}"  # a name for people, and what tells containers apart


def _read(file: Path) -> str:
    try:
        with open_regular(file) as opened:
            return opened.read(_LONGEST_NOTE).decode(errors="replace").strip()
    except OSError:
        return ""


def _is_stale(marker: Path) -> bool:
    """Whether the process that made a marker is known to be gone."""
    words = _read(marker).split(" on ")
    if len(words) != 2:
        return time.time() - marker.stat().st_mtime > _YOUNG_S
    number = whole_number(words[0].removeprefix("process "))
    return words[1] == _host() and number is not None and not is_running(number)


def _busy(path: Path, holder: str, marker: Path | None = None) -> CacheBusyError:
    who = f" ({printable(holder)})" if holder.startswith("process ") else ""
    gone = f" If that process is gone, delete {marker}." if marker is not None else ""
    return CacheBusyError(
        f"{path} is being written by another process{who}. Wait for it to end, or give another output file.{gone}"
    )
