"""`run.json` of a run, a ladder or a learning curve, whose fields have the types that `ball` writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.errors import DataError
from ball_features.files import read_json

__all__ = ["COMPARISON", "read_details"]

_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class _Kind:
    """What a field holds.

    Attributes:
        words: what is expected, for the message.
        fits: whether a value is of that kind.
    """

    words: str
    fits: Callable[[Any], bool]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


_TEXT = _Kind("a text", lambda value: isinstance(value, str))
_OPTIONAL = _Kind("a text or null", lambda value: value is None or isinstance(value, str))
_TEXTS = _Kind("a list of texts", _is_texts)
_TEXTS_OR_NONE = _Kind("a list of texts or null", lambda value: value is None or _is_texts(value))
_PATHS = _Kind("a text or a list of texts", lambda value: isinstance(value, str) or (_is_texts(value) and value != []))
_OBJECT = _Kind("an object", lambda value: isinstance(value, dict))
_OBJECTS = _Kind("a list of objects", _is_objects)
_TEXT_BY_NAME = _Kind("an object of texts", lambda value: isinstance(value, dict) and _is_texts([*value.values()]))
_WHOLE = _Kind("a whole number from 0", lambda value: isinstance(value, int) and _is_number(value) and value >= 0)
_NUMBER = _Kind("a number", _is_number)
_FLAG = _Kind("true or false", lambda value: isinstance(value, bool))

_FIELDS: dict[str, _Kind] = {
    "ball_version": _TEXT, "cache": _PATHS, "cache_attributes": _OBJECT, "cache_fingerprint": _TEXT,
    "cache_from_run": _TEXT, "caption": _TEXT, "classes": _TEXTS, "command": _TEXT, "config": _OBJECT,
    "config_fingerprint": _TEXT, "created": _TEXT, "failures": _OBJECTS, "fit_s": _NUMBER, "groups_sha256": _OPTIONAL,
    "images": _WHOLE, "images_sha256": _TEXT, "kept": _FLAG, "note": _TEXT, "notes": _TEXTS, "protocol": _TEXT,
    "python": _TEXT, "rungs": _OBJECTS, "seeds": _OBJECT, "sentences": _TEXTS, "title": _TEXT,
    "versions": _TEXT_BY_NAME,
}  # fmt: skip
_OF_CONFIG: dict[str, _Kind] = {
    "channels": _TEXTS_OR_NONE, "combine": _TEXT, "groups": _OPTIONAL, "protocol": _TEXT, "seed": _WHOLE,
}  # fmt: skip
_OF_CACHE: dict[str, _Kind] = {
    "backbone": _TEXT, "channels": _TEXTS_OR_NONE, "channels_used": _TEXTS_OR_NONE, "weights": _TEXT,
}  # fmt: skip
_ORIGIN = ("ball_version", "cache", "cache_fingerprint", "classes", "config", "created", "images", "versions")
COMPARISON = ("title", "caption", "notes", "cache_attributes", *_ORIGIN)  # fields that each comparison has


def read_details(folder: Path, required: Collection[str] = ("notes",)) -> Mapping[str, Any]:
    """Read `run.json`.

    Args:
        folder: folder of the run.
        required: fields that must be there; a file with `cache_attributes` has all of the origin too.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no JSON.
        DataError: A field is missing, or of another type.
    """
    details = read_json(folder / "run.json")
    if not isinstance(details, dict):
        raise _wrong(folder, "it", details, _OBJECT)
    wanted = {*required, *(_ORIGIN if "cache_attributes" in details else ())}
    lacking = sorted(wanted - details.keys())
    if lacking:
        raise DataError(_said(folder, f"it lacks {', '.join(lacking)}"))
    _require(folder, details, _FIELDS, "")
    _require(folder, details.get("config", {}), _OF_CONFIG, "config.")
    _require(folder, details.get("cache_attributes", {}), _OF_CACHE, "cache_attributes.")
    for name in ("protocol", "seed", "channels", "combine") if "cache_attributes" in details else ():
        if name not in details["config"]:
            raise DataError(_said(folder, f"it lacks config.{name}"))
    return details


def _require(folder: Path, values: Mapping[str, Any], kinds: Mapping[str, _Kind], prefix: str) -> None:
    for name, kind in kinds.items():
        if name in values and not kind.fits(values[name]):
            raise _wrong(folder, prefix + name, values[name], kind)


def _wrong(folder: Path, name: str, value: object, kind: _Kind) -> DataError:
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
    return DataError(_said(folder, f"{name} is {shown}, expected {kind.words}"))


def _said(folder: Path, fault: str) -> str:
    advice = "Get the file again from its maker, or make the run again."
    return f"{folder / 'run.json'} was edited or damaged: {fault}. {advice}"
