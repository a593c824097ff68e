"""Tables that `ball` writes to be filled in and kept: a new sheet, and columns added to a table that is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.config import CollectionConfig
from ball_features.config.paths import disk_path
from ball_features.dataset.folder_layout import read_layout
from ball_features.dataset.listing import Rejected, list_images, printable
from ball_features.dataset.matching import match_rows
from ball_features.dataset.raw_table import RawTable, clean_text, trimmed
from ball_features.dataset.remarks import are, count_classes, counted, have, some
from ball_features.dataset.sheet_columns import find_roles
from ball_features.dataset.sheet_formats import GUESSED, keeps_encoding, read_tables
from ball_features.dataset.sources import open_source
from ball_features.errors import DataError
from ball_features.files import (
    escaped_controls,
    forget,
    free_name,
    is_changed,
    is_expected,
    plain_cell,
    safe_cell,
    write_cells,
    write_csv,
)
from ball_features.outputs import require_free, require_untouched, require_writable

__all__ = ["BlankSheet", "extend_table", "require_extendable", "write_sheet"]

_COLUMNS = ("path", "label", "patient", "site", "split", "group")


@dataclass(frozen=True)
class BlankSheet:
    """A sheet that was written to be filled in.

    Attributes:
        rows: number of its rows.
        classes: classes with their counts, in a line.
        remarks: what was passed over, and why no class is read.
        rejected: folders that cannot be read, and files of kinds that are not supported, which have no row.
    """

    rows: int
    classes: str
    remarks: tuple[str, ...]
    rejected: tuple[Rejected, ...]


def write_sheet(images: Path | str, out: Path | str, layout: str = "auto") -> BlankSheet:
    """Write the sheet of a folder to fill in: a row for each image, with the class and whatever else its folders tell.

    Args:
        images: folder, archive or address of images, in folders of any kind or in none.
        out: CSV file to write.
        layout: layout of the folders; see `patterns.parse_pattern`.

    Raises:
        ConfigError: The layout is no layout.
        DataError: There is no image, or the output file exists or cannot be written.
    """
    out = Path(out)
    require_free(out, "sheet")
    images = disk_path(images) or images
    source = open_source(images)
    place = Path(images) if source is None else source
    if isinstance(place, Path) and not place.is_dir():
        raise DataError(f"Found {'a file' if place.exists() else 'nothing'} at {place}, expected a folder of images.")
    listing = list_images(place)
    if not listing.images:
        raise DataError(f"Found no image in {place}. {' '.join(listing.remarks())}")
    read = read_layout(listing.images, layout)
    names = [escaped_controls(name) for name in listing.images]
    real = {*listing.images}
    kept = [
        row
        for row, name in enumerate(listing.images)
        if printable(name) == name and (names[row] == name or names[row] not in real)
    ]
    if not kept:
        raise DataError(f"Found no image in {place} that a sheet can name: their names are not UTF-8. Rename them.")
    left = [printable(names[row]) for row in sorted({*range(len(names))} - {*kept})]
    blank = ("",) * len(names)
    known = {"path": names, "label": blank if read.problem else read.label, **read.columns}
    columns = {
        name: [escaped_controls(known.get(name, blank)[row]) for row in kept]
        for name in (*_COLUMNS, *(n for n in known if n not in _COLUMNS))
    }
    write_csv(out, tuple(columns), zip(*columns.values(), strict=True))
    remarks = listing.remarks()
    if left:
        remarks.append(
            f"{counted(left, 'image')} {are(left)} left out, which {have(left)} a name that no table can hold (not "
            f"UTF-8, or control characters that would be written as another name): {some(left)}. Rename them."
        )
    remarks += [f"No class is filled in: {read.problem}."] if read.problem else []
    return BlankSheet(len(kept), count_classes(columns["label"]), tuple(remarks), tuple(listing.rejected))


def require_extendable(path: Path, images: Sequence[str], values: Iterable[str] = ()) -> tuple[str, ...]:
    """Check that columns can be added to a table, before starting the work that makes them.

    Any other table that is there at the end stays, as one that was edited meanwhile.

    Args:
        path: CSV file, which need not be there.
        images: ids of the images.
        values: what the columns will name, such as the classes.

    Returns:
        Remarks on how the table is read, for the user.

    Raises:
        DataError: A file of that name is there, and is no table of these images in text, has cells beyond its header,
            or cannot take these names in its encoding.
    """
    table = _user_table(path, images)[0] if path.is_file() and path.stat().st_size else None
    if table is not None:
        _require_names(path, table, (*images, *values))
    require_untouched(path)
    return () if table is None else table.remarks


def _require_names(path: Path, table: RawTable, texts: Iterable[str]) -> None:
    """Raise `DataError` where a table is in an encoding that is guessed, and texts cannot be added in it."""
    names = sorted({text for text in texts if not text.isascii()})
    if table.encoding in GUESSED and not keeps_encoding(path, "\n".join(names), table.encoding):
        raise DataError(
            f"{path} seems to be in the encoding {table.encoding}, in which names of these images cannot be written, "
            f"such as {escaped_controls(names[0])}. Save it as UTF-8, or give another output file."
        )


def _user_table(path: Path, images: Sequence[str]) -> tuple[RawTable, list[str], int, list[int]]:
    """The table that is there, its headings, the column of the images, and the image of each row (-1 for none)."""
    other = f"{path} exists and is no table of these images, to which columns could be added"
    try:
        table = read_tables(path, as_is=True)[0]
        plain = [[plain_cell(trimmed(cell)) for cell in row] for row in table.rows]
        header, body = [clean_text(cell) for cell in (plain or [[]])[0]], plain[1:]
        paths = find_roles(header, CollectionConfig(), str(path)).paths
    except DataError as error:
        raise DataError(f"{other} ({error}). Give another output file.") from error
    if not table.separator:
        raise DataError(f"{other}: it is no CSV file. Give another output file.")
    width = len(header)
    for row, line in zip(body, table.lines[1:], strict=True):
        if any(row[width:]):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells, expected {width} as in the header. Put quotes around a cell "
                "that holds the separator, write a heading above each column, or give another output file."
            )
    texts = {number: [row[number] if number < len(row) else "" for row in body] for number in paths}
    matches = {number: match_rows(cells, images) for number, cells in texts.items()}
    cell = max(paths, key=lambda number: sum(map(bool, matches[number].rows)))
    if body and not any(matches[cell].rows):
        raise DataError(f"{other}: none of its rows names one of them. Give another output file.")
    image = [-1] * len(body)
    for number, rows in enumerate(matches[cell].rows):
        for row in rows:
            image[row] = number
    return table, header, cell, image


def extend_table(path: Path, images: Sequence[str], columns: Mapping[str, Iterable[Any]]) -> str:
    """Write columns of images, beside those of the table that is there; none of its rows and columns is dropped.

    Where the table has all of these columns they are brought up to date; if that divides images otherwise than they
    were divided there, which may be somebody's correction, the former table is kept under a free name. A column of the
    user's that has the name of one of them is kept, and the new one is called audit_NAME. Other cells stay as they are,
    in an encoding that is only guessed to the byte.

    Args:
        path: CSV file, which need not be there.
        images: ids of the images; control characters in them are written as escapes.
        columns: name -> value of each image.

    Returns:
        What the user should know of a former table that was kept, or "".

    Raises:
        DataError: The file cannot be written, or is no table of these images; see `require_extendable`.
    """
    texts = {str(name): [escaped_controls(str(value)) for value in values] for name, values in columns.items()}
    if not is_expected(path):
        require_writable(path, "table", extended=True)
        try:
            require_extendable(path, images)
        except DataError:
            forget(path)
            raise
    if is_changed(path) or not path.is_file() or not path.stat().st_size:
        write_csv(path, ("path", *columns), zip(map(escaped_controls, images), *texts.values(), strict=True))
        return ""
    table, header, cell, image = _user_table(path, images)
    _require_names(path, table, images)
    encoding = {"utf-8": "utf-8"}.get(table.encoding, table.encoding if table.encoding in GUESSED else "utf-8-sig")

    def own(text: str) -> str:
        return safe_cell(escaped_controls(text).encode(encoding, "backslashreplace").decode(encoding))

    whole = set(texts) <= set(header)
    names = {name: name if whole or name not in header else f"audit_{name}" for name in texts}
    added = [name for name in names.values() if name not in header]
    place = {name: number for number, name in enumerate([*header, *added])}
    width = len(header) + len(added)
    rows = [(row + [""] * len(header))[: len(header)] + [""] * len(added) for row in table.rows[1:]]
    listed = set(image)
    for number, name in enumerate(images):
        if number not in listed:
            rows.append([own(name) if column == cell else "" for column in range(width)])
            image.append(number)
    pairs: dict[str, set[tuple[str, str]]] = {name: set() for name in texts}
    for place_of_row, (row, number) in enumerate(zip(rows, image, strict=True)):
        for name, values in texts.items():
            if number >= 0:
                column = place[names[name]]
                if whole and place_of_row < len(table.rows) - 1:
                    pairs[name].add((plain_cell(row[column]), values[number]))
                row[column] = own(values[number])
    other = [name for name, found in pairs.items() if not _is_renaming(found)]
    former = _kept(path) if other else None
    write_cells(path, ([*table.rows[0], *added], *rows), table.separator, encoding, table.above)
    if former is None:
        return ""
    return f"{path} had other values in {some(other)}: the table as it was is kept as {former}."


def _is_renaming(pairs: set[tuple[str, str]]) -> bool:
    """Whether former and new values divide images in the same way."""
    return len({old for old, _ in pairs}) == len(pairs) == len({new for _, new in pairs})


def _kept(path: Path) -> Path:
    """A copy of a file under a free name."""
    former = free_name(path)
    try:
        with former.open("xb") as copy, path.open("rb") as file:
            shutil.copyfileobj(file, copy)
    except OSError as error:
        raise DataError(
            f"{path} has values that differ from the new ones, and cannot be kept as {former} ({error.strerror}). Give "
            "another output file."
        ) from error
    return former
