"""Columns that a protocol goes by: of a groups file, or of the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.config import PROTOCOLS, FitConfig, Protocol
from ball_features.dataset.group_table import KNOWN_COLUMNS, GroupTable, alone, table_of_cache, table_of_file
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError, SplitError

__all__ = ["Grouping", "read_grouping", "read_groups"]


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
        site: str (images,), sites, "" where unknown; None where there is no such column.
        adapted_site: str (images,), sites to which models are adapted, or None.
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
    adapted_site: np.ndarray | None = None

    @property
    def units_left_out(self) -> np.ndarray:
        """Units where groups are left out, int (images,): groups, and one for all groups of a single patient."""
        return merge_units(self.group if self.patient is None else _patient_of(self.group, self.patient))

    def units(self, protocol: str, sha256: np.ndarray) -> np.ndarray:
        """Units that count once in intervals and tests, int (images,)."""
        scheme = PROTOCOLS[protocol].scheme
        if scheme == "leave-out":
            return self.units_left_out
        return (
            merge_units(sha256, self.together) if scheme == "given" else merge_units(sha256, self.group, self.together)
        )


def _patient_of(group: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """The patient in place of each group whose images are all of one patient, str (images,); else the group."""
    _, code = np.unique(group, return_inverse=True)
    names, number = np.unique(patient, return_inverse=True)
    first, last = np.full(code.max() + 1, len(names)), np.full(code.max() + 1, -1)
    np.minimum.at(first, code, number)
    np.maximum.at(last, code, number)
    alone_in = (first == last)[code] & (patient != "")
    return np.where(alone_in, np.char.add("patient ", patient), np.char.add("group ", group))


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
    cached = table_of_cache(path, columns or {})
    table = cached
    if config.groups is not None:
        known = cached.columns.get("patient", ())
        table = table_of_file(config.groups, path.tolist(), known).with_columns_of(cached)
    named = [name for name in (config.group_column, config.center) if name not in ("auto", None)]
    if config.groups is None and not named and not any(table.find(name) for name in KNOWN_COLUMNS):
        return None
    protocol = PROTOCOLS[config.protocol]
    given, left_out = protocol.scheme == "given", protocol.scheme == "leave-out"
    column = config.group_column if config.group_column != "auto" else _column(table, protocol)
    group = path
    if column:
        group = table.read(column, label, blanks=given) if given or left_out else table.whole(column, label)
    patient = table.read("patient", blanks=True) if table.find("patient") else None
    together = table.whole("group", label) if table.find("group") else path
    if table is not cached and cached.find("group") and table.find("group") not in table.gaps:
        together = merge_units(together, cached.whole("group", label))  # what the user keeps together stays so
    if patient is not None:
        together = merge_units(together, alone(patient, path))
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
    site = table.read("site", blanks=True) if table.find("site") else None
    adapts = config.adapt != "none" and (table.find("site") or config.adapt != "auto")
    adapted_site = table.read("site", label) if adapts else None
    return Grouping(column, group, together, series, center, table.sha256, patient, table.notes(), site, adapted_site)


def _column(table: GroupTable, protocol: Protocol) -> str:
    """The column that a protocol is by where the user names none; "" for each image alone."""
    wanted = [name for name in (protocol.column or "group", protocol.fallback) if name]
    found = next((name for name in wanted if table.find(name)), "")
    if found:
        return found
    if protocol.column:
        if table.is_file:
            return wanted[0]
        raise SplitError(
            f"The protocol {protocol.name} needs groups, and the cache has no column {' or '.join(wanted)}. Give a "
            "groups file with such a column, or extract with a sheet that has one."
        )
    if table.find("patient"):
        return "patient"
    # A table of sites or of given parts alone names nothing that a random split must not cut.
    return "" if not table.is_file or table.find("site") or table.find("split") else "group"


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
    return table_of_file(str(path), list(paths)).read(column, label, blanks=blanks)
