"""The user's sheet: rows for images or for patients with class, patient, site, split and group, and whatever else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ball_features.config import CollectionConfig
from ball_features.dataset.joined_sheets import JoinedSheets, join_files, join_worksheets
from ball_features.dataset.raw_table import RawTable, clean_text
from ball_features.dataset.remarks import counted
from ball_features.dataset.sheet_cells import flagged_split, known_column, mark_classes, require_one_spelling
from ball_features.dataset.sheet_columns import (
    ROLES,
    Roles,
    filled_in,
    find_roles,
    flag_columns,
    is_image_file,
    names_images,
    plain_name,
)
from ball_features.dataset.sheet_formats import MOST_BYTES, read_frame, read_tables
from ball_features.dataset.sheet_table import Sheet
from ball_features.dataset.sources import open_file
from ball_features.errors import DataError

__all__ = ["read_sheet"]

_MOST_COLUMNS = 1 << 14  # those of a spreadsheet
_HEADER_ROWS = 10  # rows among which the header is looked for


def read_sheet(sheet: Path | str | Any, columns: CollectionConfig | None = None) -> Sheet | JoinedSheets:
    """Read a sheet, or several.

    Args:
        sheet: path or address of a .csv (any separator, and UTF-8, UTF-16, Windows-1252 or Latin-1), .tsv, .xlsx,
            .xls, .ods, .json, .jsonl or .parquet file; a pandas or polars data frame, or a mapping of column names to
            lists; or a list or tuple of these.
        columns: names of its columns; by default they are found by their usual names.

    Raises:
        DataError: A table cannot be read, a column is missing or there twice, or a column of ids has one number in
            two spellings, such as 1 and 01.
    """
    columns = CollectionConfig.of(columns)
    if isinstance(sheet, Sheet | JoinedSheets):
        return sheet
    given = list(sheet) if isinstance(sheet, list | tuple) else [sheet]
    if not given:
        raise DataError("Got an empty list of sheets, expected one or more.")
    found = [_one_file(one, columns, missing=len(given) > 1) for one in given]
    if len(found) == 1:
        return found[0]
    tables = [one for own in found for one in _tables(own)]
    for role in ROLES:
        named = getattr(columns, f"{role}_column") not in ("", "none")
        if named and not any(role in one.headings or (role == "path" and one.paths) for one in tables):
            _one_file(given[0], columns)  # which refuses a column that is nowhere
    return join_files(tables, columns)


def _tables(sheet: Sheet | JoinedSheets) -> Sequence[Sheet]:
    return sheet.sheets if isinstance(sheet, JoinedSheets) else (sheet,)


def _one_file(sheet: Any, columns: CollectionConfig, missing: bool = False) -> Sheet | JoinedSheets:
    """The table of one file or frame, or its worksheets that belong together.

    Raises:
        DataError: It cannot be read, or no table in it names images or patients.
    """
    file = open_file(sheet, MOST_BYTES) if isinstance(sheet, str | Path) else None
    tables = [read_frame(sheet)] if file is None else read_tables(file)
    first: DataError | None = None
    found: list[Sheet] = []
    for table in tables:
        try:
            found.append(_sheet(table, columns, missing))
        except DataError as error:
            first = first or error
    if not found:
        raise first or DataError(f"{sheet} holds no table, expected a header and a row for each image.")
    if isinstance(file, Path):
        found = [replace(own, folder=file.parent) for own in found]
    return found[0] if len(tables) == 1 else join_worksheets(found, columns)


def _sheet(table: RawTable, columns: CollectionConfig, missing: bool) -> Sheet:
    if not table.rows:
        raise DataError(f"{table.source} is empty, expected a header and a row for each image.")
    widest = max(map(len, table.rows))
    if widest > _MOST_COLUMNS:
        raise DataError(
            f"{table.source} has {widest:,} columns, expected at most {_MOST_COLUMNS:,}: a row for each image, and "
            "the columns that say something of it."
        )
    _require_read(table, columns)
    written, table = table, replace(table, rows=[[clean_text(cell) for cell in row] for row in table.rows])
    begin, roles = _header(table, columns, missing)
    header = table.rows[begin]
    body, lines, remarks = _body(table, begin)
    _require_once(header, table, begin, body)
    texts = [tuple(row[number] for row in body) for number in range(len(header))]
    remarks += roles.remarks
    paths = _without_numbers(roles.paths, header, texts)
    place = {role: number for role, number in roles.place.items() if role != "path"}
    files = [cell for cell in texts[place["patient"]] if is_image_file(cell)] if "patient" in place else []
    if 2 * len(files) > len(body) and not columns.patient_column:
        remarks.append(
            f"{header[place['patient']]} of {table.source} holds names of files, such as {files[0]}, and no patients."
        )
        paths = paths or [place["patient"]]
        del place["patient"]
    named = {role: known_column(role, texts[number], lines, table, remarks) for role, number in place.items()}
    flags: set[int] = set()
    if "split" not in named and columns.split_column != "none":
        named |= flagged_split(header, texts, table, remarks)
        flags = set(flag_columns(header).values()) if "split" in named else set()
    ids = {header[place["patient"]]: named["patient"]} if "patient" in named else {}
    ids |= {header[n]: texts[n] for n in paths if not names_images(header[n]) and not columns.path_column}
    taken = {*place.values(), *paths}
    named |= _others(header, texts, taken, named)
    for name in ("series", "batch", "block"):
        if name in named:
            require_one_spelling(name, named[name], lines, table)
    if begin:
        remarks.append(f"The header of {table.source} is taken from line {table.lines[begin]}.")
    pattern = columns.path_column if "{" in columns.path_column else ""
    found = Sheet(
        source=table.source,
        paths={pattern: filled_in(pattern, header, texts, table.source)}
        if pattern
        else {header[n]: tuple(row[n] if n < len(row) else "" for row in written.rows[begin + 1 :]) for n in paths},
        columns=named,
        headings={role: header[number] for role, number in place.items()},
        lines=tuple(lines),
        remarks=(*table.remarks, *remarks),
        ids=ids,
        name=table.name,
    )
    if roles.marked:
        cells = {header[number]: texts[number] for number in roles.marked}
        return replace(found, marked=mark_classes(cells, lines, table, asked=True)).with_marked_classes()
    if "label" in named or columns.label_column:
        return found
    free = {name: texts[n] for n, name in enumerate(header) if name and n not in taken | flags}
    return replace(found, marked=mark_classes(free, lines, table))


def _require_read(table: RawTable, columns: CollectionConfig) -> None:
    """Refuse a table whose column of images, labels or patients, or one that was named, has cells that are no text.

    Raises:
        DataError: There is one, and no other column in its place.
    """
    for name, why in table.unread.items():
        for role in ROLES:
            asked = getattr(columns, f"{role}_column")
            usual = role in ("path", "label", "patient") and not asked and role in _usual_roles(name)
            if plain_name(asked) == plain_name(name) or (
                usual and not any(role in _usual_roles(other) for other in table.rows[0])
            ):
                raise DataError(
                    f"The column {name!r} of {table.source} holds {why}, expected one text or number in each cell. "
                    f"Write one value in each, or name another column by {role}_column."
                )


def _usual_roles(heading: str) -> set[str]:
    """The roles for which a heading is a usual name."""
    roles = find_roles(["path", heading], CollectionConfig(), "")
    return {role for role, number in roles.place.items() if number} | ({"path"} if 1 in roles.paths else set())


def _others(
    header: Sequence[str], texts: Sequence[tuple[str, ...]], taken: Collection[int], named: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The columns that `ball` does not know; one with the name of a known one is called by its number too."""
    found: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(header):
        if number not in taken and (name or any(texts[number])):
            own = name or f"column {number + 1}"
            found[own if own not in named and own not in found else f"{own} (column {number + 1})"] = texts[number]
    return found


