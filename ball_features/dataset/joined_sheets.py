"""Several tables as one sheet: files that were given together, and worksheets of a workbook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ball_features.config import CollectionConfig
from ball_features.dataset.folder_names import split_of
from ball_features.dataset.matching import lacking_rows
from ball_features.dataset.remarks import are, told_apart
from ball_features.dataset.sheet_cells import ONE_WAY, one_number_twice
from ball_features.dataset.sheet_columns import names_images
from ball_features.dataset.sheet_table import Sheet, SheetRows
from ball_features.errors import DataError

__all__ = ["JoinedSheets", "join_files", "join_worksheets"]

_IDS = ("label", "patient", "site", "group", "series", "batch", "block")


@dataclass(frozen=True)
class JoinedSheets:
    """Tables whose rows belong together.

    Attributes:
        sheets: the tables.
        remarks: what was decided while reading.
    """

    sheets: tuple[Sheet, ...]
    remarks: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Names of the tables for messages."""
        return _and([sheet.source for sheet in self.sheets])

    @property
    def headings(self) -> Mapping[str, str]:
        """The known columns: name -> heading in the first table that has it."""
        return {name: own for sheet in reversed(self.sheets) for name, own in sheet.headings.items()}

    @property
    def marked_headings(self) -> tuple[str, ...]:
        """Headings that may be the classes, where no column of any table holds these."""
        if any("label" in sheet.columns for sheet in self.sheets):
            return ()
        return tuple(dict.fromkeys(name for sheet in self.sheets for name in sheet.marked_headings))

    def with_marked_classes(self) -> JoinedSheets:
        """The tables with the class of each row read from the heading of its 1; see `Sheet.with_marked_classes`."""
        sheets = tuple(sheet.with_marked_classes() for sheet in self.sheets)
        new = [remark for sheet in sheets for remark in sheet.remarks if remark not in self.remarks]
        return replace(self, sheets=sheets, remarks=(*self.remarks, *new))

    def rows_of(self, files: Sequence[str], patients: Sequence[str] = (), root: Any = None) -> SheetRows:
        """Match the rows of all tables with files; tables of patients come last, and know those of the other tables.

        Args:
            files: paths of the images, relative, with forward slashes.
            patients: patient of each image, as far as it is known without the sheet.
            root: folder that the files lie in.

        Raises:
            DataError: As `Sheet.rows_of` where no table matches, or two tables say different things of one image.
        """
        found: list[tuple[Sheet, SheetRows]] = []
        waiting = []
        for sheet in self.sheets:
            rows = sheet.image_rows(files, root) if sheet.lines else None
            if rows is None:
                waiting.append(sheet)
            else:
                found.append((sheet, rows))
        known: Sequence[str] = list(patients) or [""] * len(files)
        for _, rows in found:
            own = rows.columns.get("patient", known)
            known = [new or old for new, old in zip(own, known, strict=True)]
        remarks, first = [], None
        for sheet in waiting:
            try:
                found.append((sheet, sheet.rows_of(files, known, root)))
            except DataError as error:
                first = first or error
                remarks.append(str(error))
        if not found:
            assert first is not None
            raise first
        return self._merged(found, files, remarks)

    def _merged(self, found: list[tuple[Sheet, SheetRows]], files: Sequence[str], remarks: list[str]) -> SheetRows:
        columns: dict[str, list[str]] = {}
        said: dict[str, list[str]] = {}
        for sheet, rows in found:
            for name, cells in rows.columns.items():
                own = columns.setdefault(name, [""] * len(files))
                by = said.setdefault(name, [""] * len(files))
                for number, cell in enumerate(cells):
                    if cell and own[number] and cell != own[number]:
                        raise DataError(
                            f"{by[number]} and {sheet.source} differ on {told_apart(files)[number]}: {name} is "
                            f"{own[number]!r} and {cell!r}. Keep one, or rename a column where they are different "
                            "things."
                        )
                    if cell and not own[number]:
                        own[number], by[number] = cell, sheet.source
        for name in filter(columns.__contains__, _IDS):
            twice = one_number_twice(columns[name])
            if twice:
                (one, by), (other, also) = ((columns[name][place], said[name][place]) for place in twice)
                raise DataError(f"{name} is {one!r} in {by} and {other!r} in {also}, which are one number. {ONE_WAY}")
        listed = tuple(any(rows.listed[number] for _, rows in found) for number in range(len(files)))
        by_image = [sheet.source for sheet, rows in found if not rows.by_patient]
        if by_image:
            remarks = [*lacking_rows(files, listed, _and(by_image)), *remarks]
        return SheetRows(
            columns={name: tuple(cells) for name, cells in columns.items()},
            listed=listed,
            heading=found[0][1].heading,
            remarks=(*(remark for _, rows in found for remark in rows.remarks), *remarks),
            headings=self.headings,
            classed=tuple(any(rows.classed[number] for _, rows in found) for number in range(len(files))),
            label_source=_and([rows.label_source for _, rows in found if rows.label_source]),
        )


