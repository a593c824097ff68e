"""A table of text, and the text of cells that come as numbers, dates or truth values."""

from __future__ import annotations

import datetime
import decimal
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ball_features.errors import DataError

__all__ = [
    "NESTED",
    "RawTable",
    "arrow_values",
    "as_text",
    "cell_text",
    "clean_text",
    "from_columns",
    "trimmed",
    "unread_remarks",
]

NESTED, NO_TEXT = "lists or records", "bytes that are no text"  # why a column is not read
_MOST_DIGITS = 1000
_PLAIN = (str, int, float, type(None))


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
        unread: heading of a column whose cells are no text -> what they are; it is not among the rows.
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
    unread: Mapping[str, str] = field(default_factory=dict)


def from_columns(
    source: str, header: Sequence[str], columns: Sequence[Sequence[Any]], lines: Sequence[int] = ()
) -> RawTable:
    """A table of columns of equal length; blank rows are left out, and columns whose cells are no text.

    Args:
        source: name of the table for messages.
        header: headings.
        columns: cells of each column.
        lines: number of the line of each row; by default from 2.
    """
    names, texts, unread = as_text(header, columns)
    rows = [list(row) for row in zip(*texts, strict=True)]
    kept = [number for number, row in enumerate(rows) if any(row)]
    own = [1, *(lines[n] if lines else n + 2 for n in kept)]
    cells = [names, *(rows[number] for number in kept)]
    return RawTable(source, cells, own, remarks=unread_remarks(source, unread), unread=unread)


def as_text(
    header: Sequence[str], columns: Iterable[Sequence[Any]]
) -> tuple[list[str], list[list[str]], dict[str, str]]:
    """Headings and texts of the columns whose cells are text, and the others: heading -> what their cells are."""
    names, texts, unread = [], [], {}
    for name, cells in zip(header, columns, strict=True):
        values = [value if isinstance(value, _PLAIN) else _single(value) for value in cells]
        if why := next((why for value in values if not isinstance(value, _PLAIN) and (why := _no_text(value))), ""):
            unread[name] = why
        else:
            names.append(name)
            texts.append([cell_text(value) for value in values])
    return names, texts, unread


def arrow_values(column: Any) -> list[Any]:
    """Python's values of a column of pyarrow; times that Python's would cut are texts."""
    if str(column.type) == "time64[ns]":
        import pyarrow as pa

        try:
            column = column.cast(pa.time64("us"))
        except pa.ArrowInvalid:
            column = column.cast(pa.string())
    return column.to_pylist()


def unread_remarks(source: str, unread: Mapping[str, str]) -> tuple[str, ...]:
    """What to say of columns that are not read."""
    listed = ", ".join(f"{name} ({why})" for name, why in unread.items())
    return (f"Columns of {source} are not read: {listed}.",) if unread else ()


def _single(value: Any) -> Any:
    """The value of a list of one, such as the labels of an image that has one."""
    if getattr(value, "ndim", 0):  # an array
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) < 2:
        return value[0] if value else None
    return value


def _no_text(value: Any) -> str:
    """What a value is that has no text of its own; "" for one that has."""
    if isinstance(value, list | tuple | set | frozenset | Mapping):
        return NESTED
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return NO_TEXT if "\0" in bytes(value).decode() else ""
        except UnicodeDecodeError:
            return NO_TEXT
    return ""


def cell_text(value: Any) -> str:
    """The text of a cell: a whole number without its decimals, a date by ISO 8601, "" of what is missing.

    Its Unicode form stays, in which names of files may differ.

    A duration is its number of seconds.
    """
    if isinstance(value, str):
        return trimmed(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("M", "m") and str(value) == "NaT":
        return ""
    if kind == "M":  # NumPy's dates, whose `item` may be a number
        day, _, moment = str(value).partition("T")
        return str(value) if moment.strip("0:.") else day
    if kind == "m":
        value = value.astype("m8[ns]").astype(float) / 1e9
    value = value.item() if hasattr(value, "item") else value  # NumPy scalars
    value = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, decimal.Decimal):
        return "" if value.is_nan() else format(value.normalize(), "f") if value else "0"
    fine = getattr(value, "nanosecond", 0)  # of pandas
    if isinstance(value, datetime.datetime) and value.time() == datetime.time() and not fine:
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        raise DataError(f"A cell holds a whole number of more than {_MOST_DIGITS} digits. Give ids as text.")
    return trimmed(bytes(value).decode() if isinstance(value, bytes | bytearray | memoryview) else str(value))


def trimmed(text: str) -> str:
    """Text without blanks around; spreadsheets and the web bring blanks that do not break."""
    return text.strip(" \t\r\n\v\f\u00a0\ufeff\u200b\u200e\u200f\u2007\u2060\u202f")


def clean_text(text: str) -> str:
    """Text without blanks around, and in one Unicode form."""
    text = trimmed(text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)
