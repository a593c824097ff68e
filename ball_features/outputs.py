"""Outputs of commands, checked before the work: writable, and never in the place of what `ball` has not written."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from types import MappingProxyType

from ball_features.config.paths import is_address, shareable_text, shown_address
from ball_features.errors import DataError
from ball_features.files import IMAGE_SUFFIXES, expect, is_changed
from ball_features.output_kinds import OUTPUTS, is_own

__all__ = [
    "reading",
    "remove_former",
    "require_folder",
    "require_free",
    "require_no_link",
    "require_outside_bundles",
    "require_own_files",
    "require_untouched",
    "require_writable",
]


_WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")
_READ: set[tuple[int, int] | None] = set()  # files that the command in hand reads


@contextlib.contextmanager
def reading(paths: Iterable[Path | str]) -> Iterator[None]:
    """Remember the files that the command in hand was given to read: none of its outputs replaces one of them.

    Args:
        paths: paths, of which only files count.
    """
    added = {_identity(path) for path in map(Path, paths) if path.is_file()} - _READ - {None}  # of what is gone by now
    _READ.update(added)
    try:
        yield
    finally:
        _READ.difference_update(added)


def require_writable(
    path: Path | None,
    setting: str = "output file",
    *,
    kind: str = "",
    inputs: Iterable[Path | str | None] = (),
    named: bool = True,
    extended: bool = False,
) -> None:
    """Check that an output file is writable before starting the work, and make its folder.

    An output never replaces an image, a file that was read, or a file that is not `ball`'s own output of that kind.
    What is found is remembered: `files.replacing` makes the check again where something else is there by then.

    Args:
        path: the file; None checks nothing.
        setting: name of the setting that holds the path, for the message.
        kind: key of `OUTPUTS`; "" accepts any existing file that is neither an image nor an input.
        inputs: files that the command reads; folders and None are ignored.
        named: whether the user has named the file. A name that `ball` chooses, in a folder that may come from a
            stranger, leads nowhere: a link there is refused, and a pipe is not waited for.
        extended: whether the file is a table that is extended, so that the command may read it too.

    Raises:
        DataError: The file cannot be written, holds something that must not be replaced, lies in a bundle or below it,
            or is an address.
    """
    if path is None:
        return
    if not named:
        require_no_link(path)
        if not path.parent.is_dir():
            raise DataError(f"There is no folder {path.parent}: it was moved or removed, and is not made anew.")
    _require_path(path, setting)
    if path.suffix.lower() in _WORKBOOKS:
        raise DataError(
            f"Got {path}, expected another ending: no workbook is written. Tables are CSV, so give NAME.csv."
        )
    require_outside_bundles(path, setting)
    other = f"Give another {setting}."
    again = functools.partial(_require_replaceable, path, kind, [*inputs], other, extended)
    again = again if named else functools.partial(_require_own_name, path, again)
    try:
        # To open a pipe or a device would wait, or tell a reader of an end.
        if not (named and (path.is_fifo() or path.is_char_device())):
            again()
            _try(Path(os.path.realpath(path)))
        expect(path, again)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}). {other}") from error


def require_no_link(path: Path) -> None:
    """Check that a file or folder whose name `ball` chose is no link: whoever made the folder chose where it leads.

    Raises:
        DataError: It is a link.
    """
    if path.is_symlink() or getattr(os.path, "isjunction", os.path.islink)(path):
        raise DataError(
            f"{path} is a link, and what it leads to would be written or replaced. Remove the link, or work in another "
            "folder."
        )


def _require_own_name(path: Path, again: Callable[[], None]) -> None:
    require_no_link(path)
    again()


def require_free(path: Path, setting: str = "output file") -> None:
    """Check that a file that is never replaced, such as a sheet to fill in, can be written to a name that is free.

    Raises:
        DataError: Something is there, or the file cannot be written.
    """
    if path.exists():
        raise DataError(
            f"{path} exists and may hold corrections: it is not replaced. Give another {setting}, or remove it."
        )
    require_writable(path, setting)
    require_untouched(path, setting)


def require_untouched(path: Path, setting: str = "output file") -> None:
    """Remember what is at the name of an output: whatever else is there when it is written stays, of any kind.

    Raises:
        DataError: The name cannot be looked up.
    """
    try:
        expect(path, _require_nothing)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}). Give another {setting}.") from error


def _require_nothing() -> None:
    raise DataError("Another file has come there.")


def _require_path(path: Path | str, setting: str) -> None:
    if is_address(path):
        raise DataError(
            f"Got the address {shown_address(path)}, expected a path of this machine. Give another {setting}; in "
            "Python, `with ball_features.files.delivered(ADDRESS) as path` makes one, and stores it when it is done."
        )


def require_outside_bundles(path: Path | str, setting: str = "output folder") -> None:
    """Check that an output lies in no saved model: neither in its folder nor in one below, also by links.

    Args:
        path: file or folder, which need not be there.
        setting: name of the setting that holds the path, for the message.

    Raises:
        DataError: It lies in a bundle.
    """
    real, beside = (Path(os.path.realpath(place)) for place in (path, Path(path).parent))
    for folder in dict.fromkeys((real, beside, *real.parents, *beside.parents)):
        near = folder in (real, beside, real.parent)  # farther up, other programs may have a file of that name
        if os.path.lexists(folder / "bundle.json") and (near or os.path.lexists(folder / "reference.safetensors")):
            raise DataError(
                f"{shareable_text(str(folder))} holds a saved model, which further files would damage. Give another "
                f"{setting}."
            )


def _try(target: Path) -> None:
    """Raise `OSError` where a file cannot be written; permissions do not tell: some disks accept no new files."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        os.close(os.open(target, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)))
    with tempfile.TemporaryFile(dir=target.parent):  # never under the name itself, which may come to another program
        pass


