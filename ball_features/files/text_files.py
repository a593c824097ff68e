"""Tables and JSON as `ball` writes them."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ball_features.files.plain import open_plain
from ball_features.files.replacement import replacing

__all__ = [
    "IMAGE_SUFFIXES",
    "escaped_controls",
    "is_plain_name",
    "joined_names",
    "json_text",
    "plain_cell",
    "read_csv",
    "safe_cell",
    "write_cells",
    "write_csv",
    "write_json",
    "write_text",
]

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .tif .tiff .webp .gif .jp2 .j2k .j2c .jpc .jpx .jpf .mpo .avif".split()
    + ".ppm .pgm .pbm .pnm .tga .pcx .qoi".split()
)

# A spreadsheet runs a cell that begins so as a formula (OWASP, CSV injection); further apostrophes keep it reversible.
_STARTS = "[=+\\-@\\t\\r\\n\uff0b\uff0d\uff1d\uff20]"  # the last four are the signs in full width
# Where a cell begins, and what begins one to a program that takes semicolons, tabs or ends of lines for separators.
_BEGINS = "(^|[;\\t\\r\\n])"
_FORMULA, _ESCAPED = (re.compile(f"{_BEGINS}{sign}(?='*\"*{_STARTS})") for sign in ("", "'"))
_STYLES = (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
# Control characters, those that set the direction of text, and those that nobody sees.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]")
# How a cell has them. Braces tell it from text with escapes of other kinds, and a folder of Windows called x10.
_HEX = re.compile(r"\\x\{([0-9a-f]{1,4})\}")
_HELD = re.compile(rf"{_CONTROL.pattern}|\\(?=x\{{[0-9a-f]{{1,4}}\}})")
_LONGEST_NAME = 100  # of 255, with what stands before and after it
_NUMBER = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)")


def escaped_controls(text: str, kept: str = "") -> str:
    """A text whose control characters, but for those kept, are written as escapes: ESC as a backslash and x1b."""
    return _CONTROL.sub(
        lambda found: found[0] if found[0] in kept else found[0].encode("unicode_escape").decode(), text
    )


def joined_names(names: Iterable[str]) -> str:
    """Names in one cell, with | between them; a | within a name is written as a backslash and x{7c}."""
    return "|".join(name.replace("|", r"\x{7c}") for name in names)


def is_plain_name(name: str) -> bool:
    """Whether a text can be part of the name of a file: one line of at most 100 bytes, without slashes and controls."""
    return (
        bool(name.strip())
        and Path(name).name == name != ".."
        and escaped_controls(name) == name
        and not any("\ud800" <= letter <= "\udfff" for letter in name)  # bytes that are not UTF-8
        and len(os.fsencode(name)) <= _LONGEST_NAME
    )


def safe_cell(value: Any) -> Any:
    """A cell for a CSV file: text that a spreadsheet would run as a formula gets an apostrophe before it.

    Text after a semicolon within a cell gets one too: a program with other separators begins a cell there. Control
    characters, which a terminal that shows the file would obey, are written as numbers: ESC as a backslash and x{1b}.
    Numbers are left as they are, also those written as text.
    """
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return _FORMULA.sub(r"\1'", _HELD.sub(lambda found: f"\\x{{{ord(found[0]):x}}}", value))
    return value


def plain_cell(text: str) -> str:
    """The text that `safe_cell` was given; earlier versions left control characters as they are."""
    return _HEX.sub(_held, _ESCAPED.sub(r"\1", text))


def _held(found: re.Match[str]) -> str:
    """The character that a number stands for, or the number, where `safe_cell` writes none."""
    character = chr(int(found[1], 16))
    return character if character == "\\" or _CONTROL.match(character) else found[0]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table with full precision by `replacing`; text cells pass through `safe_cell`."""
    write_cells(path, ([safe_cell(value) for value in row] for row in itertools.chain([header], rows)))


def write_cells(
    path: Path, rows: Iterable[Sequence[Any]], separator: str = ",", encoding: str = "utf-8", above: str = ""
) -> None:
    """Write a table by `replacing`, its cells as they are, so that they are read again.

    Args:
        path: CSV file.
        rows: the header and the rows.
        separator: separator of the cells.
        encoding: encoding, which must have all characters of the cells.
        above: text before the header, with its line break.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding=encoding) as file:
        file.write(above)
        usual, quoting = (
            csv.writer(file, delimiter=separator, lineterminator="\n", quoting=style) for style in _STYLES
        )
        for cells in rows:
            # Python before 3.13 leaves a carriage return unquoted, and then refuses to read it.
            returned = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            (quoting if returned else usual).writerow(cells)


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a table that `write_csv` wrote: name of the column -> text.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such table, or a cell has more than 131,072 characters.
    """
    with io.TextIOWrapper(open_plain(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = [plain_cell(name) for name in next(reader, [])]
            for cells in reader:
                if cells:
                    yield dict(zip(header, map(plain_cell, cells), strict=False))
        except csv.Error as error:
            raise ValueError(f"{path.name}: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text by `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON by `replacing`; a value that is not a finite number becomes null."""
    write_text(path, json_text(values) + "\n")


def json_text(values: Any) -> str:
    """Values as JSON; NaN and infinities become null, paths and other objects their text."""
    return json.dumps(_plain(values), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Values that JSON knows; a record gives its `to_dict`."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
