"""A file below HDF5 whose faults are raised here.

HDF5 (2.0) ends its process, without a message, where a write fails while it creates or closes a data set. It therefore
writes through `RawFile`, which never fails towards HDF5: the first fault is kept, what follows it goes nowhere, and the
fault is raised between two calls of HDF5, or once the file is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
from h5py._objects import phil

__all__ = ["RawFile", "open_for_writing"]

_ALIGNED_FROM, _PAGE = 1 << 16, 4096  # a large array begins at a page, as its memory map does
_KEPT_BYTES = 1 << 24  # of what follows a fault, which HDF5 may read again before it is told to end


class RawFile(io.RawIOBase):
    """A file that HDF5 reads and writes by its driver for Python's files."""

    def __init__(self, path: Path, mode: str) -> None:
        """Open a file; mode "w" begins a new one, "r+" goes on with one, and follows no link.

        Raises:
            OSError: The file cannot be opened.
        """
        self._path = path
        follows = 0 if mode == "w" else getattr(os, "O_NOFOLLOW", 0)
        opener = functools.partial(_open, more=follows)
        self._file: Any = open(path, "wb+" if mode == "w" else "rb+", buffering=0, opener=opener)
        self._handle: int = self._file.fileno()
        self._place = 0
        self._kept: list[tuple[int, bytes]] = []
        self._fault: BaseException | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the file."""
        self._place = offset if whence == io.SEEK_SET else self._size() + offset
        return self._place

    def tell(self) -> int:
        """Return the place in the file."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read bytes; those beyond the end, and those that cannot be read, are zero."""
        view = memoryview(buffer).cast("B")
        start, count, done = self._place, len(view), 0
        with self._keeping_faults():
            self._file.seek(start)
            while done < count and (more := self._file.readinto(view[done:])):
                done += more
        view[done:] = bytes(count - done)
        for place, data in self._kept:
            first, last = max(place, start), min(place + len(data), start + count)
            if first < last:
                view[first - start : last - start] = data[first - place : last - place]
        self._place = start + count
        return count

    def write(self, data: Any) -> int:
        """Write bytes; after a fault they are kept in memory only."""
        view = memoryview(data).cast("B")
        if self._fault is None:
            with self._keeping_faults():
                self._file.seek(self._place)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:])
        if self._fault is not None and sum(len(part) for _, part in self._kept) < _KEPT_BYTES:
            self._kept.append((self._place, bytes(view)))
        self._place += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file, which HDF5 gives."""
        size = self._place if size is None else size
        if self._fault is None:
            with self._keeping_faults():
                self._file.truncate(size)
        return size

    def flush(self) -> None:
        """Do nothing: nothing is buffered here."""

    def sync(self) -> None:
        """Bring what was written to the disk.

        Raises:
            OSError: Something was not written.
        """
        self.check()
        os.fsync(self._file.fileno())

    def check(self) -> None:
        """Raise the first fault, if there was one: an `OSError`, or Ctrl-C."""
        if self._fault is not None:
            raise self._fault

    def require_in_place(self) -> None:
        """Raise `OSError` where the file no longer has its name, so that what is written would be lost."""
        try:
            there = os.path.samestat(os.lstat(self._path), os.fstat(self._handle))
        except FileNotFoundError:
            there = False
        except OSError:  # a share that drops out for a moment
            return
        if not there:
            raise OSError("another program moved, removed or replaced it meanwhile")

    def let_go(self) -> None:
        """Close the file itself; HDF5 may still call."""
        with self._keeping_faults():
            self._file.close()

    @contextlib.contextmanager
    def interrupts_kept(self) -> Iterator[None]:
        """Let Ctrl-C be a fault too: as an exception within a call of HDF5 it would look to it like a failed write."""
        before = signal.getsignal(signal.SIGINT)
        if not callable(before) or threading.current_thread() is not threading.main_thread():
            yield
            return
        raises: Any = before

        def keep(number: int, frame: object) -> None:
            with self._keeping_faults():
                raises(number, frame)

        signal.signal(signal.SIGINT, keep)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def _keeping_faults(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # Without the frames, which hold on to memory of HDF5 until the process ends.
            self._fault = self._fault or error.with_traceback(None)

    def _size(self) -> int:
        size = 0
        with self._keeping_faults():
            size = os.fstat(self._file.fileno()).st_size
        return max([size, *(place + len(data) for place, data in self._kept)])


def _open(path: str, flags: int, more: int) -> int:
    return os.open(path, flags | more, 0o666)


@contextlib.contextmanager
def open_for_writing(path: Path, mode: str) -> Iterator[tuple[Any, RawFile]]:
    """Open an HDF5 file, mode "w" or "r+"; the fault of a disk is raised in place of what HDF5 makes of it.

    Yields:
        The HDF5 file, and the file below it: call its `check` after each step.

    Raises:
        OSError: The file cannot be opened, read or written, or is no HDF5 file.
    """
    raw = RawFile(path, mode)
    try:
        with raw.interrupts_kept(), _over(raw, mode) as file:
            _OPEN[raw] = file
            yield file, raw
    except Exception:  # HDF5's own, which a fault may have caused
        raw.check()
        raise
    finally:
        _OPEN.pop(raw, None)
        raw.let_go()
    raw.check()


def _over(raw: RawFile, mode: str) -> Any:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    try:
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
        access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
        access.set_alignment(_ALIGNED_FROM, _PAGE)
        access.set_fileobj_driver(h5py.h5fd.fileobj_driver, raw)
        name = f"{raw!r}".encode()
        if mode == "w":
            return h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fapl=access))
        return h5py.File(h5py.h5f.open(name, h5py.h5f.ACC_RDWR, fapl=access))
    finally:
        access.close()  # what of it lives until the process ends would call Python then, which has gone


_OPEN: dict[RawFile, Any] = {}


@atexit.register
def _close_all() -> None:
    """Close what a thread has left open, and let no thread into HDF5 any more: it would call Python after its end."""
    phil.acquire()  # for good: a thread that Python ends within HDF5 would hold its locks for ever
    for file in list(_OPEN.values()):
        file.close()
