"""What commands print: lines, JSON, tables and progress, readable on any terminal.

Names of files and classes come from outside. They never reach the terminal as control characters or as markup.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

from ball_features.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

__all__ = ["clean", "echo", "print_json", "progress_bar", "require_written", "say", "show", "steady_streams", "width"]


def clean(text: str) -> str:
    """A text whose control characters are escapes (ESC a backslash and x1b), and whose outputs have their addresses."""
    from ball_features.config.paths import spoken
    from ball_features.files import escaped_controls

    return escaped_controls(spoken(text), kept="\t\n")


def _line(text: str) -> str:
    """A message as one line, and those of a list below it, which are indented: no name in it begins another."""
    return "\n  ".join(clean(part).replace("\n", r"\n").replace("\t", r"\t") for part in text.split("\n  "))


class _Steady(io.RawIOBase):
    """Bytes to a file descriptor; from the first that cannot be written on they are dropped.

    A reader that has left and a disk that is full then end no command before its work is kept.

    Attributes:
        failure: why bytes were dropped, if the reader has not merely left.
    """

    def __init__(self, number: int):
        super().__init__()
        self._number, self._open, self.failure = number, True, ""

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if self._open:
            try:
                return os.write(self._number, data)
            except BrokenPipeError:
                self._open = False
            except OSError as error:
                self._open, self.failure = False, error.strerror or "unknown error"
        return len(data)


def steady_streams() -> Callable[[], str]:
    """Let no standard stream end a command: not a closed or full one, and no character that its encoding lacks.

    Returns:
        Function that says why the results could not be written to standard output, or "".
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # or the next file to be opened takes its place
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor, `number`
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)
    out, err = (_steady(stream, number) for number, stream in ((1, sys.stdout), (2, sys.stderr)))
    sys.stdout, sys.stderr = out, err

    def failure() -> str:
        with contextlib.suppress(OSError, ValueError):
            out.flush()
        raw = getattr(getattr(out, "buffer", None), "raw", None)
        return raw.failure if isinstance(raw, _Steady) else ""

    return failure


def _steady(stream: TextIO | None, number: int) -> TextIO:
    """A standard stream over `_Steady`, of the same encoding; another stream, and a console of Windows, as it is."""
    if stream is None:
        return open(number, "w", encoding="utf-8", closefd=False)
    if type(stream) is not io.TextIOWrapper:  # not one that a test or a program has put there
        return stream
    if os.name == "nt":
        stream.reconfigure(errors="backslashreplace")
        return stream
    stream.flush()
    raw = io.BufferedWriter(_Steady(number))
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=stream.line_buffering)


def echo(line: str) -> None:
    """One line of the result, on standard output."""
    typer.echo(_line(line))


def say(line: str) -> None:
    """One line about the work, on standard error, without keys of addresses."""
    from ball_features.config.paths import without_keys

    typer.echo(_line(without_keys(line)), err=True)


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


def require_written(unwritten: Sequence[str]) -> None:
    """Raise `DataError` for files of a result that could not be written, once the result is shown."""
    if unwritten:
        raise DataError(" ".join(unwritten))


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
