"""Tables that `ball` writes to be filled in and kept: a new sheet, and columns added to a table that is there."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.config import CollectionConfig
from ball_features.dataset.folder_layout import read_layout
from ball_features.dataset.listing import list_images, printable
from ball_features.dataset.matching import match_rows
from ball_features.dataset.raw_table import RawTable
from ball_features.dataset.remarks import count_classes
from ball_features.dataset.sheet_columns import find_roles
from ball_features.dataset.sheet_formats import read_tables
from ball_features.dataset.sources import open_source
from ball_features.errors import DataError
from ball_features.files import is_changed, is_expected, replacing, safe_cell, write_csv
from ball_features.outputs import require_free, require_untouched

__all__ = ["BlankSheet", "extend_table", "require_extendable", "write_sheet"]

_COLUMNS = ("path", "label", "patient", "site", "split", "group")


@dataclass(frozen=True)
class BlankSheet:
    """A sheet that was written to be filled in.

    Attributes:
        rows: number of its rows.
        classes: classes with their counts, in a line.
        remarks: what was passed over, and why no class is read.
    """

    rows: int
    classes: str
    remarks: tuple[str, ...]


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
    source = open_source(images)
    place = Path(images) if source is None else source
    if isinstance(place, Path) and not place.is_dir():
        raise DataError(f"Found {'a file' if place.exists() else 'nothing'} at {place}, expected a folder of images.")
    listing = list_images(place)
    if not listing.images:
        raise DataError(f"Found no image in {place}. {' '.join(listing.remarks())}")
    read = read_layout(listing.images, layout)
    blank = ("",) * len(listing.images)
    label = blank if read.problem else read.label
    known = {"path": [printable(name) for name in listing.images], "label": label, **read.columns}
    columns = {name: known.get(name, blank) for name in (*_COLUMNS, *(n for n in known if n not in _COLUMNS))}
    write_csv(out, tuple(columns), zip(*columns.values(), strict=True))
    problem = (f"No class is filled in: {read.problem}.",) if read.problem else ()
    return BlankSheet(len(listing.images), count_classes(label), (*listing.remarks(), *problem))


def require_extendable(path: Path, images: Sequence[str]) -> None:
    """Check that columns can be added to a table, before starting the work that makes them.

    Any other table that is there at the end stays, as one that was edited meanwhile.

    Raises:
        DataError: A file of that name is there, and is no table of these images in text.
    """
    if path.is_file() and path.stat().st_size:
        _user_table(path, images)
    require_untouched(path)


def _user_table(path: Path, images: Sequence[str]) -> tuple[RawTable, list[int]]:
    """The table that is there, and the number of the image in each of its rows (-1 for none)."""
    other = f"{path} exists and is no table of these images, to which columns could be added"
    try:
        table = read_tables(path)[0]
        paths = find_roles(table.rows[0] if table.rows else [], CollectionConfig(), str(path)).paths
    except DataError as error:
        raise DataError(f"{other} ({error}). Give another output file.") from error
    if not table.separator:
        raise DataError(f"{other}: it is no CSV file. Give another output file.")
    width = len(table.rows[0])
    body = [(row + [""] * width)[:width] for row in table.rows[1:]]
    matches = [match_rows([row[number] for row in body], images) for number in paths]
    best = max(matches, key=lambda match: sum(map(bool, match.rows)))
    if body and not any(best.rows):
        raise DataError(f"{other}: none of its rows names one of them. Give another output file.")
    image = [-1] * len(body)
    for number, rows in enumerate(best.rows):
        for row in rows:
            image[row] = number
    return table, image


def extend_table(path: Path, images: Sequence[str], columns: Mapping[str, Iterable[Any]]) -> None:
    """Write columns of images, beside those of the table that is there; none of its rows and columns is dropped.

    Where the table has all of these columns they are brought up to date. A column of the user's that has the name of
    one of them is kept, and the new one is called audit_NAME.

    Args:
        path: CSV file, which need not be there.
        images: ids of the images.
        columns: name -> value of each image.

    Raises:
        DataError: The file cannot be written, or is no table of these images.
    """
    texts = {str(name): [str(value) for value in values] for name, values in columns.items()}
    if not is_expected(path):
        require_extendable(path, images)
    if is_changed(path) or not path.is_file() or not path.stat().st_size:
        write_csv(path, ("path", *columns), zip(images, *texts.values(), strict=True))
        return
    table, image = _user_table(path, images)
    header = list(table.rows[0])
    own = set(texts) <= set(header)
    names = {name: name if own or name not in header else f"audit_{name}" for name in texts}
    added = [name for name in names.values() if name not in header]
    place = {name: number for number, name in enumerate([*header, *added])}
    cell = find_roles(header, CollectionConfig(), str(path)).paths[0]
    rows = [(row + [""] * len(place))[: len(header)] + [""] * len(added) for row in table.rows[1:]]
    listed = set(image)
    for number, name in enumerate(images):
        if number not in listed:
            rows.append([name if column == cell else "" for column in range(len(place))])
            image.append(number)
    for row, number in zip(rows, image, strict=True):
        for name, values in texts.items():
            if number >= 0:
                row[place[names[name]]] = values[number]
    encoding = "utf-8" if table.encoding == "utf-8" else "utf-8-sig"
    with replacing(path) as partial, partial.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=table.separator, lineterminator="\n")
        writer.writerows([safe_cell(value) for value in row] for row in ([*header, *added], *rows))
