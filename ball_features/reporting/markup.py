"""What pages are made of: the frame, tables that sort, thumbnails."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ball_features.dataset.decode import decode
from ball_features.errors import DataError, ImageError
from ball_features.reporting.figures import PALETTE, STYLES, thumbnail

__all__ = ["Html", "Thumbnails", "frame", "sortable", "write_page"]


class Html(str):
    """Text of a cell that is markup already."""


class Thumbnails:
    """Small pictures of images by their ids, or none where no folder was given."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._made: dict[str, str] = {}

    def address(self, path: str, side_px: int = 72) -> str:
        """Data address, or "" where there is no such file."""
        if self.folder is None:
            return ""
        if path not in self._made:
            try:
                pixels = decode(self.folder / path).permute(1, 2, 0).numpy()
                self._made[path] = thumbnail(pixels, side_px)
            except ImageError:
                self._made[path] = ""
        return self._made[path]

    def named(self, path: str) -> str:
        """The picture, where there is one, and the name."""
        found = self.address(path)
        text = html.escape(path)
        return Html(f'<span class="named"><img src="{found}" alt=""><br>{text}</span>' if found else text)


def frame(title: str, style: str, parts: Sequence[str]) -> str:
    """A whole page: its title, its style sheet, and what stands in its body, as markup."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def write_page(out: Path, title: str, parts: Sequence[str]) -> Path:
    """Frame the parts of a page, with style and script, and write it.

    Raises:
        DataError: It cannot be written.
    """
    here = resources.files("ball_features.reporting")
    style, script = (here.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    script = script.replace("PALETTE", json.dumps(PALETTE)).replace("STYLES", str(STYLES))
    page = frame(title, style, [*parts, f"<script>{script}</script>"])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror}). Give another --out.") from error
    return out


def sortable(
    header: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, Any]]]], text: int, *, wrapped: int = -1
) -> str:
    """A table that sorts by a click on a heading.

    Args:
        header: Of the columns.
        rows: (class of the row, (what is shown, a number to sort by or None) a cell).
        text: So many columns are text, and stand to the left.
        wrapped: Number of a column of text that may be long, and is broken; -1 for none.
    """

    def kind_of(place: int) -> str:
        return ' class="text wrap"' if place == wrapped else " class=text" if place < text else ""

    head = "".join(
        f'<th scope="col"{kind_of(place)}><button type="button">{html.escape(name)}</button></th>'
        for place, name in enumerate(header)
    )
    body = "".join(
        f'<tr class="{kind}">'
        + "".join(
            f"<td{kind_of(place)}"
            + (f' data-v="{value}"' if isinstance(value, float) else "")
            + f">{shown if isinstance(shown, Html) else html.escape(shown)}</td>"
            for place, (shown, value) in enumerate(cells)
        )
        + "</tr>"
        for kind, cells in rows
    )
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
