"""Pages from templates: the environment, the frame of a page, tables that sort, thumbnails."""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.dataset.decode import decode_bytes, read_file
from ball_features.dataset.listing import list_images
from ball_features.dataset.sources import Source
from ball_features.errors import ImageError
from ball_features.files import escaped_controls, is_expected, write_text
from ball_features.outputs import require_writable
from ball_features.reporting.charts import PALETTE, PALETTE_DARK, STYLES
from ball_features.reporting.headline import beyond_headline, headline
from ball_features.reporting.layout import layout

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Environment

    from ball_features.audit.findings import Audit
    from ball_features.cache import Cache

__all__ = ["Cell", "Picture", "Row", "Table", "Thumbnails", "page", "render", "thumbnail", "write_page"]

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "·": r"\textperiodcentered{}",
}

# What may be wrong with a picture, to follow "3 pictures are".
_CHANGED = "left out: the file there is no longer the one that was {read}"
_GONE = "left out: there is no image that can be read"
_UNKNOWN = "found by name alone: the hashes of the embedded files, which a cache has, are not at hand"


@dataclass(frozen=True)
class Picture:
    """An image by its id, with the data address of its thumbnail ("" without one)."""

    path: str
    address: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: text that is shown.
        value: number to sort by; the text if None.
        pictures: images that are shown in place of the text.
    """

    text: str = ""
    value: float | None = None
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table; `kind` is its CSS class."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table that sorts by a click on a heading.

    Attributes:
        header: headings of the columns.
        rows: rows in the order in which they are first shown.
        name: name of the table for screen readers, unlike that of any other on the page.
        text: number of columns, from the left, that hold text.
        wrapped: number of a column of long text that is broken; -1 for none.
    """

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    name: str
    text: int = 1
    wrapped: int = -1

    def side(self, column: int) -> str:
        """CSS classes of a column."""
        return "text wrap" if column == self.wrapped else "text" if column < self.text else ""


class Thumbnails:
    """Small pictures of images by their ids, or none where no folder, archive or address was given.

    A file whose bytes are not those that were embedded shows nothing, since it may be of another image.

    Args:
        folder: folder, archive or address of the images; None for no pictures.
        known: a cache or an audit, which knows the hash of each file; without it nothing is compared, which `notes`
            says.
        read: what was done with these files.
    """

    def __init__(self, folder: Path | None, known: Cache | Audit | None = None, read: str = "embedded") -> None:
        self.folder, self._read, self._compared = folder, read, False
        self._made: dict[tuple[str, str], tuple[str, str]] = {}  # (id, expected hash) -> (data address, what is wrong)
        self._names = list_images(folder).images if isinstance(folder, Source) and not folder.below else []
        self._above = ""
        self._expect(known)

    def of(self, cache: Cache | None) -> Thumbnails:
        """The same pictures compared with another cache; none is read anew."""
        own = copy.copy(self)
        own._expect(cache)
        return own

    def compared(self) -> Thumbnails:
        """The same pictures, without those that no hash is known to compare with."""
        own = copy.copy(self)
        own._compared, own._made = True, {}
        return own

    def _expect(self, known: Cache | Audit | None) -> None:
        self._known: dict[str, str] = {}
        if known is not None and self.folder is not None:
            self._known = dict(zip(known.path.tolist(), known.sha256.tolist(), strict=True))
        self._wrong: dict[str, dict[str, None]] = {}  # what is wrong -> ids, in the order in which they were asked for

    def address(self, path: str, side_px: int = 72) -> str:
        """Data address, or "" where there is no such file, or another one than was embedded."""
        if self.folder is None:
            return ""
        if Path(path).is_absolute() or ".." in Path(path).parts:  # ids in a stranger's files may name any file
            return ""
        key = (path, self._known.get(path, ""))
        if self._compared and not key[1]:
            return ""
        if key not in self._made:
            pixels, wrong = self._pixels(self.folder / self._within(path), key[1])
            self._made[key] = "" if pixels is None else thumbnail(pixels, side_px), wrong
        address, wrong = self._made[key]
        self._note(path, wrong)
        return address

    def pixels(self, path: str) -> np.ndarray | None:
        """An image, uint8 (height, width, 3); None where `address` would be ""."""
        if self.folder is None:
            return None
        pixels, wrong = self._pixels(self.folder / self._within(path), self._known.get(path, ""))
        self._note(path, wrong)
        return pixels

    @staticmethod
    def _pixels(file: Path, sha256: str) -> tuple[np.ndarray | None, str]:
        """Pixels of a file with this hash ("" for any), and what is wrong with it."""
        try:
            data = read_file(file)
            if sha256 and hashlib.sha256(data).hexdigest() != sha256:
                return None, _CHANGED
            return decode_bytes(data).permute(1, 2, 0).numpy(), "" if sha256 else _UNKNOWN
        except ImageError:
            return None, _GONE

    def _note(self, path: str, wrong: str) -> None:
        if wrong:
            self._wrong.setdefault(wrong, {})[path] = None

    def notes(self) -> list[str]:
        """What a reader should know of the pictures that were asked for: those left out, those not compared."""
        found = []
        for wrong in (_CHANGED, _GONE, _UNKNOWN):
            paths = list(self._wrong.get(wrong, ()))
            if paths:
                number = "1 picture is" if len(paths) == 1 else f"{len(paths)} pictures are"
                found.append(f"{number} {wrong.format(read=self._read)} (first: {paths[0]}).")
        return found

    def _within(self, path: str) -> str:
        """The path of an id, which in an archive may lie below folders that hold nothing else."""
        if self._names:
            below = (name for name in self._names if name.endswith(f"/{path}"))
            found = path if path in self._names else next(below, path)
            self._above, self._names = found.removesuffix(path), []
        return self._above + path

    def addresses(self, paths: Sequence[str]) -> list[str]:
        """Data address of each image; an empty list where no folder was given."""
        return [] if self.folder is None else [self.address(path) for path in paths]

    def picture(self, path: str) -> Picture:
        """The image's id with its thumbnail, where there is one."""
        return Picture(path, self.address(path))


