"""What commands print: lines, JSON, tables and progress, readable on any terminal.

Names of files and classes come from outside. They never reach the terminal as control characters or as markup.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

__all__ = ["clean", "echo", "print_json", "progress_bar", "say", "show", "survive_encodings", "width"]


def clean(text: str) -> str:
    """A text whose control characters are escapes (ESC a backslash and x1b), and whose outputs have their addresses."""
    from ball_features.config.paths import spoken
    from ball_features.files import escaped_controls

    return escaped_controls(spoken(text), kept="\t\n")


def survive_encodings() -> None:
    """Escape what the terminal's encoding lacks, instead of raising an error in the middle of a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def echo(line: str) -> None:
    """One line of the result, on standard output."""
    typer.echo(clean(line))


def say(line: str) -> None:
    """One line about the work, on standard error."""
    typer.echo(clean(line), err=True)


def print_json(values: Any) -> None:
    """One JSON object on standard output."""
    from ball_features.config.paths import spoken
    from ball_features.files import json_text

    typer.echo(spoken(json_text(values)))


class _Clean:
    """Anything that Rich renders, without the control characters in its texts."""

    def __init__(self, renderable: RenderableType):
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for segment in console.render(self.renderable, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)


def _console(*, err: bool = False) -> Console:
    """A console that takes every text literally; 120 columns where it is not a terminal."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, markup=False, emoji=False, highlight=False, width=None if stream.isatty() else 120)


def width() -> int:
    """Columns of standard output."""
    return _console().width


def show(*renderables: RenderableType, err: bool = False, quiet: bool = False) -> None:
    """Tables and paragraphs on standard output, or on standard error; without captions where quiet."""
    from ball_features.reporting.captions import without_captions

    console = _console(err=err)
    for renderable in renderables:
        console.print(_Clean(without_captions(renderable) if quiet else renderable))


class _Pace:
    """Rate of the part in hand. Another part begins where all were done, or where fewer are done than before."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.done, self.total = 0, -1

    def at(self, done: int, total: int) -> tuple[bool, float]:
        """Whether a part began, and its rate per second, when this many are done."""
        begun = done < self.done or self.done == self.total
        if begun:
            self.start = self.last
        self.done, self.total, self.last = done, total, time.perf_counter()
        return begun, done / max(self.last - self.start, 1e-9)


@contextmanager
def progress_bar(task: str, quiet: bool, unit: str = "images") -> Iterator[Callable[..., None]]:
    """A bar on a terminal, a line every tenth elsewhere; counting may begin again, as for each rung of a ladder."""
    if quiet:
        yield lambda done, total, name="": None
        return
    pace = _Pace()
    if not sys.stderr.isatty():
        tenth = -1

        def line(done: int, total: int, name: str = "") -> None:
            nonlocal tenth
            begun, rate = pace.at(done, total)
            now = 10 * done // max(total, 1)
            if (now > tenth or begun) and total:
                tenth = now
                say(f"{task}: {done} of {total} {unit}, {rate:.1f} {unit}/s{f' ({name})' if name else ''}")

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]:.1f}} {unit}/s", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}", markup=False),
    )
    with Progress(*columns, console=_console(err=True), transient=True) as bar:
        shown = bar.add_task(task, total=None, rate=0.0, name="")

        def update(done: int, total: int, name: str = "") -> None:
            begun, rate = pace.at(done, total)
            if begun:  # or the time that remains would be that of all parts
                bar.reset(shown, total=total)
            bar.update(shown, completed=done, total=total, rate=rate, name=clean(name))

        yield update
