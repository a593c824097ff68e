"""Columns that group images: of a groups file, of the cache, or of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ball_features.config import CollectionConfig
from ball_features.config.paths import without_places
from ball_features.dataset.remarks import alike_ids_remark, told_apart
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.sheet_columns import plain_name
from ball_features.dataset.sheet_formats import MOST_BYTES
from ball_features.dataset.sources import open_file
from ball_features.errors import DataError

__all__ = ["KNOWN_COLUMNS", "GroupTable", "alone", "table_of_cache", "table_of_file"]

# Columns that make a grouping.
KNOWN_COLUMNS = ("group", "patient", "site", "series", "block", "split")
_IDS = ("group", "patient", "site")


@dataclass(frozen=True)
class GroupTable:
    """Columns in the order of the images.

    Attributes:
        source: name for messages.
        paths: ids of the images.
        columns: name -> text of each image; "" where it is not known.
        headings: known column -> its heading in the file.
        sha256: digest of the content.
        gaps: columns in which an image may lack a value, and then stands alone: those of a cache.
        is_file: whether the columns are those of a file, apart from `gaps`.
        remarks: what was decided while the file was read, such as its encoding.
    """

    source: str
    paths: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    headings: Mapping[str, str]
    sha256: str
    gaps: frozenset[str] = frozenset()
    is_file: bool = False
    remarks: tuple[str, ...] = ()

    def with_columns_of(self, other: GroupTable) -> GroupTable:
        """Add the columns of another table that this one lacks; this one's own go before them."""
        added = {name: values for name, values in other.columns.items() if not self.find(name)}
        known = [name for name in added if name in KNOWN_COLUMNS]
        digest = hashlib.sha256(f"{self.sha256} {other.sha256} {known}".encode()).hexdigest() if known else self.sha256
        return replace(self, columns={**self.columns, **added}, sha256=digest, gaps=self.gaps | frozenset(added))

    def find(self, name: str) -> str:
        """The column of a name or of a heading, or ""."""
        if name in self.columns:
            return name
        for same in (str, str.casefold, plain_name):
            for own, heading in (*self.headings.items(), *((column, column) for column in self.columns)):
                if same(heading) == same(name):
                    return own
        return ""

    def read(self, name: str, label: Sequence[str] | np.ndarray | None = None, *, blanks: bool = False) -> np.ndarray:
        """The values of a column, or of several joined with +, str (images,); with `blanks`, "" for no value.

        Raises:
            DataError: A column is missing, or an image has no value.
        """
        parts = [name] if self.find(name) else [part.strip() for part in name.split("+")]
        columns = []
        for part in parts:
            own = self.find(part)
            if not own and not (part == "class" and label is not None):
                listed = ", ".join(["path", *(self.headings.get(column, column) for column in self.columns)])
                raise DataError(f"{self.source} has the columns {listed}, expected {part!r} too.")
            columns.append(self.columns[own] if own else [str(value) for value in (() if label is None else label)])
        values = ["/".join(row) if all(row) else "" for row in zip(*columns, strict=True)]
        missing = [path for path, value in zip(told_apart(self.paths), values, strict=True) if not value]
        if missing and not blanks:
            source = "The cache" if self.find(name) in self.gaps else self.source
            raise DataError(
                f"{source} names no {name} for {len(missing)} of {len(self.paths)} images (first: {missing[0]}). "
                "Give each image a row with a value."
            )
        return np.array(values)

    def whole(self, name: str, label: np.ndarray) -> np.ndarray:
        """The values of a column, for units: with gaps, the id of each image without a value stands for one."""
        gaps = name == "patient" or any(self.find(part.strip()) in self.gaps for part in (name, *name.split("+")))
        return alone(self.read(name, label, blanks=gaps), self.paths)

    def notes(self) -> tuple[str, ...]:
        """Say how the file was read, which columns the cache gives, what images lack, and which ids read alike."""
        own = [name for name in KNOWN_COLUMNS if self.find(name) in self.gaps]
        notes = [f"Columns of the cache are used: {', '.join(own)}."] if own else []
        for name in ("group", "patient"):
            blank = sum(not value for value in self.columns.get(name, ())) if name in own else 0
            if blank:
                notes.append(f"{blank} of {len(self.paths)} images have no {name}; each counts as one of its own.")
        alike = [alike_ids_remark(name, self.columns.get(name, ())) for name in _IDS]
        return (*map(without_places, self.remarks), *notes, *filter(None, alike))


def alone(values: np.ndarray, paths: Sequence[str] | np.ndarray) -> np.ndarray:
    """Values in which the id of an image stands for a value that it lacks, one that no other image has."""
    return np.where(values == "", np.char.add("image ", np.asarray(paths)), values)


def table_of_file(path: str, paths: Sequence[str], patients: Sequence[str] = ()) -> GroupTable:
    """The columns of a groups file.

    Args:
        path: path or address of the file, with a row for each image or each patient.
        paths: ids of the images.
        patients: patient of each image, where they are known without the file.

    Raises:
        DataError: The file cannot be read, or names none of the images.
    """
    file = open_file(path, MOST_BYTES)
    if isinstance(file, Path) and file.exists() and not file.is_file():
        raise DataError(
            f"{file} is no file, expected one: a groups file is read twice, and again when the run is repeated. "
            "Save what a pipe gives as a file first."
        )
    sheet = read_sheet(path, CollectionConfig())
    rows = sheet.rows_of(paths, patients)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return GroupTable(str(file), paths, rows.columns, rows.headings, digest, is_file=True, remarks=sheet.remarks)


def table_of_cache(path: np.ndarray, columns: Mapping[str, Sequence[str] | np.ndarray]) -> GroupTable:
    """The columns of a cache that have any value."""
    texts = {name: [str(value) for value in values] for name, values in columns.items() if any(map(len, values))}
    content = "\n".join("\t".join((name, *texts[name])) for name in sorted(texts) if name in KNOWN_COLUMNS)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return GroupTable("The cache", path.tolist(), texts, {}, digest, gaps=frozenset(texts))
