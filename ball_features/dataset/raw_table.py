"""A table of text, and the text of cells that come as numbers, dates or truth values."""

from __future__ import annotations

import datetime
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["RawTable", "cell_text", "clean_text", "from_columns"]


@dataclass(frozen=True)
class RawTable:
    """A table of text.

    Attributes:
        source: name of the table for messages.
        rows: cells, the header not yet told from the rest; blank rows are left out.
        lines: number of the line of each row in the file, from 1.
        closed: whether the file ends with a line break, so that its last row cannot be cut.
        remarks: what was decided while reading.
        separator: separator of a table in text; "" for other kinds.
        encoding: encoding of a table in text, "utf-8-sig" with a byte order mark.
        name: name of the file without its ending, or of the worksheet where there are several; "" for a data frame.
        above: line above the header that names the separator, with its line break; "" where there is none.
    """

    source: str
    rows: list[list[str]]
    lines: list[int]
    closed: bool = True
    remarks: tuple[str, ...] = ()
    separator: str = ""
    encoding: str = "utf-8"
    name: str = ""
    above: str = ""


def from_columns(source: str, header: Sequence[str], columns: Sequence[Sequence[Any]]) -> RawTable:
    """A table of columns of equal length; blank rows are left out."""
    texts = [[cell_text(value) for value in column] for column in columns]
    rows = [list(row) for row in zip(*texts, strict=True)]
    kept = [number for number, row in enumerate(rows) if any(row)]
    return RawTable(source, [list(header), *(rows[number] for number in kept)], [1, *(n + 2 for n in kept)])


def cell_text(value: Any) -> str:
    """The text of a cell: a whole number without its decimals, a date by ISO 8601, "" of what is missing."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    value = value.item() if hasattr(value, "item") else value  # NumPy scalars
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return clean_text(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def clean_text(text: str) -> str:
    """Text without blanks around, and in one Unicode form; spreadsheets and the web bring blanks that do not break."""
    text = text.strip(" \t\r\n\v\f\u00a0\ufeff\u200b\u2007\u202f")
    return text if text.isascii() else unicodedata.normalize("NFC", text)
