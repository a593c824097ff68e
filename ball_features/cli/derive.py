"""Commands whose options come from records: flag, type, help and default of an option are those of a field.

A command is a function that takes positional arguments (annotated for typer) and records (`Config`), and returns
nothing. The values of a record come from four layers, each of which wins over those before it: its own defaults, a
preset, a configuration file, the command line.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ball_features.cli.root import invocation
from ball_features.config.fields import COMMON, REQUIRED, Config, Option, flat_name, near, option_of, options_of
from ball_features.errors import ConfigError

__all__ = ["Preset", "Subset", "command", "flag"]

# Panels of the help, in their order.
_PANELS = (COMMON, "Protocol", "Models", "Head", "Views", "Network", "Images", "Limits", "Options", "Output")
_SWITCHES = ("verbose", "dry_run", "overwrite")  # those that the border of the command line asks for
_GIVEN = ("COMMANDLINE", "ENVIRONMENT")


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
        """What is kept and what is not, for this number of random splits."""
        splits = f"{repeats} split{'' if repeats == 1 else 's'}"
        return f"keeps {self.keeps}. It changes: {self.changes.format(splits=splits)}."


@dataclass(frozen=True)
class _Setting:
    """One option of a command: the field `path` of the record that the parameter `record` takes."""

    record: str
    path: tuple[str, ...]
    name: str
    kind: Any
    about: Option
    default: Any


class _Command(TyperCommand):
    def get_help_option(self, ctx: Any) -> Any:
        found = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel = "Output"  # its own panel would be the first
        return found


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.removeprefix('as_').replace('_', '-')}"


def command(function: Callable[..., None], *, file: bool = False, presets: Mapping[str, Preset] | None = None) -> Any:
    """A command of the application.

    Args:
        function: what the command does. Its name is the command's, its docstring the help.
        file: True to take a configuration file, which may name positional arguments too.
        presets: settings by name, for an option "preset".
    """
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    records = {name: hint for name, hint in hints.items() if _record(hint) is not None}
    plain = {name: hint for name, hint in hints.items() if name not in records}
    settings = [one for name, hint in records.items() for one in _settings(name, hint)]
    if presets:
        settings.append(_setting("preset", str, _preset_option(presets), ""))
    if file:
        settings.append(_setting("config", Path | None, _FILE, None))
    settings.sort(key=lambda one: _PANELS.index(one.about.panel))
    layers = _Layers(function, records, list(plain), settings, presets or {})

    def run(context: typer.Context, **values: Any) -> None:
        given = {name for name in values if getattr(context.get_parameter_source(name), "name", "") in _GIVEN}
        invocation.begin(context.info_name or "")
        invocation.switches.update(name for name in _SWITCHES if values.get(name) is True)
        arguments = layers.arguments(values, given)
        missing = [name for name in plain if arguments[name] in (None, [])]
        if missing:
            context.fail(f"Missing argument '{missing[0]}'.")
        function(**arguments)

    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for name, hint in plain.items():
        annotation, default = (_optional(hint), None) if file else (hint, inspect.Parameter.empty)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        )
    parameters += [_parameter(one) for one in settings]
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    run.__annotations__ = {}
    run.__doc__ = function.__doc__
    single = typer.Typer(add_completion=False)
    single.command(function.__name__, cls=_Command)(run)
    return typer.main.get_command(single)


_FILE = Option(
    "TOML file of settings by name, such as the config.toml beside every run. Options given beside it win.",
    panel=COMMON,
    in_file=False,
)


def _preset_option(presets: Mapping[str, Preset]) -> Option:
    names = " or ".join(presets)
    return Option(f"Settings of a publication: {names}. Options given beside it win.", panel=COMMON, in_file=False)


def _setting(name: str, kind: Any, about: Option, default: Any) -> _Setting:
    return _Setting("", (), name, kind, about, default)


def _record(hint: Any) -> type[Config] | None:
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


def _subset(hint: Any) -> Subset | None:
    return next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Subset)), None)


def _settings(record: str, hint: Any) -> list[_Setting]:
    """The options of a record, those of a subset in the order of its names."""
    cls, subset = _record(hint), _subset(hint)
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
        found[name] = _Setting(record, path, name, kind, about, default)
    return list(found.values()) if subset is None else [found[name] for name in subset.names]


def _parameter(one: _Setting) -> inspect.Parameter:
    """A setting as typer has it: tuples are text with commas, words stand for what a shell cannot spell."""
    about, kind = one.about, one.kind
    none = types.NoneType in typing.get_args(kind)
    kind = typing.get_args(kind)[0] if none else kind
    if typing.get_origin(kind) is tuple or any(isinstance(word, str) for word in about.words):
        kind = str
    elif about.path:
        kind = Path
    if one.default is REQUIRED:
        default = inspect.Parameter.empty
    else:
        default = about.written(one.default)
        default = ",".join(map(str, default)) if isinstance(default, list) else default
    shown = default not in (None, "", inspect.Parameter.empty) and default is not False
    flags = [flag(one.name), *([f"-{about.short}"] if about.short else [])]
    text = about.help.replace("{names}", ", ".join(_names(about))) if "{names}" in about.help else about.help
    option = typer.Option(
        *flags, help=text, rich_help_panel=about.panel, show_default=shown, envvar=about.environment or None
    )
    if default is None or (none and not about.words):
        kind |= None
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, option], default=default
    )


def _names(about: Option) -> tuple[str, ...]:
    """Valid names of a setting, from its registry where it has one."""
    if about.registry == "models":
        from ball_features.models.registry import MODELS

        return tuple(MODELS)
    if about.registry == "backbones":
        from ball_features.extraction.backbones import BACKBONES

        return tuple(BACKBONES)
    return about.choices


def _optional(hint: Any) -> Any:
    """A positional argument that a configuration file may give instead."""
    kind, *more = typing.get_args(hint)
    return Annotated[(kind | None, *more)]


@dataclass(frozen=True)
class _Layers:
    """The sources of a command's values."""

    function: Callable[..., None]
    records: Mapping[str, Any]
    plain: list[str]
    settings: list[_Setting]
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
        for name in self.plain:
            found[name] = values[name]
            for _, layer in below:
                if name in layer and found[name] in (None, []):
                    found[name] = layer[name]
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
            cls = _record(hint)
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
            if isinstance(value, Mapping) and key in tables:
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
        cls, subset = _record(hint), _subset(hint)
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
        for ignored in subset.ignores if subset is not None else ():
            usual, got = (_get(item.to_dict(), tuple(ignored.split("."))) for item in (cls(), record))
            if got != usual:
                verb = self.function.__name__
                raise ConfigError(f"Got {ignored}={got!r}, which `ball {verb}` does not heed. Leave it out.")
        return record


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
