"""Explanations below tables in a terminal, which are left out where only results are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

__all__ = ["Caption", "without_captions"]


@dataclass(frozen=True)
class Caption:
    """How to read the table above: no result.

    Attributes:
        text: explanation.
    """

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the text, fainter than the table."""
        from rich.text import Text

        yield Text(self.text, style="dim")


def without_captions(renderable: RenderableType) -> RenderableType:
    """Return the same without its captions."""
    from rich.console import Group

    if not isinstance(renderable, Group):
        return renderable
    return Group(*(without_captions(own) for own in renderable.renderables if not isinstance(own, Caption)))