def thumbnail(pixels: np.ndarray, side_px: int = 160) -> str:
    """A small JPEG of uint8 (height, width, 3) as a data address."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def render(template: str, **context: Any) -> str:
    """Fill in a template of this package; values are escaped in HTML and SVG.

    Args:
        template: name of the file in `templates`.
        context: records that the template reads.
    """
    return _environment().get_template(template).render(context)


def page(template: str, title: str, **context: Any) -> str:
    """A whole page that needs nothing but itself: only its own style and script run, by a policy within it.

    Args:
        template: name of a template that extends `base.html`.
        title: title of the document.
        context: records that the template reads.
    """
    style = render("report.css", palette=PALETTE, dark=PALETTE_DARK)
    script = render("report.js", colours=len(PALETTE), styles=STYLES)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return render(template, title=title, style=style, script=script, policy=policy, **context)


def write_page(out: Path, template: str, title: str, *, named: bool = True, **context: Any) -> Path:
    """Write a page; arguments as `page`, and as `outputs.require_writable`.

    Raises:
        DataError: The file cannot be written, or is none of `ball`'s own pages.
    """
    if not is_expected(out):
        require_writable(out, "file for the page", kind="page", named=named)
    write_text(out, page(template, title, **context))
    return out


def _digest(text: str) -> str:
    """Hash of an inline style or script, as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _latex(text: str) -> str:
    """Text with the characters that LaTeX reads as commands escaped."""
    return "".join(_LATEX.get(character, character) for character in escaped_controls(str(text)))


def _markdown(text: str) -> str:
    """A value in Markdown: names of others bring no HTML, no links and no control characters."""
    return re.sub(r"(?<!\\)\[", r"\[", escaped_controls(text, kept="\n").replace("<", "&lt;"))


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context, select_autoescape

    @pass_context
    def finalize(context: Any, value: Any) -> Any:
        if context.name.endswith(".md"):
            return _markdown(str(value))
        return escaped_controls(value, kept="\t\n") if type(value) is str else value  # others are markup, or numbers

    environment = Environment(
        loader=PackageLoader("ball_features.reporting", "templates"),
        autoescape=select_autoescape(enabled_extensions=("html", "svg"), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    environment.globals |= {
        "layout": layout,
        "headline": headline,
        "beyond_headline": beyond_headline,
        "colours": len(PALETTE),
        "styles": STYLES,
    }
    environment.filters["latex"] = _latex
    environment.filters["cell"] = lambda value: escaped_controls(str(value)).replace("|", "/")
    return environment
