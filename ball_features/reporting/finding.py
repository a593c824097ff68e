"""One finding of a verdict, and the command to run next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ball_features.config.paths import as_word
from ball_features.files import escaped_controls

__all__ = ["SEVERITIES", "Command", "Finding", "Severity"]

Severity = Literal["serious", "warning", "note", "good"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note", "good")


@dataclass(frozen=True)
class Command:
    """A command to run next.

    Attributes:
        name: command of `ball`, such as "fit".
        words: positional arguments; capitals stand for what only the user knows, such as IMAGES.
        options: setting -> value; True is a switch.
    """

    name: str
    words: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Spell the command as a shell takes it."""
        parts = ["ball", self.name, *map(as_word, self.words)]
        for name, value in self.options.items():
            flag = f"--{name.replace('_', '-')}"
            parts += [flag] if value is True else [f"{flag}={value}"] if str(value)[:1] == "-" else [flag, str(value)]
        return shlex.join(parts)


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of the figures should know.

    Attributes:
        code: identifier that `docs/verdict.md` explains.
        severity: "serious" (do not quote the score as it stands), "warning", "note" or "good".
        numbers: figures that the sentence rests on; shares are shares, not percentages.
        sentence: plain statement for a reader who does not know the tool, in one line: control characters of names in
            it are written as escapes.
        next: command to run next, or "".
    """

    code: str
    severity: Severity
    numbers: Mapping[str, Any]
    sentence: str
    next: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentence", escaped_controls(self.sentence))