def join_files(sheets: Sequence[Sheet], columns: CollectionConfig) -> JoinedSheets:
    """Join the tables of several files; where no table has a split and the files are named for splits, they tell it."""
    sheets, remarks = _split_by_names([sheet for sheet in sheets if sheet.paths], sheets, columns)
    return JoinedSheets(tuple(sheets), tuple(remark for sheet in sheets for remark in sheet.remarks) + remarks)


def join_worksheets(sheets: Sequence[Sheet], columns: CollectionConfig) -> Sheet | JoinedSheets:
    """Join the worksheets of a workbook that belong together.

    Those that are named for splits are the rows of one table, others with the same columns are refused; else the first
    that names images is taken. Worksheets with a row for each patient are joined with it.

    Raises:
        DataError: Two worksheets have the same columns.
    """
    images = [sheet for sheet in sheets if any(map(names_images, sheet.paths))]
    images = images or [sheet for sheet in sheets if sheet.paths]
    if len(_splits(images)) < 2:
        for other in images[1:]:
            _require_different(images[0], other)
        images = images[:1]
    people = [own for own in sheets if "patient" in own.columns and not any(map(names_images, own.paths))]
    people = [replace(own, paths={}) for own in people if not any(own is one for one in images)]
    told: list[str] = []
    if not images:
        for other in people[1:]:
            _require_different(people[0], other)
    else:
        people, told = _beside(images, people)
    chosen, remarks = _split_by_names(images, [*images, *people], columns)
    if len(chosen) == 1:
        return replace(chosen[0], remarks=(*chosen[0].remarks, *told))
    return JoinedSheets(tuple(chosen), (*(remark for own in chosen for remark in own.remarks), *told, *remarks))


def _beside(images: Sequence[Sheet], people: Sequence[Sheet]) -> tuple[list[Sheet], list[str]]:
    """Worksheets of patients with the columns that those of images lack, and remarks on what is not read."""
    names = [sheet.source for sheet in people]
    if len({(tuple(sheet.headings), tuple(sheet.columns)) for sheet in people}) < len(people):
        return [], [f"{_and(names)} have the same columns and are not read beside {images[0].source}."]
    found, told = [], []
    known = {name for sheet in images for name in sheet.columns} - {"patient"}
    for sheet in people:
        both = [name for name in sheet.columns if name in known]
        if both:
            told.append(f"{_and(both)} of {sheet.source} {are(both)} not read: {images[0].source} has it too.")
        columns = {name: cells for name, cells in sheet.columns.items() if name not in both}
        headings = {name: own for name, own in sheet.headings.items() if name not in both}
        marked = None if "label" in known else sheet.marked
        if len(columns) > 1:
            found.append(replace(sheet, columns=columns, headings=headings, marked=marked))
    return found, told


def _require_different(one: Sheet, other: Sheet) -> None:
    if set(one.headings) == set(other.headings) and set(one.paths) == set(other.paths):
        raise DataError(
            f"{one.source} and {other.source} have the same columns. Two readings are possible: the rows of both, or "
            "those of one. Keep one worksheet in the file, with all rows that are meant; or name the worksheets train, "
            "val and test, where they are."
        )


def _splits(sheets: Sequence[Sheet]) -> set[str]:
    """The splits that all tables are named for; nothing where one is not."""
    names = [split_of(sheet.name) for sheet in sheets]
    return set(names) if all(names) else set()


def _split_by_names(
    images: Sequence[Sheet], sheets: Sequence[Sheet], columns: CollectionConfig
) -> tuple[list[Sheet], tuple[str, ...]]:
    """The tables with a column of the split that the names of those of images tell, and a remark on it."""
    has_split = any("split" in sheet.columns for sheet in sheets) or columns.split_column == "none"
    if has_split or len(_splits(images)) < 2:
        return list(sheets), ()
    found = [
        replace(sheet, columns={**sheet.columns, "split": (split_of(sheet.name),) * len(sheet.lines)})
        if any(sheet is own for own in images)
        else sheet
        for sheet in sheets
    ]
    return found, (f"The split is read from the names of {_and([sheet.source for sheet in images])}.",)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
