"""Tables as they come: CSV of any separator and encoding, JSON, spreadsheets, Parquet, data frames; every cell is text.

No type is guessed: a patient called 01 stays 01. A number of a spreadsheet or a frame is written as short as it can be,
so that 1.0 is 1.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from ball_features.dataset.contained import contained
from ball_features.dataset.raw_table import RawTable, arrow_values, from_columns, trimmed, unread_remarks
from ball_features.dataset.sheet_json import read_json
from ball_features.dataset.sources import Member
from ball_features.errors import DataError, require_extra
from ball_features.files import plain_cell

__all__ = ["GUESSED", "MOST_BYTES", "keeps_encoding", "read_frame", "read_tables"]

# Encodings of two bytes, each with its everyday characters: kana, marks and the first level of ideographs.
_WIDE = {
    "cp932": re.compile(rb"\x81[\x40-\xac]|\x82[\x4f-\xf1]|\x83[\x40-\x96]|[\x88-\x97][\x40-\x7e\x80-\xfc]"),
    "gb18030": re.compile(rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]"),
}
# What a letter with an accent, or a quotation mark, and the letter after it are not.
_NO_LETTER = re.compile(rb"[\x80-\xff]{2}|[\x81\x82\x88\x89\x8b\x8d\x8f\x90].")
_EVERYDAY, _CERTAIN = 0.7, 0.125  # shares of the characters
GUESSED = ("mac-roman", "cp1252", "latin-1", *_WIDE)  # encodings that text of any other may be taken for

_SEPARATORS = (",", ";", "\t", "|")
_PROBED = 50  # records that the separator is told by
_MAC_LETTER = re.compile(rb"[A-Za-z][\x87-\x90\x98\x9a-\x9f](?:[a-z]|\b)")
_LOOKED_AT = 10_000  # records, blank ones too, among which those are
MOST_BYTES = 1 << 30
_EXPECTED = "Expected a table: .csv, .tsv, .xlsx, .xls, .ods, .parquet, .json or .jsonl."
_SPREADSHEET = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


def read_tables(path: Path | Member, *, as_is: bool = False) -> list[RawTable]:
    """Read a file into its tables: one, or one for each worksheet of a spreadsheet.

    Args:
        path: the file, from `sources.open_file` where it may lie under an address.
        as_is: leave the cells of a table in text as they stand in it: blanks, forms of Unicode, apostrophes.

    Raises:
        DataError: The file cannot be read, or is no table.
        MissingExtraError: It is a Parquet file and pyarrow is not installed.
    """
    try:
        with path.open("rb") as file:  # which may be a pipe
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"No groups file or sheet can be read at {path} ({error.strerror}). {_EXPECTED}") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{path} has more than {MOST_BYTES / 1e6:.0f} MB, the most for a sheet. Give a smaller table.")
    if data.startswith(b"PAR1"):
        return [replace(_parquet(path, data), name=_stem(path))]
    if data.startswith(_SPREADSHEET):
        return _worksheets(path, data)
    return [replace(_in_text(path, data, as_is), name=_stem(path))]


def _stem(path: Path | Member) -> str:
    return PurePath(path.name).stem


def _in_text(path: Path | Member, data: bytes, as_is: bool) -> RawTable:
    text, encoding = _decoded(path, data)
    start = text.lstrip("\ufeff \t\r\n")[:1]
    if start == "<":
        raise DataError(f"{path} seems to be HTML or XML, expected a table: .csv, .tsv, .xlsx, .json or .parquet.")
    if start in ("{", "["):
        return replace(read_json(str(path), text.lstrip("\ufeff")), encoding=encoding)
    return _delimited(path, data, text, encoding, as_is)


def _delimited(path: Path | Member, data: bytes, text: str, encoding: str, as_is: bool) -> RawTable:
    told = f"{path.name} is read as {encoding}; save it as UTF-8 where letters in it are wrong."
    remarks = () if encoding == "utf-8" else (told,)
    first, _, rest = text.partition("\n")
    skipped, above = 0, ""
    if first.strip().lower().startswith("sep=") and len(first.strip()) <= 5:  # a line of Excel's
        text, skipped, above = rest, 1, f"{first}\n"
    separator = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, lines = [], []
    try:
        for cells in reader:
            own = [plain_cell(trimmed(cell)) for cell in cells]
            if any(own):
                rows.append(cells if as_is else own)
                lines.append(reader.line_num + skipped)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num + skipped}: {error}. Put quotes around cells that hold the separator or a "
            "line break, and double the quotes inside."
        ) from error
    mark = "-sig" if data.startswith(b"\xef\xbb\xbf") else ""
    closed = text.endswith(("\n", "\r"))
    return RawTable(str(path), rows, lines, closed, remarks, separator, encoding + mark, above=above)


def keeps_encoding(path: Path, text: str, encoding: str) -> bool:
    """Whether a text that is added to a table in a guessed encoding can be written in it, and the guess stays."""
    try:
        return _decoded(path, path.read_bytes() + b"\n" + text.encode(encoding))[1] == encoding
    except (UnicodeEncodeError, DataError):
        return False


def _decoded(path: Path | Member, data: bytes) -> tuple[str, str]:
    """(text, name of the encoding); "utf-8" also of ASCII and of UTF-8 with a byte order mark."""
    marks = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"))
    marks += ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
    for mark, name in marks:
        if data.startswith(mark):
            return _try(path, data.removeprefix(mark) if name == "utf-8" else data, (name,))
    head = data[:4096]
    if b"\0" in head:
        odd, even = head[1::2].count(0), head[::2].count(0)
        return _try(path, data, ("utf-16-le",) if odd > even else ("utf-16-be",))
    return _try(path, data, ("utf-8", "mac-roman") if _is_mac(data) else ("utf-8", *_wide(data), "cp1252", "latin-1"))


def _wide(data: bytes) -> list[str]:
    """Encodings of two bytes in which a text seems to be, to the byte, since a table is extended in its own."""
    found = {}
    for name, everyday in _WIDE.items():
        with contextlib.suppress(UnicodeError):
            text = data.decode(name)
            wide = max(len(data) - len(text), 1)
            hits = everyday.findall(data)
            certain = sum(bool(_NO_LETTER.match(own)) for own in hits)
            if text.encode(name) == data and len(hits) >= _EVERYDAY * wide and certain >= _CERTAIN * wide:
                found[name] = len(hits) / wide
    return sorted(found, key=lambda name: -found[name])


def _is_mac(data: bytes) -> bool:
    """Whether letters beyond ASCII are those of Excel on a Mac; Windows-1252 has marks in their place."""
    high = {byte for byte in data if byte > 127}
    return bool(high) and max(high) < 0xA0 and bool(_MAC_LETTER.search(data))


def _try(path: Path | Member, data: bytes, names: tuple[str, ...]) -> tuple[str, str]:
    for name in names:
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, name.removesuffix("-le").removesuffix("-be")
    raise DataError(f"{path} is no table: it holds bytes that are no text. {_EXPECTED}")


def _separator(text: str) -> str:
    """The separator by which the first records have most often as many cells as the header."""

    def score(separator: str) -> tuple[float, int]:
        counts = []
        try:
            records = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
            for cells in itertools.islice(records, _LOOKED_AT):
                filled = [number for number, cell in enumerate(cells) if cell.strip()]
                if filled:
                    counts.append((len(cells), filled[-1] + 1))
                if len(counts) > _PROBED:
                    break
        except csv.Error:
            return 0.0, 0
        table = list(itertools.dropwhile(lambda own: own[1] < 2, counts))  # without a title above the header
        if not table:
            return 0.0, 0
        width = table[0][0]
        return sum(1 < own <= width for _, own in table) / len(counts), width

    best = max(_SEPARATORS, key=score)
    return best if score(best)[1] else ","


def _worksheets(path: Path | Member, data: bytes) -> list[RawTable]:
    try:
        sheets = contained("worksheets", data)
    except ValueError as error:
        raise DataError(
            f"{path} cannot be read as a spreadsheet ({error}). Save it again as .xlsx, or as .csv."
        ) from error
    found = []
    for name, cells, _ in sheets:
        filled = [number for number, row in enumerate(cells) if any(row)]
        source = f"{path} ({name})" if len(sheets) > 1 else str(path)
        rows, lines = [cells[number] for number in filled], [number + 1 for number in filled]
        found.append(RawTable(source, rows, lines, name=name if len(sheets) > 1 else _stem(path)))
    return found


def _parquet(path: Path | Member, data: bytes) -> RawTable:
    require_extra("pyarrow", "parquet", "A sheet in Parquet")
    try:
        ((_, rows, unread),) = contained("parquet", data)
    except ValueError as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}). Write it again, or as .csv.") from error
    kept = [number for number, row in enumerate(rows) if not number or any(row)]
    remarks = unread_remarks(str(path), unread)
    cells, lines = [rows[number] for number in kept], [number + 1 for number in kept]
    return RawTable(str(path), cells, lines, remarks=remarks, unread=unread)


def read_frame(frame: Any) -> RawTable:
    """A pandas or polars data frame, a pyarrow table, or a mapping of column names to sequences.

    Raises:
        DataError: It is none of these, or has a column twice.
    """
    source = "the data frame"
    if isinstance(frame, Mapping):
        columns = {str(name): _values(column) for name, column in frame.items()}
        if len(set(map(len, columns.values()))) > 1:
            lengths = ", ".join(f"{name} {len(cells)}" for name, cells in columns.items())
            raise DataError(f"The columns have different numbers of cells ({lengths}), expected one for each row.")
        return from_columns(source, [*columns], [*columns.values()])
    names = list(getattr(frame, "column_names", getattr(frame, "columns", ())))
    if not names or not hasattr(frame, "__getitem__"):
        raise DataError(
            f"Got a sheet of type {type(frame).__name__}, expected a path, a pandas or polars data frame, or a mapping "
            "of column names to lists."
        )
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"The data frame has the column {twice[0]!r} twice. Rename one, or leave it out.")
    header, columns = [str(name) for name in names], [_values(frame[name]) for name in names]
    index = getattr(frame, "index", None)  # of pandas; where it has a name it is a column like others
    if index is not None and getattr(index, "name", None):
        header, columns = [str(index.name), *header], [_values(index), *columns]
    return from_columns(source, header, columns)


def _values(column: Any) -> list[Any]:
    if hasattr(column, "to_pylist"):
        return arrow_values(column)
    if hasattr(column, "to_list"):
        return column.to_list()
    if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__iter__"):
        raise DataError(f"A column of the data frame is {type(column).__name__}, expected a list of cells.")
    return list(column)
