"""Rows of a sheet to files of a folder, by path, name or stem."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from ball_features.dataset.raw_table import clean_text
from ball_features.dataset.remarks import counted, have, some, told_apart
from ball_features.files import IMAGE_SUFFIXES, escaped_controls

__all__ = ["Match", "lacking_rows", "match_rows"]

_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]+://")
_NUMBER = re.compile(r"\d+\.0")  # as programs write a number in a column with gaps
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio: an upload
_COUNT = re.compile("[1-9][0-9]*")  # as spreadsheets write 007
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Match:
    """Which row speaks for which file.

    Attributes:
        rows: the rows of each file, in their order; an empty tuple for a file without one.
        missing: rows that match no file.
        ambiguous: row -> files that it may mean.
        padded: rows of numbers without the zeros that all numbers among the files have.
    """

    rows: tuple[tuple[int, ...], ...]
    missing: tuple[int, ...]
    ambiguous: dict[int, tuple[int, ...]]
    padded: tuple[int, ...] = ()

    def remarks(self, source: str, cells: Sequence[str], lines: Sequence[int], files: Sequence[str]) -> list[str]:
        """Rows that do not match, counted and named.

        Args:
            source: name of the table.
            cells: names or paths, one per row.
            lines: line of each row.
            files: paths of the files.
        """
        found = []
        if self.padded:
            row = self.padded[0]
            file = next(name for name, rows in zip(files, self.rows, strict=True) if row in rows)
            found.append(
                f"{counted(self.padded, 'row')} of {source} {_match(self.padded)} once zeros are put before: "
                f"{cells[row]} is {file}."
            )
        if self.missing:
            names = [f"{cells[row] or '(empty)'} in line {lines[row]}" for row in self.missing]
            found.append(f"{counted(names, 'row')} of {source} {_match(names)} no image: {some(names)}.")
        if self.ambiguous:
            names = [
                f"{cells[row]} in line {lines[row]} ({some(told_apart([files[number] for number in own]), 3)})"
                for row, own in self.ambiguous.items()
            ]
            found.append(
                f"{counted(names, 'row')} of {source} {_match(names)} several images, and none is taken: "
                f"{some(names, 3)}."
            )
        repeated = sum(len(rows) - 1 for rows in self.rows if rows)
        if repeated:
            found.append(f"{repeated} rows of {source} repeat another and are left out.")
        return found


def lacking_rows(files: Sequence[str], listed: Sequence[bool], source: str) -> list[str]:
    """A remark on the images without a row in a table, if there are any."""
    names = [name for name, found in zip(told_apart(files), listed, strict=True) if not found]
    return [f"{counted(names, 'image')} {have(names)} no row in {source}: {some(names)}."] if names else []


def match_rows(cells: Sequence[str], files: Sequence[str], base: str = "") -> Match:
    """Find the file that each cell names.

    A cell may be the whole path of a file or its end, or be longer than the path by folders above; slashes may lean
    either way, letter case, the form of Unicode and the ending of the name may differ, and control characters may be
    written as `files.escaped_controls` does. Where several files remain, one of the same ending, then of the same
    letters, in the same Unicode form if that tells them apart, is taken. A file that a cell names exactly is not given
    to another cell that differs from it.

    Args:
        cells: names or paths, one per row.
        files: paths of the files, relative, with forward slashes.
        base: folder that names may begin in, such as that of the table, with forward slashes.

    Returns:
        The rows of each file, and the rows without one.
    """
    found: list[list[int]] = [[] for _ in files]
    exact = {name: number for number, name in enumerate(files)}
    cells = _with_controls(cells, files, exact)
    rest: list[int] = []
    for row, cell in enumerate(cells):
        number = exact.get(f"{base}/{cell.removeprefix('./')}") if base else None
        number = exact.get(cell) if number is None else number
        if number is None:
            rest.append(row)
        else:
            found[number].append(row)
    missing: list[int] = []
    padded: list[int] = []
    ambiguous: dict[int, tuple[int, ...]] = {}
    if rest:
        width = _width(files)
        named = {number for number, rows in enumerate(found) if rows}
        keys = {row: _key(cells[row]) for row in rest}
        index = _index(files, {len(key.parts) for key in keys.values()})
        for row, key in keys.items():
            candidates = _candidates(key, index)
            if not candidates and width and key.parts and _COUNT.fullmatch(key.parts[-1]):
                key = _Key((*key.parts[:-1], key.parts[-1].zfill(width)), key.suffix)
                candidates = _candidates(key, index)
                padded += [row] if candidates else []
            candidates = [number for number in candidates if number not in named or _key(files[number]) == key]
            chosen = _narrow(candidates, cells[row], key, files)
            if len(chosen) == 1:
                found[chosen[0]].append(row)
            elif chosen:
                ambiguous[row] = tuple(chosen)
            else:
                missing.append(row)
    padded = [row for row in padded if row not in ambiguous and row not in missing]
    return Match(tuple(tuple(sorted(rows)) for rows in found), tuple(missing), ambiguous, tuple(padded))


def _with_controls(cells: Sequence[str], files: Sequence[str], exact: Container[str]) -> Sequence[str]:
    """Cells in which folders and names that have control characters are as the files have them."""
    odd: dict[str, str] = {}
    for part in {part for name in files if not name.isprintable() for part in name.split("/")}:
        written = clean_text(escaped_controls(part))
        if escaped_controls(part) != part:
            odd[written] = "" if written in odd else part
    odd = {written: part for written, part in odd.items() if part}  # two parts that are written alike stay as they are
    if not odd:
        return cells
    return [
        cell if cell in exact else "/".join(odd.get(clean_text(part), part) for part in cell.split("/"))
        for cell in cells
    ]


def _match(names: Sequence[object]) -> str:
    return "matches" if len(names) == 1 else "match"


class _Key(NamedTuple):
    parts: tuple[str, ...]  # folders and the stem of the name, without letter case
    suffix: str


@dataclass(frozen=True)
class _Index:
    whole: dict[str, list[int]]  # whole path -> files
    ends: dict[str, list[int]]  # end of a path, as long as a cell's -> files
    deepest: int  # parts of the longest path


def _key(path: str) -> _Key:
    text = path if path.isascii() else _nfc(path)
    if _ADDRESS.match(text):  # a column of a database or of a web page
        text = urllib.parse.unquote(re.split("[?#]", text, maxsplit=1)[0])
    parts = text.casefold().replace("\\", "/").split("/")
    parts = [own for part in parts if (own := part.strip()) not in ("", ".", "..") and not _DRIVE.fullmatch(own)]
    if not parts:
        return _Key((), "")
    stem, suffix = _ending(parts[-1])
    further = _ending(stem)[0] if suffix else stem  # 1.jpg.png
    parts[-1] = further.removesuffix(".0") if _NUMBER.fullmatch(further) else further
    return _Key(tuple(parts), suffix)


def _width(files: Sequence[str]) -> int:
    """Digits of the numbers that are names of files, where all have as many and some begin with 0; else 0."""
    stems = [stem for name in files if (stem := _ending(name.casefold().rpartition("/")[2])[0]).isdecimal()]
    return len(stems[0]) if len({*map(len, stems)}) == 1 and any(own[0] == "0" for own in stems) else 0


def _ending(name: str) -> tuple[str, str]:
    """A name without the ending of a picture, and that ending."""
    stem, dot, ending = name.rpartition(".")
    return (stem.strip(), dot + ending) if stem and dot + ending in IMAGE_SUFFIXES else (name, "")


def _index(files: Sequence[str], lengths: Iterable[int]) -> _Index:
    parts_of = [_key(name).parts for name in files]
    index = _Index({}, {}, max(map(len, parts_of), default=0))
    wanted = sorted(length for length in lengths if 0 < length < index.deepest)
    for number, parts in enumerate(parts_of):
        index.whole.setdefault("/".join(parts), []).append(number)
        for length in wanted:
            if length >= len(parts):
                break
            index.ends.setdefault("/".join(parts[-length:]), []).append(number)
    return index


def _candidates(key: _Key, index: _Index) -> list[int]:
    """Files whose path is the cell, or ends so, or is the longest end of the cell."""
    if not key.parts:
        return []
    cell = "/".join(key.parts)
    found = index.whole.get(cell) or index.ends.get(cell) or []
    start = max(1, len(key.parts) - index.deepest)
    while not found and start < len(key.parts):
        found = index.whole.get("/".join(key.parts[start:]), [])
        start += 1
    uploaded = _UPLOADED.fullmatch(key.parts[-1])
    if not found and uploaded:
        return index.whole.get(uploaded[1]) or index.ends.get(uploaded[1]) or []
    return found


def _narrow(candidates: list[int], cell: str, key: _Key, files: Sequence[str]) -> list[int]:
    """Of several files those of the cell's ending, then those of its letters."""
    if len(candidates) > 1 and key.suffix:
        candidates = [n for n in candidates if files[n].lower().endswith(key.suffix)] or candidates
    for form in (str, _nfc):
        if len(candidates) > 1:
            end = form(cell.replace("\\", "/")).rsplit("/", 1)[-1]
            candidates = [n for n in candidates if form(PurePosixPath(files[n]).name).startswith(end)] or candidates
    return candidates


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