def _require_replaceable(
    path: Path, kind: str, inputs: Iterable[Path | str | None], other: str, extended: bool = False
) -> None:
    if not path.is_file():
        if path.exists() and not path.is_dir():  # `_try` tells of folders
            raise DataError(f"{path} is no file, and would be overwritten. {other}")
        return
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{path} is an image and would be overwritten. {other}")
    read = any(item is not None and Path(item).is_file() and path.samefile(item) for item in inputs)
    if read or (not extended and _identity(path) in _READ):
        raise DataError(f"{path} is an input of this command and would be overwritten. {other}")
    if kind and path.stat().st_size and not is_own(path, OUTPUTS[kind]):
        raise DataError(f"{path} exists and is no {kind} file that ball has written. {other}")


def remove_former(path: Path, kind: str) -> None:
    """Remove a file of an earlier result that the new one lacks: beside the new files it would pass for one of them.

    What `ball` has not written, and what has come there since it was checked, stays.

    Args:
        path: file that would have been replaced.
        kind: key of `OUTPUTS`.

    Raises:
        DataError: It cannot be read or removed.
    """
    try:
        if path.is_file() and not is_changed(path) and is_own(path, OUTPUTS[kind]):
            path.unlink()
    except OSError as error:
        raise DataError(f"{path} is of an earlier result and cannot be removed ({error.strerror}).") from error


def require_own_files(
    folder: Path,
    names: Iterable[str],
    marker: str,
    kind: str,
    *,
    made: Collection[str] | None = None,
    inputs: Iterable[Path] = (),
    kinds: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Check that files of a folder that would be replaced were written by `ball`, which the file `marker` tells.

    What comes to one of the names before it is written stays.

    Args:
        folder: folder that the files are written into.
        names: names of the files, which may lie in folders below.
        marker: name of a file that is written before the others.
        kind: key of `OUTPUTS` for the marker.
        made: names of files that the marker lists as written by `ball`; None where it tells so of all.
        inputs: files that the command reads.
        kinds: name of a file -> key of `OUTPUTS` that it must be of too.

    Raises:
        DataError: One of the files exists, and the marker does not, or does not list it, or it is of another kind. A
            file or a folder below `folder` is a link. A file is an input.
    """
    require_outside_bundles(folder, "folder")
    names = [*names, marker]
    for place in dict.fromkeys(folder / part for name in names for part in _parts(name)):
        require_no_link(place)
    there = [name for name in names if os.path.lexists(folder / name)]
    read = ({_identity(path) for path in inputs} | _READ) - {None} if there else set()
    for name in there:
        path = folder / name
        if _identity(path) in read:
            raise DataError(f"{path} is an input of this command and would be overwritten. Give another folder.")
        if not ((folder / marker).is_file() and is_own(folder / marker, OUTPUTS[kind])):
            raise DataError(f"{path} exists, and nothing tells that ball has written it. Give another folder.")
        if made is not None and name != marker and name not in made:
            raise DataError(
                f"{path} exists, and {marker} does not list it as written by ball. Move it, or give another folder."
            )
        if name in kinds:
            _require_replaceable(path, kinds[name], (), "Give another folder.")
    for name in names:
        require_untouched(folder / name, "folder")


def _parts(name: str) -> list[PurePath]:
    """A name in a folder, and the folders below that one on its way."""
    return [PurePath(name), *PurePath(name).parents][:-1]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def require_folder(path: Path | str, setting: str = "output folder") -> None:
    """Make a folder that a command writes into, and check that it accepts files.

    Raises:
        DataError: The folder cannot be made or written to, is a bundle, or is an address.
    """
    _require_path(path, setting)
    require_outside_bundles(path, setting)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise DataError(f"{path} cannot be written to ({error.strerror}). Give another {setting}.") from error
