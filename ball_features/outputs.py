"""Outputs of commands, checked before the work: writable, and never in the place of what `ball` has not written."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ball_features.config.paths import is_address, shown_address
from ball_features.errors import DataError
from ball_features.files import IMAGE_SUFFIXES, expect

__all__ = [
    "OUTPUTS",
    "Output",
    "require_folder",
    "require_own_files",
    "require_writable",
]


@dataclass(frozen=True)
class Output:
    """A kind of file that `ball` writes, and how an existing one is recognised.

    Attributes:
        begins: bytes that the file begins with, letter case ignored.
        contains: texts that all occur in its first or last bytes.
        within: number of these bytes.
    """

    begins: bytes = b""
    contains: tuple[str, ...] = ()
    within: int = 4096


OUTPUTS: dict[str, Output] = {
    "cache": Output(b"\x89HDF\r\n\x1a\n", ("schema_version", "fingerprint", "committed", "embeddings"), 1 << 21),
    "groups": Output(contains=("path", "group", "series")),
    "predictions": Output(b"path,predicted,p_"),
    "patient answers": Output(b"patient,images,unusual,predicted"),
    "answers": Output(b"{", ('"bundle": "', '"cache_fingerprint"')),
    "evaluation": Output(b"{", ('"balanced_recall"', '"cache_fingerprint"')),
    "verdict": Output(b"[", ('"code": "', '"severity": "')),
    "audit": Output(b'{\n  "images": "'),
    "page": Output(b"<!doctype html", ("Content-Security-Policy", "'sha256-", "<style>")),
    "card": Output(contains=("# Model card: ", "with ball ")),
    "captions": Output(contains=("table.tex", "table.csv")),
    "nuclei table": Output(b"path,area,count,"),
    "embeddings table": Output(b"path,label,sha256,view,e0"),
    "parquet": Output(b"PAR1", ('"weights_sha256"',), 1 << 20),
    "onnx": Output(b"\x08", ("\x12\x04ball",)),
}


def require_writable(
    path: Path | None, setting: str = "output file", *, kind: str = "", inputs: Iterable[Path | str | None] = ()
) -> None:
    """Check that an output file is writable before starting the work, and make its folder.

    An output never replaces an image, a file that was read, or a file that is not `ball`'s own output of that kind.
    What is found is remembered: `files.replacing` makes the check again where something else is there by then.

    Args:
        path: the file; None checks nothing.
        setting: name of the setting that holds the path, for the message.
        kind: key of `OUTPUTS`; "" accepts any existing file that is neither an image nor an input.
        inputs: files that the command reads; folders and None are ignored.

    Raises:
        DataError: The file cannot be written, holds something that must not be replaced, lies in a bundle, or is an
            address.
    """
    if path is None:
        return
    _require_path(path, setting)
    _require_no_bundle(path.parent, setting)
    other = f"Give another {setting}."
    again = functools.partial(_require_replaceable, path, kind, [*inputs], other)
    try:
        if not (path.is_fifo() or path.is_char_device()):  # which to open would wait, or tell a reader of an end
            again()
            _try(Path(os.path.realpath(path)))
        expect(path, again)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}). {other}") from error


def _require_path(path: Path | str, setting: str) -> None:
    if is_address(path):
        raise DataError(
            f"Got the address {shown_address(path)}, expected a path of this machine. Give another {setting}; in "
            "Python, `with ball_features.files.delivered(ADDRESS) as path` makes one, and stores it when it is done."
        )


def _require_no_bundle(folder: Path, setting: str) -> None:
    if os.path.lexists(folder / "bundle.json"):
        raise DataError(f"{folder} holds a saved model, which further files would damage. Give another {setting}.")


def _try(target: Path) -> None:
    """Raise `OSError` where a file cannot be written; permissions do not tell: some disks accept no new files."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        os.close(os.open(target, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)))
    with tempfile.TemporaryFile(dir=target.parent):  # never under the name itself, which may come to another program
        pass


def _require_replaceable(path: Path, kind: str, inputs: Iterable[Path | str | None], other: str) -> None:
    if not path.is_file():
        if path.exists() and not path.is_dir():  # `_try` tells of folders
            raise DataError(f"{path} is no file, and would be overwritten. {other}")
        return
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{path} is an image and would be overwritten. {other}")
    for item in inputs:
        if item is not None and Path(item).is_file() and path.samefile(item):
            raise DataError(f"{path} is an input of this command and would be overwritten. {other}")
    if kind and path.stat().st_size > len("[]\n") and not _is_own(path, OUTPUTS[kind]):
        raise DataError(f"{path} exists and is no {kind} file that ball has written. {other}")


def _is_own(path: Path, output: Output) -> bool:
    with path.open("rb") as file:
        head = file.read(output.within).removeprefix(b"\xef\xbb\xbf")
        file.seek(max(file.tell(), path.stat().st_size - output.within))
        text = (head + file.read()).decode("utf-8", "replace")
    return head.lower().startswith(output.begins.lower()) and all(part in text for part in output.contains)


def require_own_files(folder: Path, names: Iterable[str], marker: str, kind: str) -> None:
    """Check that files of a folder that would be replaced were written by `ball`, which the file `marker` tells.

    Args:
        folder: folder that the files are written into.
        names: names of the files.
        marker: name of a file that is written before the others.
        kind: key of `OUTPUTS` for the marker.

    Raises:
        DataError: One of the files exists, and the marker does not.
    """
    _require_no_bundle(folder, "folder")
    names = [*names, marker]
    link = next((folder / name for name in names if (folder / name).is_symlink()), None)
    if link is not None:
        raise DataError(f"{link} is a link, and what it leads to would be overwritten. Give another folder.")
    for name in names:
        _require_marked(folder / name, folder / marker, kind)
        try:
            expect(folder / name, functools.partial(_require_marked, folder / name, folder / marker, kind))
        except OSError as error:
            raise DataError(f"{folder / name} cannot be written ({error.strerror}). Give another folder.") from error


def _require_marked(path: Path, marker: Path, kind: str) -> None:
    own = marker.is_file() and _is_own(marker, OUTPUTS[kind])
    if os.path.lexists(path) and not own:
        raise DataError(f"{path} exists, and nothing tells that ball has written it. Give another folder.")


def require_folder(path: Path | str, setting: str = "output folder") -> None:
    """Make a folder that a command writes into, and check that it accepts files.

    Raises:
        DataError: The folder cannot be made or written to, is a bundle, or is an address.
    """
    _require_path(path, setting)
    _require_no_bundle(Path(path), setting)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise DataError(f"{path} cannot be written to ({error.strerror}). Give another {setting}.") from error
