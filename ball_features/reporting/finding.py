"""One finding of a verdict, and the command to run next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
        parts = ["ball", self.name, *self.words]
        for name, value in self.options.items():
            parts.append(f"--{name.replace('_', '-')}")
            if value is not True:
                parts.append(str(value))
        return shlex.join(parts)


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of the figures should know.

    Attributes:
        code: identifier that `docs/verdict.md` explains.
        severity: "serious" (do not quote the score as it stands), "warning", "note" or "good".
        numbers: figures that the sentence rests on; shares are shares, not percentages.
        sentence: plain statement for a reader who does not know the tool.
        next: command to run next, or "".
    """

    code: str
    severity: Severity
    numbers: Mapping[str, Any]
    sentence: str
    next: str = ""
