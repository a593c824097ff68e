"""Commands whose options come from records: flag, type, help and default of an option are those of a field.

A command is a function that takes positional arguments (annotated for typer) and records (`Config`), and returns
nothing.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperOption

from ball_features.cli.layers import Layers, Preset, Setting, flag, record_of, settings_of
from ball_features.cli.lost_maps import tell_of_lost_maps
from ball_features.cli.root import invocation
from ball_features.config.fields import COMMON, REQUIRED, Option
from ball_features.config.paths import as_path, is_address, shown_address, whole_address
from ball_features.errors import ConfigError
from ball_features.threads import reserve_blas

__all__ = ["command"]

# Panels of the help, in their order.
_PANELS = (COMMON, "Protocol", "Models", "Head", "Views", "Network", "Images", "Limits", "Options", "Output")
_SWITCHES = ("verbose", "dry_run", "overwrite")  # those that the border of the command line asks for
_GIVEN = ("COMMANDLINE", "ENVIRONMENT")


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        order = self.make_parser(ctx).parse_args(args=[*args])[2]
        for name, times in Counter(
            one.opts[0] for one in order if isinstance(one, TyperOption) and _is_single(one)
        ).items():
            if times > 1:  # the last would win, and the others be lost without a word
                ctx.fail(f"{name} is given {times} times, expected once. Leave out what is not meant.")
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        found = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel = "Output"  # its own panel would be the first
        return found


def _is_single(one: TyperOption) -> bool:
    """Whether an option takes one value, so that a second one replaces the first."""
    return not (one.multiple or one.is_flag or one.count)


class _Listed:
    """A command as the list of all commands shows it; whatever else is asked of it is asked of the command itself.

    Options take time, some ask registries for their names, and the list shows none.
    """

    hidden = deprecated = False
    short_help = rich_help_panel = None

    def __init__(self, function: Callable[..., None], build: Callable[[], TyperCommand]) -> None:
        self.name, self.help = function.__name__, inspect.getdoc(function)
        self._build = functools.cache(build)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._build(), name)


def command(
    function: Callable[..., None],
    *,
    file: bool = False,
    presets: Mapping[str, Preset] | None = None,
    optional: Sequence[str] = (),
) -> Any:
    """A command of the application, built when it is called or asked for its options.

    Args:
        function: what the command does. Its name is the command's, its docstring the help.
        file: True to take a configuration file, which may name positional arguments too.
        presets: settings by name, for an option "preset".
        optional: positional arguments that may be left out; they are None then.
    """
    return _Listed(function, lambda: _built(function, file, presets or {}, optional))


def _not_followed(config: Path | None) -> str:
    """Why a configuration that is a run gave no cache: it names its own, unless that is an address."""
    if config is None or config.suffix != ".json":
        return ""
    return f" {config} names an address for it, which a run may not name: nothing is opened that you did not give."


def _built(
    function: Callable[..., None], file: bool, presets: Mapping[str, Preset], optional: Sequence[str]
) -> TyperCommand:
    hints = typing.get_type_hints(function, include_extras=True)
    hints.pop("return", None)
    records = {name: hint for name, hint in hints.items() if record_of(hint) is not None}
    plain = {name: hint for name, hint in hints.items() if name not in records}
    settings = [one for name, hint in records.items() for one in settings_of(name, hint)]
    if presets:
        settings.append(_setting("preset", str, _preset_option(presets), ""))
    if file:
        settings.append(_setting("config", Path | None, _FILE, None))
    settings.sort(key=lambda one: _PANELS.index(one.about.panel))
    layers = Layers(function, records, plain, settings, presets)

    def run(context: typer.Context, **values: Any) -> None:
        given = {name for name in values if getattr(context.get_parameter_source(name), "name", "") in _GIVEN}
        invocation.begin(context.info_name or "")
        invocation.switches.update(name for name in _SWITCHES if values.get(name) is True)
        arguments = layers.arguments(values, given)
        missing = [name for name in plain if name not in optional and arguments[name] in (None, [])]
        if missing:
            context.fail(f"Missing argument '{missing[0]}'.{_not_followed(values.get('config'))}")
        from ball_features.outputs import reading

        inputs = _inputs(plain, settings, arguments, values.get("config"))
        with reading(item for item in inputs if not is_address(item)):
            _deliver(function, arguments, [one for one in settings if one.about.stored], given, inputs)

    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for name, hint in plain.items():
        hint = _kept_whole(hint)
        annotation, default = (_optional(hint), None) if file or name in optional else (hint, inspect.Parameter.empty)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        )
    parameters += [_parameter(one) for one in settings]
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    run.__annotations__ = {}
    run.__doc__ = function.__doc__
    single = typer.Typer(add_completion=False)
    single.command(function.__name__, cls=_Command)(run)
    return cast("TyperCommand", typer.main.get_command(single))


def _inputs(
    plain: Mapping[str, Any], settings: Sequence[Setting], arguments: Mapping[str, Any], config: Path | None
) -> list[str]:
    """Paths and addresses that a command was given to read: positional arguments, and settings that are no output."""
    found = [arguments[name] for name in plain] + [config]
    found += [
        getattr(arguments[one.record], one.path[0])
        for one in settings
        if one.record and not one.about.stored and one.name != "out" and (one.about.path or "Path" in str(one.kind))
    ]
    every = [item for value in found for item in (value if isinstance(value, list | tuple) else [value])]
    return [str(item) for item in every if item is not None]


def _copies(inputs: Iterable[str], place: Path | str, local: Path) -> Iterator[Path]:
    """The copies of inputs that lie beside an output under an address, or below it."""
    top = whole_address(place).rstrip("/").rpartition("/")[0]
    for own in (whole_address(item) for item in inputs if is_address(item)):
        if own.startswith(f"{top}/"):
            yield local.parent / own.removeprefix(f"{top}/")


def _deliver(
    function: Callable[..., None],
    arguments: MutableMapping[str, Any],
    outputs: Sequence[Setting],
    given: set[str],
    inputs: Sequence[str],
) -> None:
    """Call a command's function; what it writes for addresses is stored there when it has ended."""
    from ball_features.files import require_apart

    places = {one.name: getattr(arguments[one.record], one.path[0]) for one in outputs if one.about.stored == "file"}
    require_apart({flag(name): place for name, place in places.items()})
    exits: list[typer.Exit] = []
    with contextlib.ExitStack() as held:
        for one in outputs:
            place = getattr(arguments[one.record], one.path[0])
            if place is None or not is_address(place):
                continue
            if one.name not in given:  # a file may be a stranger's
                raise ConfigError(
                    f"Got the address {shown_address(place)} from a file, expected it on the command line. Give it as "
                    f"{flag(one.name)} too, if results are to go there.",
                    option=one.path[0],
                )
            from ball_features.files import delivered
            from ball_features.outputs import reading

            local = held.enter_context(delivered(place, one.about.stored))
            held.enter_context(reading(_copies(inputs, place, local)))
            arguments[one.record] = dataclasses.replace(arguments[one.record], **{one.path[0]: local})
        reserve_blas()
        tell_of_lost_maps()
        try:
            function(**arguments)
        except typer.Exit as end:  # a command that is done, with findings
            exits.append(end)
    if exits:
        raise exits[0]


