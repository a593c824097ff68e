"""Columns that a protocol goes by: of a groups file, or of the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.config import PROTOCOLS, CollectionConfig, FitConfig, Protocol
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.sheet_columns import plain_name
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError, SplitError

__all__ = ["Grouping", "read_grouping", "read_groups"]

# Columns of a cache that make a grouping.
_KNOWN = ("group", "patient", "site", "series", "block", "split")


@dataclass(frozen=True, eq=False)
class Grouping:
    """What a groups file, or the cache, says of the images under a protocol.

    Attributes:
        column: name of the column that the protocol is by; "" for none.
        group: str (images,), values of that column; each image alone where there is none.
        together: (images,), what no split cuts: `group` (images that show the same) and `patient`; each image alone
            where neither is known.
        series: str (images,), groups that models are trained against: the column that is left out where it is not the
            default, else `series`; equal to `group` where `series` has gaps. None where there are no groups.
        center: str (images,), groups whose mean is subtracted from embeddings, or None.
        sha256: digest of the file's content, or of the columns of the cache.
        patient: str (images,), patients, "" where unknown; None where there is no such column.
        notes: remarks for the user.
        site: str (images,), sites to which models are adapted, or None.
    """

    column: str
    group: np.ndarray
    together: np.ndarray
    series: np.ndarray | None
    center: np.ndarray | None
    sha256: str
    patient: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    site: np.ndarray | None = None

    def units(self, protocol: str, sha256: np.ndarray) -> np.ndarray:
        """Units that count once in intervals and tests, int (images,): a whole series where series are left out."""
        scheme = PROTOCOLS[protocol].scheme
        if scheme == "leave-out":
            return merge_units(self.group)
        return (
            merge_units(sha256, self.together) if scheme == "given" else merge_units(sha256, self.group, self.together)
        )


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
        missing = [path for path, value in zip(self.paths, values, strict=True) if not value]
        if missing and not blanks:
            raise DataError(
                f"{self.source} names no {name} for {len(missing)} of {len(self.paths)} images (first: {missing[0]}). "
                "Give each image a row with a value."
            )
        return np.array(values)

    def whole(self, name: str, label: np.ndarray) -> np.ndarray:
        """The values of a column, for units: with gaps, the id of each image without a value stands for one."""
        values = self.read(name, label, blanks=self.gaps or name == "patient")
        return _alone(values, self.paths)


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
    protocol = PROTOCOLS[config.protocol]
    given, left_out = protocol.scheme == "given", protocol.scheme == "leave-out"
    column = config.group_column if config.group_column != "auto" else _column(table, protocol)
    group = path
    if column:
        group = table.read(column, label, blanks=given) if given or left_out else table.whole(column, label)
    patient = table.read("patient", blanks=True) if table.find("patient") else None
    together = table.whole("group", label) if table.find("group") else path
    if patient is not None:
        together = merge_units(together, _alone(patient, path))
    named_groups = left_out and (config.group_column != "auto" or protocol.column != "series")
    series = None if given or not column else group
    if table.find("series") and not named_groups:
        # A column of the user's own may have gaps, which only some models would have used.
        found = table.read("series", label, blanks=True)
        series = found if all(found) else series
    center = table.whole(config.center, label) if config.center else None
    if center is not None and all(len(np.unique(label[center == name])) == 1 for name in np.unique(center)):
        raise DataError(
            f"Got {config.center} to centre by, each of whose values holds one class, so that subtracting their means "
            "would remove the class; expected a column that several classes share, such as overlay."
        )
    adapts = config.adapt != "none" and (table.find("site") or config.adapt != "auto")
    site = table.read("site", label) if adapts else None
    return Grouping(column, group, together, series, center, table.sha256, patient, _notes(table), site)


def _column(table: _Table, protocol: Protocol) -> str:
    """The column that a protocol is by where the user names none; "" for each image alone."""
    wanted = [name for name in (protocol.column or "group", protocol.fallback) if name]
    found = next((name for name in wanted if table.find(name)), "")
    if found:
        return found
    if protocol.column:
        if not table.gaps:
            return wanted[0]
        raise SplitError(
            f"The protocol {protocol.name} needs groups, and the cache has no column {' or '.join(wanted)}. Give a "
            "groups file with such a column, or extract with a sheet that has one."
        )
    if table.find("patient"):
        return "patient"
    # A table of sites or of given parts alone names nothing that a random split must not cut.
    return "" if table.gaps or table.find("site") or table.find("split") else "group"


def _alone(values: np.ndarray, paths: Sequence[str] | np.ndarray) -> np.ndarray:
    """Values in which the id of an image stands for a value that it lacks, one that no other image has."""
    return np.where(values == "", np.char.add("image ", np.asarray(paths)), values)


def _notes(table: _Table) -> tuple[str, ...]:
    if not table.gaps:
        return ()
    own = [name for name in _KNOWN if table.find(name)]
    notes = [f"Columns of the cache are used: {', '.join(own)}."] if own else []
    for name in ("group", "patient"):
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
    path: Path | str,
    column: str,
    paths: Sequence[str],
    label: Sequence[str] | np.ndarray | None = None,
    *,
    blanks: bool = False,
) -> np.ndarray:
    """A column of a groups file, or several joined, in the order of the images.

    Args:
        path: table with one row per image; see `sheet.read_sheet`.
        column: name of the column; `class+overlay` reads two and joins their values with a slash. `class` is the label
            where the file has no such column.
        paths: ids of the images.
        label: class of each image, for `class`.
        blanks: accept images without a value, whose value is "".

    Returns:
        str (images,).

    Raises:
        DataError: The file or a column is missing, an image has no row or two, or a cell is empty.
    """
    return _file(str(path), list(paths)).read(column, label, blanks=blanks)
