"""Values of a command's options, from four layers: defaults, a preset, a configuration file, the command line."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ball_features.cli.root import invocation
from ball_features.config.fields import REQUIRED, Config, Option, flat_name, near, option_of, options_of
from ball_features.errors import ConfigError

__all__ = ["Layers", "Preset", "Setting", "Subset", "flag", "record_of", "settings_of"]


@dataclass(frozen=True)
class Subset:
    """Restriction of a record to some of its settings, as annotation of a command's parameter.

    Attributes:
        names: settings that have a flag.
        defaults: defaults of the command where they differ from those of the record.
        help: help of a setting where the command gives it another meaning.
        ignores: settings that the command does not heed: a file may repeat their default, and nothing else.
    """

    names: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preset:
    """Settings under a name, after a publication.

    Attributes:
        settings: settings as in a configuration file.
        keeps: what is kept of the original.
        changes: what is not kept. {splits} stands for the number of splits.
    """

    settings: Mapping[str, Any]
    keeps: str
    changes: str

    def told(self, repeats: int) -> str:
        """What is kept and what is not, for this number of random splits; 0 where the images tell it."""
        splits = f"{repeats or 'several'} split{'' if repeats == 1 else 's'}"
        return f"keeps {self.keeps}. It changes: {self.changes.format(splits=splits)}."


@dataclass(frozen=True)
class Setting:
    """One option of a command: the field `path` of the record that the parameter `record` takes."""

    record: str
    path: tuple[str, ...]
    name: str
    kind: Any
    about: Option
    default: Any


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.removeprefix('as_').replace('_', '-')}"


def record_of(hint: Any) -> type[Config] | None:
    """The record that a parameter takes; None for a positional argument."""
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


def subset_of(hint: Any) -> Subset | None:
    """The restriction that annotates a parameter; None without one."""
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Subset)), None)


def settings_of(record: str, hint: Any) -> list[Setting]:
    """The options of a record, those of a subset in the order of its names."""
    cls, subset = record_of(hint), subset_of(hint)
    assert cls is not None
    found = {}
    for path, item, kind in options_of(cls):
        about = option_of(item)
        assert about is not None
        name = flat_name(item)
        default = item.default
        if subset is not None:
            default = subset.defaults.get(name, default)
            about = dataclasses.replace(about, help=subset.help.get(name, about.help))
        found[name] = Setting(record, path, name, kind, about, default)
    return list(found.values()) if subset is None else [found[name] for name in subset.names]


@dataclass(frozen=True)
class Layers:
    """The sources of a command's values."""

    function: Callable[..., None]
    records: Mapping[str, Any]
    plain: Mapping[str, Any]
    settings: list[Setting]
    presets: Mapping[str, Preset]

    def arguments(self, values: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
        """The arguments of the command's function.

        Args:
            values: parameter of the command line -> value, defaults included.
            given: names of the parameters that the user gave.
        """
        below: list[tuple[str, Mapping[str, Any]]] = []
        if values.get("preset"):
            invocation.preset = values["preset"]
            below.append((f"the preset {invocation.preset}", self._preset(invocation.preset).settings))
        if values.get("config") is not None:
            from ball_features.config.toml import read_settings

            path = values["config"]
            below.append((str(path), self._checked(str(path), read_settings(path))))
        found: dict[str, Any] = {}
        for name, hint in self.plain.items():
            found[name] = values[name]
            for source, layer in below:
                if name in layer and found[name] in (None, []):
                    found[name] = _path(name, layer[name], hint, source)
        for name, hint in self.records.items():
            found[name] = self._built(name, hint, below, values, given)
        return found

    def _preset(self, name: str) -> Preset:
        if name not in self.presets:
            raise ConfigError(f"Unknown preset {name!r}.{near(name, self.presets)}")
        return self.presets[name]

    def _known(self) -> dict[str, tuple[str, tuple[str, ...], Any, Option]]:
        """Dotted name in a file -> (parameter, path, type, option), also of settings that have no flag."""
        found = {}
        for name, hint in self.records.items():
            cls = record_of(hint)
            assert cls is not None
            for path, item, kind in options_of(cls):
                about = option_of(item)
                assert about is not None
                if about.in_file:
                    found[".".join(path)] = (name, path, kind, about)
        return found

    def _checked(self, source: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values of a file; raises `ConfigError` for a name that is no setting of this command."""
        known = {*self._known(), *self.plain}
        tables = {name.partition(".")[0] for name in known if "." in name}
        for key, value in values.items():
            if key in tables and not isinstance(value, Mapping):
                raise ConfigError(f"{source} sets {key}={value!r}, expected a table: [{key}], and settings below it.")
            if key in tables:
                wrong = [f"{key}.{inner}" for inner in value if f"{key}.{inner}" not in known]
            else:
                wrong = [key] if key not in known else []
            if wrong:
                raise ConfigError(f"{source} sets {wrong[0]!r}, which is no setting.{near(wrong[0], known)}")
        return values

    def _built(
        self,
        name: str,
        hint: Any,
        below: list[tuple[str, Mapping[str, Any]]],
        values: Mapping[str, Any],
        given: set[str],
    ) -> Config:
        """A record from its layers."""
        cls, subset = record_of(hint), subset_of(hint)
        assert cls is not None
        found: dict[str, Any] = {}
        own = {one.path: one for one in self.settings if one.record == name}
        for one in own.values():
            if one.name in given or one.default is REQUIRED:
                continue
            if subset is not None and one.name in subset.defaults:
                _put(found, one.path, one.default)
        for source, layer in below:
            for record, path, kind, about in self._known().values():
                got = _get(layer, path)
                if record == name and got is not REQUIRED:
                    _put(found, path, about.read(got, kind))
                    invocation.origins[path[-1]] = f"It is set in {source}."
        for one in own.values():
            if one.name in given or one.default is REQUIRED:
                _put(found, one.path, one.about.read(values[one.name], one.kind))
            if one.name in given or one.path[-1] not in invocation.origins:
                invocation.origins[one.path[-1]] = f"The option is {flag(one.name)}."
        record = cls.from_mapping(found)
        _require_own_network(found.get("backbone", ""), given)
        for ignored in subset.ignores if subset is not None else ():
            usual, got = (_get(item.to_dict(), tuple(ignored.split("."))) for item in (cls(), record))
            if got != usual:
                verb = self.function.__name__
                raise ConfigError(f"Got {ignored}={got!r}, which `ball {verb}` does not heed. Leave it out.")
        return record


def _require_own_network(backbone: Any, given: set[str]) -> None:
    """Refuse TorchScript that a file names, which may be a stranger's; one that the user has named before is known."""
    if "backbone" in given or not isinstance(backbone, str) or not backbone.startswith("file:"):
        return
    from ball_features.extraction.known_networks import file_sha256, is_program, knows_network

    path = Path(backbone.removeprefix("file:"))
    if path.is_file() and is_program(path) and not knows_network(file_sha256(path)):
        raise ConfigError(
            f"Got the network {path} from a file of settings. It is TorchScript: a program, which can read and "
            f"write files. If you trust its maker with your account, give {flag('backbone')} {backbone} too.",
            option="backbone",
        )


def _path(name: str, got: Any, hint: Any, source: str) -> Any:
    """A positional argument that a configuration file gives: a path, or several."""
    if typing.get_origin(typing.get_args(hint)[0]) is not list:
        if not isinstance(got, str):
            raise ConfigError(f"{source} sets {name}={got!r}, expected a path.")
        return Path(got)
    if not isinstance(got, list) or not all(isinstance(item, str) for item in got):
        raise ConfigError(f"{source} sets {name}={got!r}, expected paths in a list.")
    return got


def _get(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path; `REQUIRED` where there is none."""
    found: Any = values
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return REQUIRED
        found = found[name]
    return found


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value
