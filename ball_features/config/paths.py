"""Paths and addresses as runs and pages keep them: they name no user, no key and no folder above the one worked in."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ball_features.errors import BallError

__all__ = [
    "as_path",
    "as_word",
    "called",
    "disk_path",
    "expanded",
    "is_address",
    "is_copy",
    "named",
    "own_name",
    "shareable",
    "shareable_text",
    "shown_address",
    "shown_path",
    "spoken",
    "whole_address",
    "without_keys",
    "without_places",
]

# A drive of Windows has one letter; several may be chained, as in zip://a.h5::s3://bucket/a.zip.
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+:/")
_DISK = re.compile(r"(?:file|local):(?=/)(?://(?:localhost(?=/))?)?")
_NO_HOST = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):///(?=[^/])")  # hdfs:///user: the host of a configuration
# User and password: up to the last @ before the first slash, or to the last of all where a password may hold slashes.
_SECRET = re.compile(r"(?<=//)(?:[^/@:]*:(?!\d*(?:/|$)).*@|[^/]*@)")
_KEYED = re.compile(r"(?<!\w)[A-Za-z][A-Za-z0-9+.-]+:/[^\s'\"]*[@?][^\s'\"]*")  # an address with more than a place
_PLACE = re.compile(r"""(?<![\w/.~:-])/(?:[^\s/"'<>|]+/)+[^\s/"'<>|,;:()]*""")  # an absolute path in a sentence
_COPIES: dict[str, str] = {}  # path of this machine -> address that will hold what is written there


def is_address(path: Path | str) -> bool:
    """Whether a path is an address such as s3://bucket/folder, also where a `Path` has lost one of its slashes."""
    return _ADDRESS.match(str(path).replace("\\", "/")) is not None


def as_path(text: Path | str) -> Path:
    """A path, also for an address of this machine's disk; or another address, whose host may be left out.

    Examples:
        >>> as_path("file:///data/a.h5").as_posix()
        '/data/a.h5'
        >>> whole_address(as_path("hdfs:///data/a.h5"))
        'hdfs:///data/a.h5'
    """
    parts = (part if disk_path(part) else _NO_HOST.sub(r"\1://-/", part) for part in str(text).split("::"))
    return disk_path(text) or Path("::".join(parts))


def whole_address(path: Path | str) -> str:
    """An address with the slashes that a `Path` may have lost."""
    text = str(path)
    if os.name == "nt" and "://" not in text:
        text = text.replace("\\", "/")
    return "::".join(map(_whole, text.split("::")))


def _whole(text: str) -> str:
    if "://" not in text:
        disk = "/" if disk_path(text) else ""
        text = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]+):/", lambda found: f"{found[1]}://{disk}", text)
    return re.sub(r"^([^:/]+)://-/", r"\1:///", text)


def disk_path(path: Path | str) -> Path | None:
    """The path that an address of this machine's own disk stands for, such as file:///data; None for anything else."""
    text = str(path).replace("\\", "/") if os.name == "nt" else str(path)
    found = _DISK.match(text)
    if found is None or "::" in text:
        return None
    rest = text[found.end() :]
    return Path(rest.lstrip("/") if os.name == "nt" and re.match(r"/+[A-Za-z]:", rest) else rest)


def shown_address(path: Path | str) -> str:
    """An address without the keys and passwords that may stand in it."""
    return "::".join(_SECRET.sub("", part).partition("?")[0] for part in whole_address(path).split("::"))


def without_keys(text: str) -> str:
    """A sentence whose addresses are as `shown_address` has them."""
    return _KEYED.sub(lambda found: shown_address(found[0]), text)


BallError.shown = staticmethod(without_keys)


def shown_path(path: Path | str) -> str:
    """A path, or an address without keys and passwords."""
    return shown_address(path) if is_address(path) else str(path)


@contextlib.contextmanager
def called(path: Path, shown: str) -> Iterator[None]:
    """Let texts, files and errors call a path of this machine by the address that will hold it, here without keys."""
    _COPIES[str(path)] = shown
    try:
        yield
    except BallError as error:
        error.args = tuple(spoken(item) if isinstance(item, str) else item for item in error.args)
        raise
    finally:
        del _COPIES[str(path)]


def spoken(text: str) -> str:
    """A text that calls paths by their addresses, see `called`."""
    for path, address in _COPIES.items():
        text = text.replace(path, address)
    return text


def is_copy(path: Path) -> bool:
    """Whether a path lies where `called` says that an address will hold it."""
    return spoken(str(path)) != str(path)


def shareable(value: Any) -> Any:
    """Values with their absolute paths made relative to the current folder, or to the user's own folder, as ~/REST.

    Args:
        value: a text, a path, or a mapping or list of them; anything else is returned as it is.
    """
    if isinstance(value, dict):
        return {key: shareable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(shareable(item) for item in value)
    return shareable_text(str(value)) if isinstance(value, str | Path) else value


def named(value: Any) -> Any:
    """Values as `shareable` makes them, with the name alone of a path that lies outside both folders.

    What a reader is told of an input: a path such as ../../NAME would be right only where the command was run, and may
    name somebody. The record holds its content's hash beside it.

    Args:
        value: a text, a path, or a mapping or list of them; anything else is returned as it is.
    """
    found = shareable(value)
    if isinstance(found, dict):
        return {key: named(item) for key, item in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(named(item) for item in found)
    return Path(found).name if isinstance(found, str) and found.startswith("../") and "\n" not in found else found


def without_places(text: str) -> str:
    """A sentence whose absolute paths, of what is there, are as `named` has them."""
    return _PLACE.sub(lambda found: named(found[0]) if Path(found[0]).parent.exists() else found[0], text)


def as_word(text: str) -> str:
    """A path as an argument of a command, which takes no name that begins with - for an option."""
    return f"./{text}" if text.startswith("-") else text


def own_name(path: Path) -> str:
    """Name of a file or a folder, also where `.` or `..` leads to it; "" of the root of a disk."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def expanded(path: Path | str) -> Path:
    """A path with ~ as the home of its user; as it is where there is none, as for an account of a container."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - that of Path raises where there is no home


def shareable_text(text: str) -> str:
    """One text; see `shareable`."""
    text = spoken(text)
    if is_address(text) and "\n" not in text:
        return shown_address(text)
    if "\n" in text or not Path(text).is_absolute():
        return text
    path, here = Path(text), Path.cwd()
    try:
        home = Path.home()
        if path.is_relative_to(home) and home != Path(home.anchor) and not here.is_relative_to(home):
            return f"~/{path.relative_to(home).as_posix()}"
        return Path(os.path.relpath(path, here)).as_posix()
    except (ValueError, RuntimeError):  # another drive of Windows; no home
        return path.name
