"""Names of files and folders while they are written, their final name, and what killed processes left."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
import threading
from pathlib import Path

__all__ = [
    "clear_partial",
    "is_begun_by_others",
    "is_running",
    "partial_of",
    "settle",
    "sync_folder",
    "temporary_folder",
    "this_host",
]

_TEMPORARY = ".ball-"  # what the names of folders for temporary files begin with
_LONGEST_NAME = 255  # bytes, of most file systems
_PARTIAL = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})\.(?P<pid>[1-9][0-9]{0,9})(?:-[0-9]+)?\.partial", re.DOTALL
)


def settle(partial: Path, final: Path) -> Path:
    """Give a file or a folder that is finished its final name, in an order that no power cut breaks.

    Its bytes become durable before the name, and the name before anything that follows.

    Raises:
        OSError: It cannot be renamed, or not be made durable.
    """
    for path in [*partial.rglob("*"), partial]:
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    partial.replace(final)
    sync_folder(final.parent)
    return final


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; not every system can open a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def partial_of(final: Path) -> Path:
    """Name of a file or folder while this thread writes it: .NAME.HOST.PID.partial beside the final one.

    Threads but the first have their own numbers behind that of the process.
    """
    thread = threading.current_thread()
    own = "" if thread is threading.main_thread() else f"-{threading.get_native_id()}"
    end = f".{this_host()}.{os.getpid()}{own}.partial"
    return final.with_name(f".{_short(final.name, len(end) + 1)}{end}")


def _short(name: str, more: int) -> str:
    """A name that leaves so many bytes of the longest one, with a hash of what is cut off."""
    data = os.fsencode(name)
    if len(data) + more <= _LONGEST_NAME:
        return name
    return os.fsdecode(data[:128]) + hashlib.sha256(data).hexdigest()[:16]


@functools.cache
def this_host() -> str:
    """Where the number of a process tells which one it is, in eight characters: machine, start of it and container.

    Containers may share a host's name and have numbers of their own.
    """
    own = [socket.gethostname()]
    with contextlib.suppress(OSError):
        own.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        own.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\n".join(own).encode()).hexdigest()[:8]


def is_begun_by_others(final: Path) -> bool:
    """Whether another process, or thread, writes a file or folder of this name now, as far as can be known."""
    own = _PARTIAL.fullmatch(partial_of(final).name)
    with contextlib.suppress(OSError):
        for item in final.parent.iterdir():
            found = _PARTIAL.fullmatch(item.name)
            if own and found and found["name"] == own["name"] and found[0] != own[0]:
                if found["host"] != own["host"] or is_running(int(found["pid"])):
                    return True
    return False


def clear_partial(folder: Path, name: str = "") -> None:
    """Remove what processes that are known to be gone left of `name`, or of any name; see `this_host`."""
    wanted = {name, _short(name, len(partial_of(Path("a")).name))}
    with contextlib.suppress(OSError):
        for item in folder.iterdir():
            found = _PARTIAL.fullmatch(item.name)
            if found is None or (name and _final_name(found["name"]) not in wanted):
                continue
            if found["host"] != this_host() or is_running(int(found["pid"])):
                continue
            shutil.rmtree(item, ignore_errors=True) if item.is_dir() and not item.is_symlink() else item.unlink()


def _final_name(name: str) -> str:
    """The name in the end of a file that was itself begun under the temporary name of another."""
    while found := _PARTIAL.fullmatch(name):
        name = found["name"]
    return name


def temporary_folder(place: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """Make a folder that is removed after its use, and remove those that killed processes of `ball` left.

    Args:
        place: folder to make it in; that of the system for temporary files if None.
    """
    place = place or Path(tempfile.gettempdir())
    for item in place.glob(f"{_TEMPORARY}*"):
        if found := _PARTIAL.fullmatch(item.name):
            clear_partial(place, found["name"])
    end = f".{this_host()}.{os.getpid()}.partial"
    return tempfile.TemporaryDirectory(prefix=_TEMPORARY, suffix=end, dir=place, ignore_cleanup_errors=True)


def is_running(pid: int) -> bool:
    """Whether a process of this machine runs; True where that cannot be known."""
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return not isinstance(error, ProcessLookupError)
    return True
