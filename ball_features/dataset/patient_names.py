"""Patients of images to patients of a sheet: by text, and by number where only one is meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ball_features.dataset.folder_names import patient_number

__all__ = ["FoundPatients", "PatientMatch", "find_patients", "is_by_chance", "known_patients", "match_patients"]

_WHOLE = re.compile(r"0*([1-9][0-9]*|0)(?:\.0)?")


@dataclass(frozen=True)
class PatientMatch:
    """Which patient of a sheet each patient of the images is.

    Attributes:
        same: patient of images -> patient of the sheet.
        spelt: those of `same` whose text differs.
        unclear: texts of images and of the sheet that may all be one patient, or several.
    """

    same: Mapping[str, str]
    spelt: Mapping[str, str]
    unclear: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


def match_patients(images: Sequence[str], sheet: Sequence[str]) -> PatientMatch:
    """Match patients by their text; those that are left by number, as patient_07 and P07 with 7.

    Args:
        images: patients of the images, each once.
        sheet: patients of the sheet, each once.
    """
    same = {name: name for name in images if name in set(sheet)}
    left: dict[str, tuple[list[str], list[str]]] = {}
    for number, names in enumerate((images, sheet)):
        for name in names:
            if name not in same:
                left.setdefault(_key(name), ([], []))[number].append(name)
    pairs = [(tuple(own), tuple(other)) for own, other in left.values() if own and other]
    spelt = {own[0]: other[0] for own, other in pairs if len(own) == len(other) == 1}
    unclear = tuple(pair for pair in pairs if len(pair[0]) + len(pair[1]) > 2)
    return PatientMatch(same | spelt, spelt, unclear)


def _key(name: str) -> str:
    text = unicodedata.normalize("NFC", name).strip()
    whole = _WHOLE.fullmatch(text)
    number = whole[1] if whole else patient_number(text)
    return f"number {number}" if number else f"text {text.casefold()}"


@dataclass(frozen=True)
class FoundPatients:
    """Patients of a sheet that the paths of images name.

    Attributes:
        patient: text that names the patient of each image; "" where there is none.
        told: its place, in words.
    """

    patient: tuple[str, ...]
    told: str


def find_patients(files: Sequence[str], sheet: Sequence[str]) -> FoundPatients | None:
    """Find the one level of folders, or the beginning of the names, that names the patients of a sheet.

    Args:
        files: paths of the images, with forward slashes.
        sheet: patients of the sheet.

    Returns:
        The patients; None where nothing names two patients and most images, or where two places name different ones.
    """
    keys = {_key(name) for name in sheet if name}
    parts = [path.split("/") for path in files]
    found = []
    for level in range(max(map(len, parts), default=1) - 1):
        names = [own[level] if len(own) > level + 1 else "" for own in parts]
        if is_by_chance({name for name in names if _key(name) in keys}, set(sheet) - {""}):
            continue
        if _names_most([name if _key(name) in keys else "" for name in names]):
            found.append(FoundPatients(tuple(names), f"the folders {_example(names)}"))
    begin = [_beginning(own[-1], keys) for own in parts]
    if _names_most(begin):
        number = next(row for row, name in enumerate(begin) if name)
        told = f"the beginning of the names, as {begin[number]} in {parts[number][-1]}"
        found.append(FoundPatients(tuple(begin), told))
    for other in found[1:]:
        pairs = zip(found[0].patient, other.patient, strict=True)
        if any(one and two and _key(one) != _key(two) for one, two in pairs):
            return None
    return found[0] if found else None


def known_patients(
    files: Sequence[str], patients: Sequence[str], cells: Sequence[str]
) -> Iterator[tuple[Sequence[str], str]]:
    """Patients of the images as they are known, then as the paths name those of the sheet, and where."""
    if any(patients):
        yield patients, ""
    found = find_patients(files, cells)
    if found is not None:
        yield found.patient, found.told


def is_by_chance(found: Collection[str], sheet: Collection[str]) -> bool:
    """Whether names may be patients of a sheet by chance: small numbers, such as classes, and few of all patients."""
    return all(map(str.isdecimal, found)) and 2 * len(found) < len(sheet)


def _example(names: Sequence[str]) -> str:
    different = sorted({name for name in names if name})
    return ", ".join(different[:3]) + (", ..." if len(different) > 3 else "")


def _names_most(names: Sequence[str]) -> bool:
    return 2 * sum(map(bool, names)) > len(names) and len(set(names) - {""}) > 1


def _beginning(name: str, keys: set[str]) -> str:
    """The longest beginning of a file's name that is a patient; a number alone may be that of the image."""
    stem = name.rpartition(".")[0] or name
    ends = [*(found.start() for found in re.finditer(r"[ _.-]", stem)), len(stem)]
    return next((stem[:end] for end in reversed(ends) if not stem[:end].isdecimal() and _key(stem[:end]) in keys), "")
