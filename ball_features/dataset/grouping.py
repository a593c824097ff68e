"""Columns of a groups file that a protocol needs."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.config import PROTOCOLS, FitConfig, Protocol
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError

__all__ = ["Grouping", "read_grouping", "read_groups"]


@dataclass(frozen=True, eq=False)
class Grouping:
    """What a groups file says of the images under a protocol.

    Attributes:
        column: name of the column that the protocol is by.
        group: str (images,), values of that column.
        together: (images,), what no split cuts: the file's `group` (images that show the same) and its `patient`; each
            image alone where the file lacks both.
        series: str (images,), groups that models are trained against: the column that is left out where it is not the
            default, else the file's `series`; equal to `group` where `series` has gaps. None for a given split without
            series.
        center: str (images,), groups whose mean is subtracted from embeddings, or None.
        sha256: digest of the file's content.
        patient: str (images,), patients, "" where unknown; None where the file has no such column.
        site: str (images,), sites to which models are adapted, or None.
    """

    column: str
    group: np.ndarray
    together: np.ndarray
    series: np.ndarray | None
    center: np.ndarray | None
    sha256: str
    patient: np.ndarray | None = None
    site: np.ndarray | None = None

    def units(self, protocol: str, sha256: np.ndarray) -> np.ndarray:
        """Units that count once in intervals and tests, int (images,): a whole series where series are left out."""
        scheme = PROTOCOLS[protocol].scheme
        if scheme == "leave-out":
            return merge_units(self.group)
        return (
            merge_units(sha256, self.together) if scheme == "given" else merge_units(sha256, self.group, self.together)
        )


def read_grouping(config: FitConfig, path: np.ndarray, label: np.ndarray) -> Grouping | None:
    """The columns of a groups file that a protocol needs, in the order of the images; None without a file.

    Args:
        config: `groups`, `group_column`, `protocol`, `center`.
        path: str (images,), ids.
        label: str (images,), classes.

    Raises:
        DataError: As `read_groups`; or the column to centre by tells the class.
    """
    if config.groups is None:
        return None
    columns = _columns(Path(config.groups))

    def read(name: str, blanks: bool = False) -> np.ndarray:
        return read_groups(config.groups or "", name, path.tolist(), label, blanks=blanks)

    protocol = PROTOCOLS[config.protocol]
    given = protocol.scheme == "given"
    column = config.group_column
    if column == "auto":
        column = _column(protocol, columns)
    group = read(column, blanks=given or column == "patient")
    together = read("group") if "group" in columns else path
    patient = None
    if "patient" in columns:
        patient = read("patient", blanks=True)
        # An image without a patient counts as the only one of its own.
        alone = np.where(patient == "", np.char.add("image ", path), patient)
        together = merge_units(together, alone)
        group = alone if column == "patient" else group
    other = None if given else group
    named = protocol.scheme == "leave-out" and (config.group_column != "auto" or protocol.column != "series")
    try:
        series = read("series") if "series" in columns and not named else other
    except DataError:  # a column of the user's own with gaps, which only some models would have used
        series = other
    center = read(config.center) if config.center else None
    if center is not None and all(len(np.unique(label[center == name])) == 1 for name in np.unique(center)):
        raise DataError(
            f"Got {config.center} to centre by, each of whose values holds one class, so that subtracting their means "
            "would remove the class; expected a column that several classes share, such as overlay."
        )
    sha256 = hashlib.sha256(Path(config.groups).read_bytes()).hexdigest()
    site = read("site") if config.adapt != "none" and ("site" in columns or config.adapt != "auto") else None
    return Grouping(column, group, together, series, center, sha256, patient, site)


def _column(protocol: Protocol, columns: Sequence[str]) -> str:
    """The column that a protocol is by where the user names none."""
    if protocol.column:
        return protocol.fallback if protocol.fallback and protocol.column not in columns else protocol.column
    if "group" not in columns and "patient" in columns:
        return "patient"
    # A table of sites or of given parts alone names nothing that a random split must not cut.
    return "path" if "group" not in columns and {"site", "split"} & set(columns) else "group"


def _columns(path: Path) -> list[str]:
    """Names of the columns; none where the file cannot be read, which `read_groups` reports."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file).fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


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
        path: CSV file with a header, the columns `path` and `column`, and one row per image.
        column: name of the column; `class+overlay` reads two and joins their values with a slash. `class` is the label
            where the file has no such column.
        paths: ids of the images.
        label: class of each image, for `class`.
        blanks: True allows empty cells and images without a row, whose value is "".

    Returns:
        str (images,).

    Raises:
        DataError: The file or a column is missing, an image has no row or two, or a cell is empty.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            wanted = [column] if column in columns else [name.strip() for name in column.split("+")]
            labelled = label is not None and "class" not in columns
            for name in ("path", *wanted):
                if name not in columns and not (labelled and name == "class"):
                    raise DataError(f"{path} has the columns {', '.join(columns) or '(none)'}, expected {name!r} too.")
            rows = [(row["path"], [(row.get(name) or "").strip() for name in wanted]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"No groups file can be read at {path} ({error}). Expected a CSV with path,group.") from error
    twice = [name for name, count in Counter(name for name, _ in rows).items() if count > 1]
    if twice:
        raise DataError(f"{path} lists {len(twice)} images twice (first: {twice[0]}); expected one row an image.")
    table = dict(rows)
    own = dict(zip(paths, label, strict=True)) if label is not None and labelled else {}
    values: dict[str, list[str]] = {}
    for name in paths:
        cells = table.get(name, [""] * len(wanted))
        values[name] = [
            str(own[name]) if key == "class" and own else cell for key, cell in zip(wanted, cells, strict=True)
        ]
    missing = [name for name in paths if name not in table or not all(values[name])]
    if missing and not blanks:
        raise DataError(
            f"{path} names no {column} for {len(missing)} of {len(paths)} images (first: {missing[0]}). Paths are "
            "relative to the image folder, with forward slashes; give each image a row."
        )
    return np.array(["/".join(values[name]) if any(values[name]) else "" for name in paths])
