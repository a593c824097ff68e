"""What all commands share: the application, its exit codes, progress and output.

Exit codes: 0 done, 1 done with findings under `--strict`, 2 wrong use or input, 3 internal error, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ball_features import __version__
from ball_features.errors import BallError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "InterruptError",
    "app",
    "console",
    "main",
    "print_json",
    "progress_bar",
    "say",
]

app = typer.Typer(
    name="ball",
    help="Tell subtypes of B-cell acute lymphoblastic leukemia apart on blood smear images: `ball extract` turns "
    "images into embeddings once, with a frozen network; `ball fit` compares classifiers on them in one table. For "
    "research; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run `ball`; errors raised on purpose are printed as one message."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, _interrupt)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata, which does not concern the pixels
    try:
        app(standalone_mode=True)
    except BallError as error:
        if "--verbose" in sys.argv:
            for note in getattr(error, "__notes__", []):
                say(note)
        say(f"Error: {error}")
        sys.exit(2)
    except InterruptError:
        say(f"Interrupted. {_what_is_left()}")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if "--verbose" in sys.argv:
            raise
        say(f"Internal error: {type(error).__name__}: {error}. Run it again with --verbose and report what it prints.")
        sys.exit(3)


class InterruptError(BaseException):
    """Ctrl-C; not `KeyboardInterrupt`, which the parser would turn into another exit code."""


def _interrupt(number: int, frame: object) -> None:
    raise InterruptError


# What a command that was interrupted has left; of others nothing is there before the end.
_LEFT = {
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
    command = _running[-1] if _running else ""
    if command == "extract" and "--overwrite" in sys.argv:  # the flag would begin anew
        return "What was finished is kept; the same command without --overwrite goes on from there."
    return "Nothing was written." if "--dry-run" in sys.argv else _LEFT.get(command, "Nothing was written.")


def say(line: str) -> None:
    """One line on standard error."""
    typer.echo(line, err=True)


def print_json(values: Any) -> None:
    """One JSON object on standard output."""
    from ball_features.files import json_text

    typer.echo(json_text(values))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ball {__version__}")
        raise typer.Exit


_running: list[str] = []  # the command that was asked for


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _running[:] = [context.invoked_subcommand or ""]


class _Pace:
    """How many a second, of the part in hand: another begins where all were done, or more than now."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.done, self.total = 0, -1

    def at(self, done: int, total: int) -> tuple[bool, float]:
        """Whether a part began, and its rate, when so many are done."""
        again = done < self.done or self.done == self.total
        if again:
            self.start = self.last
        self.done, self.total, self.last = done, total, time.perf_counter()
        return again, done / max(self.last - self.start, 1e-9)


@contextmanager
def progress_bar(what: str, quiet: bool, unit: str = "images") -> Iterator[Callable[..., None]]:
    """A bar on a terminal, a line every tenth elsewhere; counting may begin again, as for each rung of a ladder."""
    if quiet:
        yield lambda done, total, name="": None
        return
    pace = _Pace()
    if not sys.stderr.isatty():
        tenth = -1

        def line(done: int, total: int, name: str = "") -> None:
            nonlocal tenth
            again, rate = pace.at(done, total)
            now = 10 * done // max(total, 1)
            if (now > tenth or again) and total:
                tenth = now
                say(f"{what}: {done} of {total} {unit}, {rate:.1f} {unit}/s{f' ({name})' if name else ''}")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]:.1f}} {unit}/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, rate=0.0, name="")

        def update(done: int, total: int, name: str = "") -> None:
            again, rate = pace.at(done, total)
            if again:  # or the time that remains would be that of all parts
                bar.reset(task, total=total)
            bar.update(task, completed=done, total=total, rate=rate, name=name)

        yield update


def console() -> Console:
    """Standard output for tables; 120 columns where it is not a terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)
