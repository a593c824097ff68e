"""Configuration files: settings read from TOML, and the file beside a run that repeats it."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ball_features.config.fields import Config
from ball_features.config.paths import as_word, expanded, is_address, shareable
from ball_features.config.plain_values import plain
from ball_features.errors import ConfigError

__all__ = ["FILE", "Repeat", "read_settings", "toml_text"]

FILE = "config.toml"  # beside every run
_LONGEST, _LONGEST_RUN = 100_000, 1 << 28  # bytes
_MOST_DOTS = 200
_CONTROL = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # JSON has the others as escapes


@dataclass(frozen=True)
class Repeat:
    """What repeats a run.

    Attributes:
        verb: command that makes it, such as "fit".
        inputs: arguments of the command, such as {"cache": "a.h5"} or {"caches": ["a.h5", "b.h5"]}.
        settings: settings of the run.
        more: other options of the command that change what comes out, such as {"save": "best"}.
    """

    verb: str
    inputs: Mapping[str, Any]
    settings: Config
    more: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The configuration file: every setting, also those left at their default."""
        comment = f"Settings of a run of `ball {self.verb}`, which takes this file to repeat it in the same folder."
        more = {name: value for name, value in self.more.items() if value is not None}
        return toml_text(shareable({**self.inputs, **more, **plain(self.settings)}), comment)

    def command(self, folder: Path, name: str = FILE) -> str:
        """The command that repeats the run, quoted for a shell.

        Args:
            folder: folder of the run.
            name: name of the file with the settings in it.
        """
        given = [item for value in self.inputs.values() for item in ([value] if isinstance(value, str) else value)]
        words = ["ball", self.verb, *map(as_word, shareable(given)), "--config", as_word(shareable(str(folder / name)))]
        # A shell replaces ~/ by the user's own folder only where it is not quoted.
        return " ".join(f"~/{shlex.quote(word[2:])}" if word.startswith("~/") else shlex.quote(word) for word in words)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, or those that a `run.json` holds, where addresses are not followed.

    Raises:
        ConfigError: the file cannot be read, or is not TOML (for a name ending in .json: no run, or a setting of it is
            an address).
    """
    import tomllib

    try:
        most = _LONGEST_RUN if path.suffix == ".json" else _LONGEST
        with path.open("rb") as file:  # which may be a pipe, or a device without an end
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most} bytes")
        text = data.decode("utf-8-sig")
        if path.suffix != ".json":
            _require_shallow(text)
            return _found(tomllib.loads(text))
        details = json.loads(text)
        source, beside = details["cache"], details.get("cache_from_run")
        if isinstance(source, str) and isinstance(beside, str) and not expanded(source).exists():
            seen = Path(os.path.normpath(path.parent.resolve() / expanded(beside)))  # from the run's folder
            source = str(seen) if seen.exists() else source
        given = [source] if isinstance(source, str) else list(source)
        found = {} if any(map(is_address, given)) else {"cache" if isinstance(source, str) else "caches": source}
        far = [name for name, value in details["config"].items() if value and (name == "cluster" or _is_far(value))]
        if far:
            raise ValueError(f"{far[0]} is an address, which a run may not name; give it yourself, or take its {FILE}")
        # JSON keeps None as null; a TOML file leaves such a setting out.
        return _found(found | details["config"])
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error.strerror}). Name a TOML file.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        expected = "the run.json of a run" if path.suffix == ".json" else 'TOML, such as: models = ["mlp", "logistic"]'
        raise ConfigError(f"The configuration {path} cannot be read ({error}). Expected {expected}.") from error


def _is_far(value: Any) -> bool:
    """Whether a setting is an address, or holds one."""
    if isinstance(value, dict):
        return any(map(_is_far, value.values()))
    return any(map(_is_far, value)) if isinstance(value, list) else isinstance(value, str) and is_address(value)


def _require_shallow(text: str) -> None:
    """Raise `ValueError` for a key of many parts, whose reader takes the square of their number."""
    if any(part.count(".") > _MOST_DOTS for part in re.split(r"[=\n,{}]", text)):
        raise ValueError(f"a key has more than {_MOST_DOTS} parts")


def _found(value: Any) -> Any:
    """Settings whose paths begin in the user's own folder, as `shareable` writes them, with their whole paths."""
    if isinstance(value, dict):
        return {key: _found(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_found(item) for item in value]
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a text holds the character NUL")
    return str(expanded(value)) if isinstance(value, str) and value.startswith("~/") else value


def toml_text(values: Mapping[str, Any], comment: str = "") -> str:
    """Texts, numbers, truth values and lists of them as TOML; a mapping becomes a table."""
    lines = [f"# {comment}"] if comment else []
    lines += [f"{name} = {_value(value)}" for name, value in values.items() if not isinstance(value, Mapping)]
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {_value(item)}" for key, item in value.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        return text if "." in text or "e" in text else f"{text}.0"
    if isinstance(value, int | float):
        return str(value)
    # A text of JSON is one of TOML, but for DEL, other controls, and for bytes of file names that are not UTF-8.
    text = str(value).encode("utf-8", "replace").decode()
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
