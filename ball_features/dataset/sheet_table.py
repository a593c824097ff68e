"""One table of a sheet: rows for images or for patients, matched with files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ball_features.dataset.matching import Match, lacking_rows, match_rows
from ball_features.dataset.patient_names import PatientMatch, is_by_chance, known_patients, match_patients
from ball_features.dataset.remarks import are, counted, have, some, told_apart
from ball_features.dataset.sheet_cells import MarkedClasses
from ball_features.errors import DataError

__all__ = ["Sheet", "SheetRows"]


@dataclass(frozen=True)
class SheetRows:
    """A sheet in the order of images.

    Attributes:
        columns: name -> text of each image; "" for an image without a row.
        listed: whether each image has a row.
        heading: heading of the column that names the images, or their patients.
        remarks: rows and images that do not match, counted and named.
        headings: the known columns: name -> heading in the file.
        label_source: place of the classes, in words; "" without classes.
        by_patient: whether the rows were found by patient.
        classed: whether each image has a row in a table of classes.
    """

    columns: dict[str, tuple[str, ...]]
    listed: tuple[bool, ...]
    heading: str
    remarks: tuple[str, ...]
    headings: Mapping[str, str]
    label_source: str
    by_patient: bool = False
    classed: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A table with a row for each image, or for each patient.

    Attributes:
        source: name of the table for messages.
        paths: candidates for the names of the images, in order of preference: heading -> text of each row.
        columns: other columns: name -> text of each row; "" where a cell is empty. A column that `ball` knows has its
            usual name: label, patient, site, split, group.
        headings: the known columns: name -> heading in the file.
        lines: line of each row in the file; of a list in JSON its number.
        remarks: what was decided while reading.
        ids: candidates for the patient of a row, as `paths`.
        marked: classes as headings, of columns of 0 and 1; None without such columns.
        name: name of the file without its ending, or of the worksheet.
        folder: folder that the file lies in; None of a data frame.
    """

    source: str
    paths: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, tuple[str, ...]]
    headings: Mapping[str, str]
    lines: tuple[int, ...]
    remarks: tuple[str, ...] = ()
    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    marked: MarkedClasses | None = None
    name: str = ""
    folder: Path | None = None

    @property
    def marked_headings(self) -> tuple[str, ...]:
        """Headings that may be the classes, where no column holds these."""
        return () if self.marked is None or "label" in self.columns else self.marked.headings

    def with_marked_classes(self) -> Sheet:
        """The sheet with the class of each row read from the heading of its 1.

        Raises:
            DataError: A row has several.
        """
        if self.marked is None or "label" in self.columns:
            return self
        self.marked.require_one(self.source)
        others = {name: cells for name, cells in self.columns.items() if name not in self.marked.headings}
        empty = sum(not name for name in self.marked.label)
        remark = f"{empty} rows of {self.source} have no 1 in {some(self.marked.headings, 12)}, and no class."
        return replace(
            self,
            columns={"label": self.marked.label, **others},
            headings={**self.headings, "label": f"headings {some(self.marked.headings, 12)}"},
            remarks=(*self.remarks, *([remark] if empty else [])),
            marked=None,
        )

    def rows_of(self, files: Sequence[str], patients: Sequence[str] = (), root: Any = None) -> SheetRows:
        """Match the rows with files, by the images that they name or by the patients of the images.

        Args:
            files: paths of the images, relative, with forward slashes.
            patients: patient of each image, "" where it is not known; empty where none is.
            root: folder that the files lie in; names in a sheet in a folder below may begin at the sheet.

        Raises:
            DataError: No row matches, two rows that differ match the same image or patient, or it is not clear which
                patient is meant.
        """
        if not self.lines:
            raise DataError(f"{self.source} has a header and no row, expected a row for each image.")
        by_image = self.image_rows(files, root)
        if by_image is not None:
            lacking = lacking_rows(files, by_image.listed, self.source)
            by_image = replace(by_image, remarks=(*by_image.remarks, *lacking))
        if by_image is not None and (by_image.heading not in self.ids or "patient" not in self.columns):
            return by_image
        by_patient = self.patient_rows(files, patients) if by_image is None or any(patients) else None
        if by_image is None and by_patient is None:
            raise self._stranger(files, patients, root)
        # Numbers of rows may be those of some images, by chance.
        found = [rows for rows in (by_image, by_patient) if rows is not None]
        return max(found, key=lambda rows: sum(rows.listed))

    def image_rows(self, files: Sequence[str], root: Any = None) -> SheetRows | None:
        """Match the rows by the images that they name, as `rows_of`; None where no row names one.

        The remarks are on rows; a table beside this one may list the other images.
        """
        if not self.paths:
            return None
        heading, match = self._match(files, root)
        if not any(match.rows):
            return None
        names = told_apart(files)
        chosen = [self._one_row(rows, f"lists {names[number]}") for number, rows in enumerate(match.rows)]
        others = {name: cells for name, cells in self.paths.items() if name != heading and name not in self.columns}
        columns = {**self.columns, **others}
        return self._rows(columns, chosen, heading, match.remarks(self.source, self.paths[heading], self.lines, files))

    def patient_rows(self, files: Sequence[str], patients: Sequence[str] = ()) -> SheetRows | None:
        """Match the rows by patient, as `rows_of`; None where no row names a patient of the images."""
        for heading, cells in self.ids.items():
            for known, told in known_patients(files, patients, cells):
                match = match_patients(_different(known), _different(cells))
                if match.unclear:
                    own, other = match.unclear[0]
                    raise DataError(
                        f"{self.source} has the {_patients(other)} in {heading}, and the images are of "
                        f"{_patients(own)}: it is not clear which are the same. Write each patient in one way in both."
                    )
                used = set(match.same.values())
                if used and (cells == self.columns.get("patient") or not is_by_chance(used, _different(cells))):
                    return self._by_patient(heading, known, match, files, told)
        return None

    def _by_patient(
        self, heading: str, known: Sequence[str], match: PatientMatch, files: Sequence[str], told: str
    ) -> SheetRows:
        rows, blank = self._first_rows(heading)
        first = {cell: own[0] for cell, own in rows.items()}
        chosen = [first.get(match.same.get(name, ""), -1) for name in known]
        remarks = [f"The patients of the images are read from {told}."] if told else []
        if match.spelt:
            pairs = [f"{own} is {other}" for own, other in match.spelt.items()]
            remarks.append(
                f"{counted(pairs, 'patient')} of the images {are(pairs)} written otherwise in {self.source} and "
                f"matched by number: {some(pairs)}."
            )
        used = set(match.same.values())
        unused = [f"{cell} in line {self.lines[own[0]]}" for cell, own in rows.items() if cell not in used]
        if unused:
            remarks.append(f"{counted(unused, 'patient')} of {self.source} {have(unused)} no image: {some(unused)}.")
        if blank:
            lines = [f"line {self.lines[row]}" for row in blank]
            remarks.append(f"{counted(lines, 'row')} of {self.source} without a patient {are(lines)} left out.")
        repeated = sum(len(own) - 1 for own in rows.values())
        if repeated:
            remarks.append(f"{repeated} rows of {self.source} repeat another and are left out.")
        lacking = [name for name in known if name and name not in match.same]
        if lacking:
            names = _different(lacking)
            remarks.append(
                f"{counted(lacking, 'image')} of {counted(names, 'patient')} {have(lacking)} no row in {self.source}: "
                f"{some(names)}."
            )
        strange = [file for file, name in zip(files, known, strict=True) if not name]
        if strange:
            verb = "is" if len(strange) == 1 else "are"
            remarks.append(f"{counted(strange, 'image')} {verb} of no known patient: {some(strange)}.")
        # The patients of the images stay as these write them.
        beside = {} if repeated else {name: cells for name, cells in self.paths.items() if name not in self.columns}
        columns = {n: cells for n, cells in {**self.columns, **beside}.items() if n not in ("patient", heading)}
        found = self._rows(columns, chosen, heading, remarks, by_patient=True)
        if "label" not in columns:
            remarks.append(f"The rows of {self.source} are joined by patient.")
        headings = {name: own for name, own in self.headings.items() if name != "patient"}
        columns = {**found.columns, "patient": tuple(known)}
        return replace(found, columns=columns, remarks=tuple(remarks), headings=headings)

    def _first_rows(self, heading: str) -> tuple[dict[str, list[int]], list[int]]:
        """The rows of each patient, which say the same, and the rows without one."""
        rows: dict[str, list[int]] = {}
        for row, cell in enumerate(self.ids[heading]):
            rows.setdefault(cell, []).append(row)
        blank = rows.pop("", [])
        advice = (
            "Keep one row per patient; or, where a row is for an image, name the column of the images by path_column, "
            "or those that make up their names, such as path_column='{patient}_{x}.png'."
        )
        for cell, own in rows.items():
            self._one_row(own, f"lists the patient {cell}", advice)
        return rows, blank

    def _rows(
        self,
        columns: Mapping[str, Sequence[str]],
        chosen: Sequence[int],
        heading: str,
        remarks: Sequence[str],
        by_patient: bool = False,
    ) -> SheetRows:
        texts = {name: tuple(cells[row] if row >= 0 else "" for row in chosen) for name, cells in columns.items()}
        by = ", by patient" if by_patient else ""
        told = f"{self.headings['label']} in {self.source}{by}" if "label" in texts else ""
        listed = tuple(row >= 0 for row in chosen)
        classed = listed if "label" in texts else (False,) * len(listed)
        return SheetRows(texts, listed, heading, tuple(remarks), self.headings, told, by_patient, classed)

    def _match(self, files: Sequence[str], root: Any) -> tuple[str, Match]:
        base = _below(self.folder, root)
        matches = ((name, match_rows(cells, files, base)) for name, cells in self.paths.items())
        return max(matches, key=lambda item: sum(map(bool, item[1].rows)))

    def _one_row(self, rows: Sequence[int], does: str, advice: str = "Keep one row per image.") -> int:
        for row in rows[1:]:
            for name, cells in self.columns.items():
                if cells[row] != cells[rows[0]]:
                    raise DataError(
                        f"{self.source} {does} twice, in lines {self.lines[rows[0]]} and {self.lines[row]}, with "
                        f"{name} {cells[rows[0]]!r} and {cells[row]!r}. {advice}"
                    )
        return rows[0] if rows else -1

    def _stranger(self, files: Sequence[str], patients: Sequence[str], root: Any) -> DataError:
        """The error on a sheet of which no row matches."""
        if not self.paths:
            heading, cells = next(iter(self.ids.items()))
            names = _different(patients)
            self._first_rows(heading)  # which refuses a table that has rows for something else
            if names:
                return DataError(
                    f"None of the {counted(_different(cells), 'patient')} of {self.source} is one of the "
                    f"{len(names)} of the images: {heading} is {cells[0]!r} in line {self.lines[0]}, and the first "
                    f"image of a known patient is of {names[0]!r}. Write the patients in one way in both, or name "
                    "another column of patients by patient_column."
                )
            return DataError(
                f"{self.source} has a row for each patient ({heading}), no column that names the images, and the "
                f"patients of the images are not known: the first image is {next(iter(files), '')!r}. Say where the "
                "patient stands, such as layout='{patient}_*', or name the column of the images by path_column, or "
                "another column of patients by patient_column."
            )
        heading, match = self._match(files, root)
        if match.ambiguous:
            row, own = next(iter(match.ambiguous.items()))
            names = told_apart([files[number] for number in own])
            return DataError(
                f"{self.source} names no image alone: {heading} is {self.paths[heading][row]!r} in line "
                f"{self.lines[row]}, which may be {some(names, 3)}. Write paths with the "
                "folders that tell them apart, and names as they are."
            )
        return DataError(
            f"None of the {len(self.lines)} rows of {self.source} matches one of the {len(files)} images: "
            f"{heading} is {self.paths[heading][0]!r} in line {self.lines[0]}, and the first image is "
            f"{next(iter(files), '')!r}. Give the folder that the paths begin in, or name the column of the images "
            f"by path_column. {' '.join(self.remarks)}".rstrip()
        )


def _below(folder: Path | None, root: Any) -> str:
    """The folder of a sheet below that of the images, with forward slashes; "" outside it."""
    if folder is None or not isinstance(root, Path):
        return ""
    try:
        own = folder.resolve().relative_to(root.resolve()).as_posix()
    except (OSError, ValueError):
        return ""
    return "" if own == "." else own


def _different(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]


def _patients(names: Sequence[str]) -> str:
    return f"{'patient' if len(names) == 1 else 'patients'} {' and '.join(map(repr, names))}"
