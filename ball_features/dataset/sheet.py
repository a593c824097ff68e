"""The user's sheet: a row for each image with its class, patient, site, split and group, and whatever else it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.config import CollectionConfig
from ball_features.dataset.matching import Match, match_rows
from ball_features.dataset.remarks import some
from ball_features.dataset.sheet_cells import flagged_split, known_column, require_one_spelling
from ball_features.dataset.sheet_columns import ROLES, Roles, find_roles, plain_name
from ball_features.dataset.sheet_formats import RawTable, read_frame, read_tables
from ball_features.dataset.sources import open_file
from ball_features.errors import DataError

__all__ = ["Sheet", "SheetRows", "read_sheet"]

_HEADER_ROWS = 10  # rows among which the header is looked for


@dataclass(frozen=True)
class Sheet:
    """A table with a row for each image.

    Attributes:
        source: name of the table for messages.
        paths: candidates for the names of the images, in order of preference: heading -> text of each row.
        columns: other columns: name -> text of each row; "" where a cell is empty. A column that `ball` knows has its
            usual name: label, patient, site, split, group.
        headings: the known columns: name -> heading in the file.
        lines: line of each row in the file.
        remarks: what was decided while reading.
    """

    source: str
    paths: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]]
    headings: Mapping[str, str]
    lines: tuple[int, ...]
    remarks: tuple[str, ...] = ()

    def rows_of(self, files: Sequence[str]) -> SheetRows:
        """Match the rows with files.

        Args:
            files: paths of the images, relative, with forward slashes.

        Raises:
            DataError: No row matches a file, or two rows that differ match the same file.
        """
        heading, match = max(
            ((name, match_rows(cells, files)) for name, cells in self.paths.items()),
            key=lambda item: sum(map(bool, item[1].rows)),
        )
        if not self.lines:
            raise DataError(f"{self.source} has a header and no row, expected a row for each image.")
        if not any(match.rows) and match.ambiguous:
            row, own = next(iter(match.ambiguous.items()))
            raise DataError(
                f"{self.source} names no image alone: {heading} is {self.paths[heading][row]!r} in line "
                f"{self.lines[row]}, which may be {some([files[number] for number in own], 3)}. Write paths with the "
                "folders that tell them apart."
            )
        if not any(match.rows):
            cell = next(iter(self.paths[heading]), "")
            raise DataError(
                f"None of the {len(self.lines)} rows of {self.source} matches one of the {len(files)} images: "
                f"{heading} is {cell!r} in line {next(iter(self.lines), 1)}, and the first image is "
                f"{next(iter(files), '')!r}. Give the folder that the paths begin in, or name the column of the images "
                "by path_column."
            )
        chosen = [self._one_row(rows, files[number]) for number, rows in enumerate(match.rows)]
        columns = {
            name: tuple(cells[row] if row >= 0 else "" for row in chosen)
            for name, cells in self._columns_beside(heading).items()
        }
        return SheetRows(columns, tuple(row >= 0 for row in chosen), heading, self._remarks(match, heading, files))

    def _columns_beside(self, heading: str) -> dict[str, tuple[str, ...]]:
        others = {name: cells for name, cells in self.paths.items() if name != heading and name not in self.columns}
        return {**self.columns, **others}

    def _one_row(self, rows: Sequence[int], file: str) -> int:
        for row in rows[1:]:
            for name, cells in self.columns.items():
                if cells[row] != cells[rows[0]]:
                    raise DataError(
                        f"{self.source} lists {file} twice, in lines {self.lines[rows[0]]} and {self.lines[row]}, with "
                        f"{name} {cells[rows[0]]!r} and {cells[row]!r}. Keep one row per image."
                    )
        return rows[0] if rows else -1

    def _remarks(self, match: Match, heading: str, files: Sequence[str]) -> tuple[str, ...]:
        cells = self.paths[heading]
        found = sum(map(bool, match.rows))
        remarks = []
        if match.missing:
            names = [f"{cells[row] or '(empty)'} in line {self.lines[row]}" for row in match.missing]
            remarks.append(f"{_count(names, 'row')} of {self.source} {_match(names)} no image: {some(names)}.")
        if match.ambiguous:
            names = [
                f"{cells[row]} in line {self.lines[row]} ({some([files[number] for number in own], 3)})"
                for row, own in match.ambiguous.items()
            ]
            remarks.append(
                f"{_count(names, 'row')} of {self.source} {_match(names)} several images, and none is taken: "
                f"{some(names, 3)}."
            )
        repeated = sum(len(rows) - 1 for rows in match.rows if rows)
        if repeated:
            remarks.append(f"{repeated} rows of {self.source} repeat another and are left out.")
        if found < len(files):
            names = [files[number] for number, rows in enumerate(match.rows) if not rows]
            verb = "has" if len(names) == 1 else "have"
            remarks.append(f"{_count(names, 'image')} {verb} no row in {self.source}: {some(names)}.")
        return tuple(remarks)


@dataclass(frozen=True)
class SheetRows:
    """A sheet in the order of images.

    Attributes:
        columns: name -> text of each image; "" for an image without a row.
        listed: whether each image has a row.
        heading: heading of the column that names the images.
        remarks: rows and images that do not match, counted and named.
    """

    columns: dict[str, tuple[str, ...]]
    listed: tuple[bool, ...]
    heading: str
    remarks: tuple[str, ...]


def read_sheet(sheet: Path | str | Any, columns: CollectionConfig | None = None) -> Sheet:
    """Read a sheet.

    Args:
        sheet: path or address of a .csv (any separator, and UTF-8, UTF-16, Windows-1252 or Latin-1), .tsv, .xlsx,
            .xls, .ods or .parquet file; or a pandas or polars data frame, or a mapping of column names to lists.
        columns: names of its columns; by default they are found by their usual names.

    Raises:
        DataError: The table cannot be read, a column is missing or there twice, or a column of ids has one number in
            two spellings, such as 1 and 01.
    """
    columns = columns or CollectionConfig()
    if isinstance(sheet, Sheet):
        return sheet
    tables = read_tables(open_file(sheet)) if isinstance(sheet, str | Path) else [read_frame(sheet)]
    first: DataError | None = None
    found: list[Sheet] = []
    for table in tables:  # of several worksheets the first that names images
        try:
            found.append(_sheet(table, columns))
        except DataError as error:
            first = first or error
    for other in found[1:]:
        if set(other.headings) == set(found[0].headings) and set(other.paths) == set(found[0].paths):
            raise DataError(
                f"{found[0].source} and {other.source} have the same columns. Two readings are possible: the rows of "
                "both, or those of one. Keep one worksheet in the file, with all rows that are meant."
            )
    if found:
        return found[0]
    raise first or DataError(f"{sheet} holds no table, expected a header and a row for each image.")


def _sheet(table: RawTable, columns: CollectionConfig) -> Sheet:
    if not table.rows:
        raise DataError(f"{table.source} is empty, expected a header and a row for each image.")
    begin, roles = _header(table, columns)
    header = table.rows[begin]
    body, lines, remarks = _body(table, begin)
    _require_once(header, table, begin, body)
    texts = [tuple(row[number] for row in body) for number in range(len(header))]
    named: dict[str, tuple[str, ...]] = {}
    remarks += roles.remarks
    for role in ROLES[1:]:
        if role in roles.place:
            named[role] = known_column(role, texts[roles.place[role]], lines, table, remarks)
    if "split" not in named and columns.split_column != "none":
        named |= flagged_split(header, texts, table, remarks)
    taken = {roles.place[role] for role in named if role in roles.place} | {*roles.paths}
    for number, name in enumerate(header):
        if number not in taken and (name or any(texts[number])):
            own = name or f"column {number + 1}"
            named[own if own not in named else f"{own} (column {number + 1})"] = texts[number]
    for name in ("series", "batch", "block"):
        if name in named:
            require_one_spelling(name, named[name], lines, table)
    if begin:
        remarks.append(f"The header of {table.source} is taken from line {table.lines[begin]}.")
    return Sheet(
        source=table.source,
        paths={header[number]: texts[number] for number in roles.paths},
        columns=named,
        headings={role: header[number] for role, number in roles.place.items() if role in named},
        lines=tuple(lines),
        remarks=(*table.remarks, *remarks),
    )


def _header(table: RawTable, columns: CollectionConfig) -> tuple[int, Roles]:
    """The row of the header, and the roles of its columns: the first that names most of the known columns."""
    first: DataError | None = None
    found: list[tuple[int, Roles]] = []
    for number, row in enumerate(table.rows[:_HEADER_ROWS]):
        if number and sum(map(bool, row)) < 2:
            continue
        try:
            found.append((number, find_roles(row, columns, table.source)))
        except DataError as error:
            first = first or error
            if "none of which" not in str(error):
                break
    if not found:
        assert first is not None
        raise first
    return max(found, key=lambda own: (len(own[1].place), -own[0]))


def _body(table: RawTable, begin: int) -> tuple[list[list[str]], list[int], list[str]]:
    """Rows below the header, as wide as it."""
    width = len(table.rows[begin])
    body, lines, short = [], [], []
    for row, line in zip(table.rows[begin + 1 :], table.lines[begin + 1 :], strict=True):
        if any(row[width:]):
            raise DataError(
                f"{table.source}, line {line}: {len(row)} cells, expected {width} as in the header. Put quotes around "
                "a cell that holds the separator."
            )
        if len(row) < width:
            short.append(line)
        body.append((row + [""] * width)[:width])
        lines.append(line)
    if short and short[-1] == lines[-1] and not table.closed:
        raise DataError(
            f"{table.source}, line {short[-1]}, the last, ends early. The file seems to be cut; write it again."
        )
    remarks = [f"{_count(short, 'row')} of {table.source} end early (first: line {short[0]})."] if short else []
    return body, lines, remarks


def _require_once(header: Sequence[str], table: RawTable, begin: int, body: list[list[str]]) -> None:
    seen: dict[str, int] = {}
    for number, name in enumerate(header):
        key = plain_name(name) or name
        if key in seen and name:
            other = seen[key]
            raise DataError(
                f"{table.source}, line {table.lines[begin]}: the column {name!r} is there twice, as number "
                f"{other + 1} and as number {number + 1}. Rename one, or leave it out."
            )
        seen[key] = number


def _count(items: Sequence[Any], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _match(items: Sequence[Any]) -> str:
    return "matches" if len(items) == 1 else "match"
