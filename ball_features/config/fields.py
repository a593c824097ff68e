"""Settings as frozen dataclasses whose fields say everything about themselves.

A field made by `option` holds its help, range, choices and panel beside its type and default. The checks of the values,
the flags and help of the command line, and the keys of a configuration file all follow from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from ball_features.config.paths import as_path
from ball_features.config.sizes import whole_number
from ball_features.errors import ConfigError

__all__ = [
    "COMMON",
    "LAST_SEED",
    "REQUIRED",
    "Config",
    "Option",
    "flat_name",
    "near",
    "option",
    "option_of",
    "options_of",
    "require",
    "split_names",
]

COMMON = "Most used"  # panel of the options that most people need first
LAST_SEED = 2**32 - 1
REQUIRED: Any = dataclasses.MISSING
_MOST = 1 << 64  # absolute value of a whole number


@dataclass(frozen=True)
class Option:
    """What a setting is, besides its type, name and default.

    Attributes:
        help: one sentence or more on what it does. "{names}" is replaced by `choices`, or by the names of `registry`.
        panel: heading of the help under which the option stands.
        choices: valid values. Of a tuple the valid combinations, each as text with commas.
        registry: registry whose keys are valid names, which checks them itself; it may be slow to load.
        low: smallest valid number, of each item where there are several.
        high: greatest valid number.
        above: number that a valid one exceeds.
        below: number that exceeds a valid one.
        special: number outside the range -> what it stands for, such as {0: "all images"}.
        words: how a value is written in a file and on the command line where that differs, such as {"auto": 0}.
        filled: True where an empty tuple is not valid.
        unit: what the numbers are, for messages, such as "a share" or "widths".
        note: addition to the expected range in messages.
        alias: name among the settings of a whole command, where another record has the same name.
        short: letter of a short flag.
        path: True where the text is a path. Of a tuple, whose flag may be given several times, each text is one.
        in_file: False for what says how a command runs, such as a dry run, and not what comes out.
        environment: environment variable that sets it too.
        stored: what lies there if the path of an output is an address, a key of `files.STORED`; "" if it may be none.
    """

    help: str
    panel: str = "Options"
    choices: tuple[str, ...] = ()
    registry: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    special: Mapping[float, str] = field(default_factory=dict)
    words: Mapping[Any, Any] = field(default_factory=dict)
    filled: bool = False
    unit: str = ""
    note: str = ""
    alias: str = ""
    short: str = ""
    path: bool = False
    in_file: bool = True
    environment: str = ""
    stored: str = ""

    @functools.cached_property
    def expected(self) -> str:
        """The valid values in words."""
        spelled = [text for text, value in self.words.items() if value is None and text]
        if self.choices:
            return _listed([*map(str, spelled), *self.choices])
        ends = (self.low, self.high, self.above, self.below)
        low, high, above, below = ("" if end is None else f"{end:.10g}" for end in ends)
        if low and high:
            text = f"{low} to {high}"
        elif above and below:
            text = f"between {above} and {below}"
        elif low and below:
            text = f"at least {low} and below {below}"
        else:
            text = f"above {above}" if above else f"at least {low}"
        text = f"{self.unit} {text}" if self.unit else text
        text += "".join(f", or {value:g} ({meaning})" for value, meaning in self.special.items())
        return text + (f", {self.note}" if self.note else "")

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type is in the range or among the choices."""
        if value is None:
            return True
        if isinstance(value, tuple):
            if self.choices:
                return ",".join(map(str, value)) in self.choices
            return (bool(value) or not self.filled) and all(self.allows(item) for item in value)
        if isinstance(value, str):
            return not self.choices or value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float) or value in self.special:
            return True
        return (
            (abs(value) < _MOST if isinstance(value, int) else math.isfinite(value))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def read(self, value: Any, kind: Any) -> Any:
        """A value of a file or of the command line as the field has it: words replaced, text split."""
        try:
            if value in self.words:
                return self.words[value]
        except TypeError:  # a list
            return value
        if isinstance(value, str) and typing.get_origin(kind) is tuple and not self.path:
            parts = split_names(value)
            numbers = [whole_number(part) for part in parts] if typing.get_args(kind)[0] is int else [None]
            return parts if None in numbers else tuple(numbers)
        number = whole_number(value) if isinstance(value, str) and kind is int and self.words else None
        return value if number is None else number

    def written(self, value: Any) -> Any:
        """A value of the field as a file has it; None where the file leaves it out."""
        if isinstance(value, tuple):
            return list(value)
        same = (text for text, meant in self.words.items() if meant == value and type(meant) is type(value))
        return next(same, value)


def option(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field that is an option.

    Args:
        default: default of the field; `REQUIRED` for none.
        help: as `Option.help`.
        more: other attributes of `Option`.
    """
    metadata = {"option": Option(help, **more)}
    return field(metadata=metadata) if default is REQUIRED else field(default=default, metadata=metadata)


def split_names(text: str) -> tuple[str, ...]:
    """Names with commas between, as options take them. Spaces around names and empty names are left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def require(valid: bool, name: str, got: Any, expected: str) -> None:
    """Raise `ConfigError` for a setting that is not valid."""
    if not valid:
        raise ConfigError(f"Got {name}={got!r}, expected {expected}.", option=name)


_TYPES: dict[type, tuple[Any, str]] = {
    str: ((str, os.PathLike), "a text"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
    Path: ((str, os.PathLike), "a path"),
}


@dataclass(frozen=True)
class Config:
    """Base of the records of settings: types and ranges are checked when one is made."""

    def __post_init__(self) -> None:
        """Check types and ranges; names that belong to a registry are checked where the registry is."""
        for item, kind in _fields(type(self)):
            about = option_of(item)
            value = getattr(self, item.name)
            if about is not None and about.path and typing.get_origin(kind) is tuple:
                value = () if value is None else (value,) if isinstance(value, str | os.PathLike) else value
            value = _typed(item.name, value, kind)
            object.__setattr__(self, item.name, value)
            if about is not None and not about.allows(value):
                shown = ",".join(map(str, value)) if isinstance(value, tuple) and about.choices else value
                require(False, item.name, shown, about.expected)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping, such as parsed JSON.

        Raises:
            ConfigError: a key is unknown, or a value is of another type or out of range.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigError(f"{cls.__name__} has no key {key!r}.{near(key, known)}")
        return cls(**values)

    @classmethod
    def of(cls, given: Self | Mapping[str, Any] | None) -> Self:
        """The settings that a function was given: a record, a mapping of some of its keys, or None for the defaults.

        Raises:
            ConfigError: It is something else, or `from_mapping` refuses it.
        """
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping | None):
            raise ConfigError(
                f"Got settings of type {type(given).__name__}, expected {cls.__name__}. Give {cls.__name__}(...)."
            )
        return cls.from_mapping(given or {})

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        return dataclasses.asdict(self)


def near(key: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest valid one, and all of them."""
    known = sorted(known)
    ends = {name.rpartition(".")[2]: name for name in known}  # "epochs" is near "head.epochs"
    close = [ends.get(name, name) for name in difflib.get_close_matches(key, [*known, *ends], n=1)]
    return "".join(f" Did you mean {name!r}?" for name in close) + f" Valid: {', '.join(known)}."


def option_of(item: dataclasses.Field[Any]) -> Option | None:
    """What a field says about itself; None where it is no option, as a record within a record."""
    return item.metadata.get("option")


def flat_name(item: dataclasses.Field[Any]) -> str:
    """Name of a field among all settings of a command."""
    about = option_of(item)
    return (about and about.alias) or item.name


def options_of(cls: type[Config]) -> Iterator[tuple[tuple[str, ...], dataclasses.Field[Any], Any]]:
    """(path, field, type) of every option of a record and of the records within it, in their order."""
    for item, kind in _fields(cls):
        if isinstance(kind, type) and issubclass(kind, Config):
            yield from (((item.name, *path), inner, own) for path, inner, own in options_of(kind))
        elif option_of(item) is not None:
            yield (item.name,), item, kind


@functools.cache
def _fields(cls: type[Config]) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(cls)
    return [(item, hints[item.name]) for item in dataclasses.fields(cls)]


def _listed(words: list[str]) -> str:
    if len(words) > 3:
        return f"one of {', '.join(words)}"
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _typed(name: str, got: Any, kind: Any) -> Any:
    """A value as the plain type that is declared for it; the forms that JSON, numpy and paths have are taken too."""
    if typing.get_origin(kind) is tuple:
        own = typing.get_args(kind)[0]
        like = "names in a tuple or list, such as ('a',)" if own is str else "numbers in a tuple or list, such as (64,)"
        require(isinstance(got, Iterable) and not isinstance(got, str | bytes | Mapping), name, got, like)
        return tuple(_typed(name, item, own) for item in got)
    kinds = typing.get_args(kind) or (kind,)
    if got is None and types.NoneType in kinds:
        return None
    if issubclass(kinds[0], Config) and isinstance(got, Mapping):
        return kinds[0].from_mapping(got)
    bare = got if isinstance(got, type) else getattr(got, "item", lambda: got)()  # numpy's scalars
    accepted, words = _TYPES.get(kinds[0], (kinds[0], f"a {kinds[0].__name__}, or a mapping of its keys"))
    fits = isinstance(bare, accepted) and (
        kinds[0] is bool or not isinstance(bare, bool)
    )  # which is a number to Python
    require(fits, name, got, words)
    if kinds[0] is str:
        return os.fspath(cast("str", bare))
    if kinds[0] is Path:
        return as_path(os.fspath(cast("str", bare)))
    make: Any = kinds[0]
    return make(bare) if make in _TYPES else bare  # 1 for 1.0 is the same setting, and the same fingerprint
