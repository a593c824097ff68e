"""The application: its commands, loaded when they are asked for, and the border where errors become messages.

Exit codes: 0 done, 1 done with findings under `--strict`, 2 wrong use or input, 3 internal error, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import locale
import os
import signal
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from ball_features import __version__
from ball_features.cli.screen import say, steady_streams
from ball_features.config.paths import shown_path
from ball_features.errors import BallError, ConfigError, is_of_the_machine
from ball_features.threads import is_out_of_memory, memory_bytes, memory_limit

__all__ = ["InterruptError", "Invocation", "app", "invocation", "main"]

# Modules of the commands, in the order of `ball --help`. Each has one function of its own name.
NAMES = (
    "assess",
    "download",
    "extract",
    "merge",
    "segment",
    "sheet",
    "audit",
    "fit",
    "compare",
    "tune",
    "labels",
    "runs",
    "report",
    "predict",
    "adapt",
    "evaluate",
    "serve",
    "export",
    "inspect",
    "demo",
)


@dataclass
class Invocation:
    """The command in hand, as far as errors and interrupts ask for it.

    Attributes:
        command: name of the command; "" before one is known.
        preset: name of the preset in use; "" for none.
        switches: names of the switches that are on, such as "dry_run".
        origins: name of a setting -> where it comes from, in words for a message.
    """

    command: str = ""
    preset: str = ""
    switches: set[str] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)

    def begin(self, command: str) -> None:
        """Forget the command before, in a process that runs several."""
        self.command, self.preset = command, ""
        self.switches.clear()
        self.origins.clear()


invocation = Invocation()


class _Commands(MutableMapping[str, Any]):
    """Commands by name; the module of one is imported when it is looked up."""

    def __init__(self) -> None:
        self.built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in NAMES:
            raise KeyError(name)
        if name not in self.built:
            self.built[name] = import_module(f"ball_features.cli.{name}").COMMAND
        return self.built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.built[name] = command

    def __delitem__(self, name: str) -> None:
        del self.built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


class _Group(TyperGroup):
    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.commands = cast("dict[str, Any]", _Commands())


app = typer.Typer(
    name="ball",
    help="Tell subtypes of B-cell acute lymphoblastic leukemia apart on blood smear images: `ball extract` turns "
    "images into embeddings once, with a frozen network; `ball fit` compares classifiers on them in one table. For "
    "research; not a medical device.",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run `ball`; errors raised on purpose are printed as one message."""
    _read_names_as_utf8()
    unwritten = steady_streams()
    try:
        _run()
    except SystemExit as end:
        if not end.code and (reason := unwritten()):
            say(f"Error: The results could not be written to standard output ({reason}).")
            sys.exit(2)
        raise


def _read_names_as_utf8() -> None:
    """Start anew in Python's UTF-8 mode where a locale would read names of files otherwise; streams keep its encoding.

    Names in caches and tables are UTF-8, in any locale.
    """
    if os.name == "nt" or sys.getfilesystemencoding().lower() == "utf-8":
        return
    os.environ.setdefault("PYTHONIOENCODING", locale.getencoding())
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _run() -> None:
    _keep_to_installed_code()
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, _interrupt)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata, which does not concern the pixels
    try:
        app(standalone_mode=True)
    except BallError as error:
        if "verbose" in invocation.switches:
            for note in getattr(error, "__notes__", []):
                say(note)
        origin = invocation.origins.get(error.option, "") if isinstance(error, ConfigError) else ""
        say(f"Error: {error}" + (f" {origin}" if origin else ""))
        sys.exit(2)
    except InterruptError:
        say(f"Interrupted. {_what_is_left()}")
        sys.exit(130)
    except Exception as error:
        if is_out_of_memory(error):
            say(f"Error: The memory {_whose_memory()}, or give fewer models, views or processes (jobs) at once.")
            sys.exit(2)
        if "verbose" in invocation.switches:
            raise
        if isinstance(error, OSError) and is_of_the_machine(error):
            named = isinstance(error.filename, str | bytes)
            place = shown_path(os.fsdecode(error.filename)) if named else "A file cannot be read or written"
            say(f"Error: {place}: {error.strerror}. Check the name and who may use it, or give another place.")
            sys.exit(2)
        say(f"Internal error: {type(error).__name__}: {error}. Run it again with --verbose and report what it prints.")
        sys.exit(3)


def _whose_memory() -> str:
    limit = memory_limit()
    if limit > memory_bytes():
        return "of this machine does not suffice. Close other programs"
    return (
        f"that a process of this shell may map ({limit / 1e9:.1f} GB) does not suffice. Raise the limit (ulimit -v), "
        "set OMP_NUM_THREADS=1"
    )


def _keep_to_installed_code() -> None:
    """Let no module be imported from the folder that is worked in, which may be a stranger's; nor by workers.

    Python puts it first for `python -m` and `python -c`, by which workers of joblib and of multiprocessing start, and
    takes an empty entry of PYTHONPATH for it. A user who names it there means it.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(given)
    here = Path.cwd()
    own = Path(__file__).parents[2]
    if here not in (own, *(Path(entry).resolve() for entry in given)):
        sys.path[:] = [entry for entry in sys.path if entry and Path(entry) != here]


class InterruptError(BaseException):
    """Ctrl-C; not `KeyboardInterrupt`, which the parser would turn into another exit code."""


def _interrupt(number: int, frame: object) -> None:
    raise InterruptError


# What an interrupted command has left; the others write nothing before their end.
_LEFT = {
    "assess": "What was finished is kept; the same command goes on from there.",
    "extract": "What was finished is kept; the same command goes on from there.",
    "download": "kagglehub keeps what it has fetched; the same command goes on from there.",
    "segment": "The pictures written so far stay; the same command writes all of them again.",
    "demo": "What was written so far stays; the same command begins anew.",
    "audit": "It is not finished; run it again.",
    "report": "It is not finished; run it again.",
    "export": "It is not finished; run it again.",
    "serve": "It had not begun to listen.",
}


def _what_is_left() -> str:
    if "dry_run" in invocation.switches:
        return "Nothing was written."
    if invocation.command == "extract" and "overwrite" in invocation.switches:  # which would begin anew
        return "What was finished is kept; the same command without --overwrite goes on from there."
    return _LEFT.get(invocation.command, "Nothing was written.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ball {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    invocation.begin(context.invoked_subcommand or "")