_FILE = Option(
    "TOML file of settings by name, such as the config.toml beside every run. Options given beside it win.",
    panel=COMMON,
    in_file=False,
)


def _preset_option(presets: Mapping[str, Preset]) -> Option:
    names = " or ".join(presets)
    return Option(f"Settings of a publication: {names}. Options given beside it win.", panel=COMMON, in_file=False)


def _setting(name: str, kind: Any, about: Option, default: Any) -> Setting:
    return Setting("", (), name, kind, about, default)


def _parameter(one: Setting) -> inspect.Parameter:
    """A setting as typer has it: tuples are text with commas, words stand for what a shell cannot spell.

    A tuple of paths, in which a comma may stand, is an option that is given several times.
    """
    about, kind = one.about, one.kind
    several = about.path and typing.get_origin(kind) is tuple
    none = types.NoneType in typing.get_args(kind)
    kind = typing.get_args(kind)[0] if none else kind
    if several:
        kind = list[Path]
    elif typing.get_origin(kind) is tuple or any(isinstance(word, str) for word in about.words):
        kind = str
    elif about.path:
        kind = Path
    if several:
        default = None
    elif one.default is REQUIRED:
        default = inspect.Parameter.empty
    else:
        default = about.written(one.default)
        default = ",".join(map(str, default)) if isinstance(default, list) else default
    shown = default not in (None, "", inspect.Parameter.empty) and default is not False
    flags = [flag(one.name), *([f"-{about.short}"] if about.short else [])]
    text = about.help.replace("{names}", ", ".join(_names(about))) if "{names}" in about.help else about.help
    parser: Any = as_path if "Path" in str(kind) else None
    option = typer.Option(
        *flags,
        parser=parser,
        help=text,
        rich_help_panel=about.panel,
        show_default=shown,
        envvar=about.environment or None,
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
    if about.registry == "recipes":
        from ball_features.extraction.recipe import RECIPE_SETS
        from ball_features.extraction.transforms import TRANSFORMS

        return (*(f"{name} ({step.purpose})" for name, step in TRANSFORMS.items()), *RECIPE_SETS)
    return about.choices


def _kept_whole(hint: Any) -> Any:
    """A positional argument whose paths are made by `as_path`."""
    kind, about, *more = typing.get_args(hint)
    if "Path" not in str(kind):
        return hint
    about = copy.copy(about)
    about.parser = as_path
    return Annotated[(kind, about, *more)]


def _optional(hint: Any) -> Any:
    """A positional argument that a configuration file may give instead."""
    kind, *more = typing.get_args(hint)
    return Annotated[(kind | None, *more)]