def _without_numbers(paths: Sequence[int], header: Sequence[str], texts: Sequence[Sequence[str]]) -> list[int]:
    """Columns that may name the images, without those that count rows beside one that names images."""
    named = [number for number in paths if names_images(header[number])]
    return [n for n in paths if n in named or not named or not all(map(str.isdecimal, texts[n]))]


def _header(table: RawTable, columns: CollectionConfig, missing: bool) -> tuple[int, Roles]:
    """The row of the header, and the roles of its columns: the first that names most of the known columns.

    Rows that begin with # are remarks, unless no other row is a header. A header without images, but with patients, can
    only be the first row of several different cells: below it, a cell such as case is a value.
    """
    first: DataError | None = None
    rows = list(enumerate(table.rows[:_HEADER_ROWS]))
    for chosen in ([own for own in rows if not "".join(own[1][:1]).startswith("#")], rows):
        found: list[tuple[int, Roles]] = []
        below = False
        for number, row in chosen:
            if number and sum(map(bool, row)) < 2:
                continue
            wide = len(set(filter(None, row))) > 1
            try:
                roles = find_roles(row, columns, table.source, by_patient=wide and not below, missing=missing)
                found.append((number, roles))
            except DataError as error:
                first = first or error
                if "none of which" not in str(error):
                    break
            below = below or wide
        if found:
            return max(found, key=lambda own: (len(own[1].place), -own[0]))
    assert first is not None
    raise first


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
    remarks = [f"{counted(short, 'row')} of {table.source} end early (first: line {short[0]})."] if short else []
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
