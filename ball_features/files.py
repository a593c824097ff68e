"""Files that commands write: atomic replacement, what killed processes left, CSV, strict JSON."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import itertools
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ball_features.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "clear_partial",
    "is_running",
    "json_text",
    "open_plain",
    "plain_cell",
    "read_csv",
    "read_json",
    "read_whole",
    "replacing",
    "safe_cell",
    "settle",
    "write_csv",
    "write_json",
    "write_text",
]

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .tif .tiff .webp .gif .jp2 .j2k .j2c .jpc .jpx .jpf .mpo .avif".split()
    + ".ppm .pgm .pbm .pnm .tga .pcx .qoi".split()
)


_MOST_JSON_BYTES = 1 << 28
_FREE_BYTES, _HOLES = 1 << 26, 16  # a file that claims so many times the bytes it has on disk is a trap


def open_plain(path: Path, most: int | None = None) -> io.BufferedReader:
    """Open a file from a stranger for reading in bytes, if it is one: no pipe, no device, not made of holes.

    Args:
        path: the file.
        most: largest number of bytes; None for no bound.

    Raises:
        OSError: The file cannot be read, or is refused.
    """
    # Without O_NONBLOCK a pipe would wait for somebody who writes to it.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    about = os.fstat(handle)
    on_disk = getattr(about, "st_blocks", about.st_size) * 512
    why = ""
    if not stat.S_ISREG(about.st_mode):
        why = "it is a folder" if stat.S_ISDIR(about.st_mode) else "it is a pipe or a device, and no file"
    elif most is not None and about.st_size > most:
        why = f"it has {about.st_size / 1e6:.0f} MB, more than {most / 1e6:.0f}"
    elif on_disk and about.st_size > _HOLES * on_disk + _FREE_BYTES:  # some file systems tell nothing
        why = f"it claims {about.st_size / 1e9:.1f} GB and has {on_disk / 1e6:.1f} MB on disk"
    if why:
        os.close(handle)
        raise OSError(errno.EINVAL, why)
    return io.BufferedReader(io.FileIO(handle))


def read_whole(path: Path, most: int | None = None) -> bytes:
    """The bytes of a file from a stranger; see `open_plain`."""
    with open_plain(path, most) as file:
        return file.read()


def read_json(path: Path) -> Any:
    """The values in a JSON file from a stranger, of at most 268 MB.

    Raises:
        OSError: The file cannot be read; see `open_plain`.
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(read_whole(path, _MOST_JSON_BYTES).decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@contextlib.contextmanager
def replacing(path: Path | str, setting: str = "output file", *, sweep: bool = True) -> Iterator[Path]:
    """Write a file under a temporary name beside `path`, sync it, and rename it when the block ends without an error.

    A crash, a full disk or an interrupt leaves the older file of that name as it was. A device or a pipe, such as
    /dev/stdout, is written directly.

    Args:
        path: the file to write; its folder is made.
        setting: name of the setting that holds the path, for the message.
        sweep: remove what killed processes left of this name; False where many files go to one folder.

    Yields:
        Name to write to.

    Raises:
        DataError: The file cannot be written.
    """
    path = Path(path)
    partial: Path | None = None
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
        target = path.resolve() if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        if sweep:
            clear_partial(target.parent, target.name)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        yield partial
        if target.is_file():
            shutil.copymode(target, partial)
        settle(partial, target)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}). Give another {setting}.") from error
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def settle(partial: Path, final: Path) -> Path:
    """Give a file or a folder that is finished its final name, in an order that no power cut breaks.

    Its bytes become durable before the name, and the name before anything that follows.

    Raises:
        OSError: It cannot be renamed, or not be made durable.
    """
    for path in [*partial.rglob("*"), partial]:
        if path.is_dir():
            _sync(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    partial.replace(final)
    _sync(final.parent)
    return final


def _sync(folder: Path) -> None:
    """Make the names in a folder durable; not every system can open a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def clear_partial(folder: Path, name: str = "") -> None:
    """Remove what killed processes left of `name`, or of any name: files or folders called .NAME.PID.partial."""
    own = re.escape(name) if name else ".+"
    with contextlib.suppress(OSError):
        for item in folder.iterdir():
            found = re.fullmatch(rf"\.{own}\.(\d+)\.partial", item.name)
            if found is None or is_running(int(found[1])):
                continue
            shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink()


def is_running(pid: int) -> bool:
    """Whether a process of this machine runs; True where that cannot be known."""
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return not isinstance(error, ProcessLookupError)
    return True


# A spreadsheet runs a cell that begins so as a formula (OWASP, CSV injection); further apostrophes keep it reversible.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")
_STYLES = (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)")


def safe_cell(value: Any) -> Any:
    """A cell for a CSV file: text that a spreadsheet would run as a formula gets an apostrophe before it.

    Numbers are left as they are, also those written as text.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return "'" + value
    return value


def plain_cell(text: str) -> str:
    """The text that `safe_cell` was given."""
    return text[1:] if _ESCAPED.match(text) else text


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table with full precision by `replacing`; text cells pass through `safe_cell`."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        usual, quoting = (csv.writer(file, lineterminator="\n", quoting=style) for style in _STYLES)
        for row in itertools.chain([header], rows):
            cells = [safe_cell(value) for value in row]
            # Python before 3.13 leaves a carriage return unquoted, and then refuses to read it.
            returned = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            (quoting if returned else usual).writerow(cells)


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a table that `write_csv` wrote: name of the column -> text."""
    with io.TextIOWrapper(open_plain(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = [plain_cell(name) for name in next(reader, [])]
        for cells in reader:
            if cells:
                yield dict(zip(header, map(plain_cell, cells), strict=False))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text by `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON by `replacing`; a value that is not a finite number becomes null."""
    write_text(path, json_text(values) + "\n")


def json_text(values: Any) -> str:
    """Values as JSON; NaN and infinities become null, paths and other objects their text."""
    return json.dumps(_plain(values), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Values that JSON knows; a record gives its `to_dict`."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
