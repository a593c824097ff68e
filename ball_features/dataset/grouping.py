"""Columns that a protocol goes by: of a groups file, or of the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.config import CollectionConfig, FitConfig
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.sheet_columns import plain_name
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError, SplitError

__all__ = ["Grouping", "read_grouping", "read_groups"]

# Protocol -> its columns where the user names none, the first that is there.
_COLUMNS = {"block-cv": ("block", "group"), "leave-group-out": ("series", "site", "group", "patient")}
_USUAL = ("group", "patient")
_KNOWN = ("group", "patient", "site", "series", "block")  # columns of a cache that make a grouping


@dataclass(frozen=True, eq=False)
class Grouping:
    """What a groups file, or the cache, says of the images under a protocol.

    Attributes:
        column: name of the column that the protocol is by.
        group: str (images,), values of that column.
        together: str (images,), images that no protocol may cut: those of one `group` and of one `patient`; each image
            alone where neither is known.
        series: str (images,), groups that models are trained against: the column that is left out where the user names
            it, else `series`; equal to `group` where `series` has gaps.
        center: str (images,), groups whose mean is subtracted from embeddings, or None.
        sha256: digest of the file's content, or of the columns of the cache.
        notes: remarks for the user.
    """

    column: str
    group: np.ndarray
    together: np.ndarray
    series: np.ndarray
    center: np.ndarray | None
    sha256: str
    notes: tuple[str, ...] = ()

    def units(self, protocol: str, sha256: np.ndarray) -> np.ndarray:
        """Units that count once in intervals and tests, int (images,): a whole series where series are left out."""
        if protocol == "leave-group-out":
            return merge_units(self.group)
        return merge_units(sha256, self.group, self.together)


@dataclass(frozen=True)
class _Table:
    """Columns in the order of the images.

    Attributes:
        source: name for messages.
        paths: ids of the images.
        columns: name -> text of each image; "" where it is not known.
        headings: known column -> its heading in the file.
        sha256: digest of the content.
        gaps: whether an image may lack a value, and then stands alone.
    """

    source: str
    paths: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    headings: Mapping[str, str]
    sha256: str
    gaps: bool = False

    def find(self, name: str) -> str:
        """The column of a name or of a heading, or ""."""
        if name in self.columns:
            return name
        for same in (str, str.casefold, plain_name):
            for own, heading in (*self.headings.items(), *((column, column) for column in self.columns)):
                if same(heading) == same(name):
                    return own
        return ""

    def read(self, name: str, label: Sequence[str] | np.ndarray | None) -> np.ndarray:
        """The values of a column, or of several joined with +, str (images,).

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
        missing = [path for path, value in zip(self.paths, values, strict=True) if not value]
        if missing and not self.gaps:
            raise DataError(
                f"{self.source} names no {name} for {len(missing)} of {len(self.paths)} images (first: {missing[0]}). "
                "Give each image a row with a value."
            )
        return np.array([value or f"(none) {path}" for path, value in zip(self.paths, values, strict=True)])


def read_grouping(
    config: FitConfig,
    path: np.ndarray,
    label: np.ndarray,
    columns: Mapping[str, Sequence[str] | np.ndarray] | None = None,
) -> Grouping | None:
    """The columns that a protocol needs, in the order of the images: of the groups file, else of the cache.

    Args:
        config: `groups`, `group_column`, `protocol`, `center`.
        path: str (images,), ids.
        label: str (images,), classes.
        columns: columns of the cache: name -> str (images,), "" where a value is not known.

    Returns:
        The grouping; None without a groups file where the cache has no column that groups images.

    Raises:
        DataError: As `read_groups`; or the column to centre by tells the class.
        SplitError: The protocol needs groups, and the cache has none.
    """
    table = _file(config.groups, path.tolist()) if config.groups is not None else _cached(path, columns or {})
    named = [name for name in (config.group_column, config.center) if name not in ("auto", None)]
    if config.groups is None and not named and not any(table.find(name) for name in _KNOWN):
        return None
    column = config.group_column
    if column == "auto":
        wanted = _COLUMNS.get(config.protocol, _USUAL)
        column = next((name for name in wanted if table.find(name)), "" if table.gaps else wanted[-1])
        column = "group" if config.groups is not None and not table.find(column) else column
        if not column and config.protocol in ("group-cv", *_COLUMNS):
            raise SplitError(
                f"The protocol {config.protocol} needs groups, and the cache has no column {' or '.join(wanted)}. Give "
                "a groups file, or extract with a sheet that has such a column."
            )
    group = table.read(column, label) if column else path
    kept = [table.read(name, label) for name in _USUAL if table.find(name)]
    together = path if not kept else kept[0] if len(kept) == 1 else merge_units(*kept).astype(str)
    left_out = config.protocol == "leave-group-out" and config.group_column != "auto"
    series = _series(table, group, label, left_out)
    center = table.read(config.center, label) if config.center else None
    if center is not None and all(len(np.unique(label[center == name])) == 1 for name in np.unique(center)):
        raise DataError(
            f"Got {config.center} to centre by, each of whose values holds one class, so that subtracting their means "
            "would remove the class; expected a column that several classes share, such as overlay."
        )
    return Grouping(column, group, together, series, center, table.sha256, _notes(table))


def _series(table: _Table, group: np.ndarray, label: np.ndarray, left_out: bool) -> np.ndarray:
    if left_out or not table.find("series"):
        return group
    try:
        return table.read("series", label)
    except DataError:  # a column of the user's own with gaps, which only some models would have used
        return group


def _notes(table: _Table) -> tuple[str, ...]:
    if not table.gaps:
        return ()
    own = [name for name in _KNOWN if table.find(name)]
    notes = [f"Columns of the cache are used: {', '.join(own)}."] if own else []
    for name in _USUAL:
        blank = sum(not value for value in table.columns.get(name, ()))
        if blank:
            notes.append(f"{blank} of {len(table.paths)} images have no {name}; each counts as one of its own.")
    return tuple(notes)


def _file(groups: str, paths: Sequence[str]) -> _Table:
    path = Path(groups)
    sheet = read_sheet(path, CollectionConfig())
    columns = sheet.rows_of(paths).columns
    return _Table(str(path), paths, columns, sheet.headings, hashlib.sha256(path.read_bytes()).hexdigest())


def _cached(path: np.ndarray, columns: Mapping[str, Sequence[str] | np.ndarray]) -> _Table:
    texts = {name: [str(value) for value in values] for name, values in columns.items() if any(map(len, values))}
    content = "\n".join("\t".join((name, *texts[name])) for name in sorted(texts) if name in _KNOWN)
    return _Table("The cache", path.tolist(), texts, {}, hashlib.sha256(content.encode()).hexdigest(), gaps=True)


def read_groups(
    path: Path | str, column: str, paths: Sequence[str], label: Sequence[str] | np.ndarray | None = None
) -> np.ndarray:
    """A column of a groups file, or several joined, in the order of the images.

    Args:
        path: table with one row per image; see `sheet.read_sheet`.
        column: name of the column; `class+overlay` reads two and joins their values with a slash. `class` is the label
            where the file has no such column.
        paths: ids of the images.
        label: class of each image, for `class`.

    Returns:
        str (images,).

    Raises:
        DataError: The file or a column is missing, an image has no row or two, or a cell is empty.
    """
    return _file(str(path), list(paths)).read(column, label)
