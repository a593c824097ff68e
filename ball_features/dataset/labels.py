"""What folders, names and a sheet say of images: the class of each, and further columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ball_features.config import CollectionConfig
from ball_features.dataset.folder_layout import Layout, read_layout
from ball_features.dataset.listing import Rejected, printable
from ball_features.dataset.remarks import some
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.sheet_table import SheetRows
from ball_features.errors import DataError
from ball_features.files import escaped_controls

__all__ = ["Labels", "read_labels"]

_FEW = 12  # different values of a column that are counted one by one
_LONGEST = 1000  # characters of a class, which is written everywhere


@dataclass(frozen=True)
class Labels:
    """What is known of the images beside their pixels.

    Attributes:
        root: folder that the paths are relative to.
        path: paths of the images.
        label: class of each; "" where it is not known.
        columns: name -> text of each image.
        source: origin of the classes, in a line.
        remarks: what was decided, and what does not fit.
        rejected: images outside the layout.
    """

    root: Path
    path: tuple[str, ...]
    label: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    source: str
    remarks: tuple[str, ...]
    rejected: tuple[Rejected, ...]


def read_labels(root: Path, images: Sequence[str], config: CollectionConfig, sheet: Any = None) -> Labels:
    """Read layout and sheet; where both tell a class, the sheet wins, and it is said.

    Args:
        root: image folder.
        images: paths below it, with forward slashes.
        config: layout, and path and columns of the sheet.
        sheet: a data frame, a path or a list of these, which goes before the paths of `config`.

    Raises:
        DataError: The folders can be read in two ways, tell no class, or the sheet does not fit.
        ConfigError: The layout is no layout.
    """
    source = sheet if sheet is not None else config.sheet or None
    table = None if source is None else read_sheet(source, config)
    layout = _without_controls(read_layout(images, config.layout))
    aside = ""
    if table is not None and (headings := table.marked_headings):
        told = set(layout.label) - {""}
        if len(told) < 2 or layout.problem or told & set(headings):
            table = table.with_marked_classes()
        else:
            aside = (
                f"The columns {some(headings, 12)} of {table.source} say 0 or 1 and are not taken for the class, which "
                f"the folders tell. Where they are the classes, name them: label_column='{','.join(headings)}'."
            )
    rows = None if table is None else table.rows_of(images, layout.columns.get("patient", ()), root)
    labelled = rows is not None and "label" in rows.columns
    if rows is not None and layout.problem and not labelled:
        layout = _explained(images, layout, rows)
    if layout.problem and not labelled:
        other = (
            ""
            if table is None or rows is None
            else (
                f" {table.source} has no column that is known to hold the class; name one by label_column: "
                f"{some(list(rows.columns), 12)}. {' '.join(table.remarks)}".rstrip()
            )
        )
        raise DataError(f"No class can be read from {root}: {layout.problem}.{other}")
    remarks = [*(table.remarks if table else ()), *([aside] if aside else []), *(rows.remarks if rows else ())]
    label = _labels(images, layout, rows, remarks)
    longest = max(label, key=len, default="")
    if len(longest) > _LONGEST:
        raise DataError(
            f"Got a class of {len(longest):,} characters, expected a name: {some([longest])}. Name the column of the "
            "class by label_column."
        )
    columns = dict(layout.columns)
    if rows is not None:
        remarks += _contradictions(images, columns, rows)
        columns |= {
            name: tuple(
                cell if listed else below
                for cell, listed, below in zip(cells, rows.listed, columns.get(name, cells), strict=True)
            )
            for name, cells in rows.columns.items()
            if name != "label"
        }
    if rows is not None and table is not None and not labelled and len(set(label) - {""}) < 2:
        remarks.append(
            f"{table.source} has no column that is known to hold the class; name one by label_column: "
            f"{some(list(rows.columns), 12)}."
        )
    if layout.ignored:
        remarks.append(
            f"Folders below the classes are not read: {'; '.join(map(some, layout.ignored))}. Where "
            f"{'they' if len(layout.ignored) == 1 else 'the last of these'} are patients, say so: "
            f"layout={'/'.join([layout.reading, *['*'] * (len(layout.ignored) - 1), 'patient'])!r}."
        )
    misfits = set(layout.misfits)
    keep = [row for row in range(len(images)) if labelled or label[row] or row not in misfits]
    told = "the class folders" if config.layout == "auto" else f"the layout {config.layout}"
    reason = f"lies outside {told}; move it into one" if config.layout == "auto" else f"does not fit {told}"
    kept = set(keep)
    rejected = tuple(Rejected(printable(name), reason) for row, name in enumerate(images) if row not in kept)
    above = images[0].split("/")[: layout.wrappers] if images else []
    return Labels(
        root=root.joinpath(*above),
        path=tuple(images[row].split("/", len(above))[-1] for row in keep),
        label=tuple(escaped_controls(label[row]) for row in keep),
        columns={name: tuple(escaped_controls(cells[row]) for row in keep) for name, cells in columns.items()},
        source=_source(layout, rows, columns),
        remarks=tuple(remarks),
        rejected=rejected,
    )


def _without_controls(layout: Layout) -> Layout:
    """A layout in whose names control characters are escapes, as in the sheets that `ball` writes."""
    columns = {name: tuple(map(escaped_controls, cells)) for name, cells in layout.columns.items()}
    return replace(layout, label=tuple(map(escaped_controls, layout.label)), columns=columns)


def _explained(images: Sequence[str], layout: Layout, rows: SheetRows) -> Layout:
    """A layout of two readings, one of whose levels is a column of the sheet."""
    folders = [path.split("/")[layout.wrappers : -1] for path in images]
    for name in ("site", "patient", "split", "group"):
        cells = rows.columns.get(name, ())
        for level, words in ((0, f"{name}/class"), (1, f"class/{name}")):
            pairs = [(own[level], cell) for own, cell in zip(folders, cells, strict=False) if cell and len(own) > level]
            if len(pairs) > len(images) / 2 and all(folder.strip() == cell for folder, cell in pairs):
                return read_layout(images, words)
    return layout


def _contradictions(images: Sequence[str], columns: Mapping[str, Sequence[str]], rows: SheetRows) -> list[str]:
    """Remarks on patients, sites and splits of which folders and sheet say something else."""
    remarks = []
    for name in sorted(columns.keys() & rows.columns.keys()):
        pairs = zip(images, columns[name], rows.columns[name], strict=True)
        other = [f"{path} ({below}, in the sheet {own})" for path, below, own in pairs if "" != below != own != ""]
        if other:
            remarks.append(
                f"{len(other)} of {len(images)} images have another {name} in the sheet than by their folder; that of "
                f"the sheet is taken: {some(other)}."
            )
    return remarks


def _labels(images: Sequence[str], layout: Layout, rows: SheetRows | None, remarks: list[str]) -> list[str]:
    """The class of each image: of a sheet that has classes for the images that it lists, else of the folders."""
    if rows is None or "label" not in rows.columns:
        return list(layout.label)
    own = rows.columns["label"]
    unlisted = [name for name, classed in zip(layout.label, rows.classed, strict=True) if name and not classed]
    if unlisted and _are_no_classes(layout, rows):
        remarks.append(
            f"The folders of the {len(unlisted)} images without a row ({some(sorted(set(unlisted)))}) are not taken "
            "for classes: the sheet has others."
        )
        return list(own)
    label = [own[row] if rows.classed[row] else layout.label[row] for row in range(len(images))]
    if set(layout.label) & set(own) - {""}:  # otherwise the folders mean something else
        other = [
            f"{images[row]} ({layout.label[row]}, in the sheet {own[row]})"
            for row in range(len(images))
            if own[row] and layout.label[row] and own[row] != layout.label[row]
        ]
        if other:
            many = "1 image lies" if len(other) == 1 else f"{len(other)} images lie"
            remarks.append(f"{many} in the folder of another class; the class of the sheet is taken: {some(other)}.")
    return label


def _are_no_classes(layout: Layout, rows: SheetRows) -> bool:
    """Whether folders mean something else than the classes of a sheet: patients, or, where it lists most, a batch."""
    patients = rows.columns.get("patient", ())
    if any(patients) and all(own == name for own, name in zip(layout.label, patients, strict=True) if own and name):
        return True
    return 2 * sum(rows.classed) > len(rows.classed) and not set(layout.label) & set(rows.columns["label"]) - {""}


def _source(layout: Layout, rows: SheetRows | None, columns: dict[str, tuple[str, ...]]) -> str:
    parts = [rows.label_source if rows is not None and rows.label_source else f"folders ({layout.reading})"]
    for name, cells in columns.items():
        count = Counter(cells)
        blank = count.pop("", 0)
        if not count:
            continue
        values = some([f"{own} {number}" for own, number in sorted(count.items())], _FEW)
        shown = values if len(count) <= _FEW and name == "split" else f"{len(count)} different"
        heading = rows.headings.get(name, name) if rows else name
        parts.append(
            f"{name}{f' from {heading}' if heading != name else ''}: {shown}" + (f", {blank} empty" if blank else "")
        )
    return "; ".join(parts)
