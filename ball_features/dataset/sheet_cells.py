"""Cells of the columns of a sheet that `ball` knows: missing values, splits, ids in one spelling."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from ball_features.dataset.raw_table import RawTable
from ball_features.dataset.remarks import some
from ball_features.dataset.sheet_columns import flag_columns, flag_value, split_value
from ball_features.errors import DataError

__all__ = [
    "ONE_WAY",
    "MarkedClasses",
    "flagged_split",
    "known_column",
    "mark_classes",
    "one_number_twice",
    "require_one_spelling",
]

# Texts that programs and people write for a missing value.
_BLANK = {
    "nan", "na", "n/a", "#n/a", "<na>", "null", "nil", "#nv", "#nd", "#wert!", "#value!", "#ref!", "#name?", "#null!",
    "#div/0!", "?", "??", "???", "-", "--", "---", "\u2013", "\u2014", ".", "..", "n.a.", "n. a.", "n.d.", "n. d.",
    "k.a.", "k. a.", "s/d", "s.d.",
}  # fmt: skip
# Such an id is no patient; such a class may be one.
_UNKNOWN = {
    "unknown", "unk", "unspecified", "undefined", "none", "missing", "not available", "not known", "tbd", "unbekannt",
    "keine angabe", "unklar", "desconocido", "inconnu", "inconnue", "sconosciuto", "desconhecido", "nieznany",
    "onbekend",
}  # fmt: skip
_SPREADSHEET = re.compile(r"\.(xls\w?|ods)\b", re.IGNORECASE)
_MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
ONE_WAY = "Write it in one way where one is meant, or put letters before where two are."
_NUMBER = re.compile(r"[0-9]+([.,][0-9]+)?")
_ROUNDED = re.compile(r"[0-9]([.,][0-9]+)?[eE]\+[0-9]{2,3}")  # how spreadsheets and pandas write long numbers


def known_column(
    role: str, cells: Sequence[str], lines: Sequence[int], table: RawTable, remarks: list[str]
) -> tuple[str, ...]:
    """The cells of a column that `ball` knows: missing values blank, splits by one name, ids in one spelling."""
    words = _BLANK if role == "label" else _BLANK | _UNKNOWN
    blank = Counter(cell for cell in cells if cell.casefold() in words)
    if role == "label":
        open_ = Counter(cell for cell in cells if cell.casefold() in _UNKNOWN)
        remarks += [
            f"{name!r} is taken for a class of {count} rows of {table.source}. Where it means that the class is not "
            "known, leave the cells empty."
            for name, count in open_.items()
        ]
    if blank:
        names = ", ".join(repr(name) for name in blank)
        remarks.append(f"{sum(blank.values())} cells of {role} in {table.source} say {names} and are taken as empty.")
        cells = ["" if cell in blank else cell for cell in cells]
    if role == "split":
        return tuple(map(split_value, cells))
    empty = sum(not cell for cell in cells)
    if role != "label" and empty and _SPREADSHEET.search(table.source):
        remarks.append(
            f"{empty} of {len(cells)} cells of {role} in {table.source} are empty. If they hold formulas, open the "
            "file in a spreadsheet program, which computes them, mend errors, and save it."
        )
    require_one_spelling(role, cells, lines, table)
    return tuple(cells)


def flagged_split(
    header: Sequence[str], texts: Sequence[Sequence[str]], table: RawTable, remarks: list[str]
) -> dict[str, tuple[str, ...]]:
    """The column split, of columns such as is_test that say yes or no; nothing where they do not say it of each row."""
    flags = {part: [flag_value(cell) for cell in texts[place]] for part, place in flag_columns(header).items()}
    said = [part for part in ("test", "val", "train") if part in flags]
    if not said or said == ["val"] or any(None in flags[part] for part in said):
        return {}
    if any(sum(map(bool, row)) > 1 for row in zip(*(flags[part] for part in said), strict=True)):
        return {}
    rest = "" if len(said) == 3 else "test" if said[-1] == "train" else "train"
    rows = zip(*(flags[part] for part in said), strict=True)
    split = tuple(next((part for part, yes in zip(said, row, strict=True) if yes), rest) for row in rows)
    if len(set(split)) < 2:
        return {}
    names = ", ".join(header[place] for part, place in flag_columns(header).items() if part in said)
    remarks.append(f"The split is read from {names} of {table.source}.")
    return {"split": split}


@dataclass(frozen=True)
class MarkedClasses:
    """Classes that are headings of columns of 0 and 1.

    Attributes:
        headings: headings of the columns.
        label: heading of the 1 of each row; "" where there is none, and the first where there are several.
        several: line -> headings, of rows with more than one 1.
    """

    headings: tuple[str, ...]
    label: tuple[str, ...]
    several: Mapping[int, tuple[str, ...]]

    def require_one(self, source: str) -> None:
        """Refuse rows of several classes.

        Raises:
            DataError: There is one.
        """
        if not self.several:
            return
        line, names = next(iter(self.several.items()))
        raise DataError(
            f"The columns {some(self.headings, 12)} of {source} say 0 or 1, and {len(self.several)} rows have more "
            f"than one 1 (first: {' and '.join(names[:4])} in line {line}). An image has one class here. Name the "
            f"columns that are classes by label_column, such as label_column='{','.join(names[:2])}'."
        )


def mark_classes(
    columns: Mapping[str, Sequence[str]], lines: Sequence[int], table: RawTable, asked: bool = False
) -> MarkedClasses | None:
    """Read columns of 0 and 1 as classes.

    Args:
        columns: heading -> text of each row.
        lines: line of each row.
        table: table that they are of.
        asked: whether they were named, so that other cells are refused, and not columns of something else.

    Returns:
        The classes; None without two such columns, or where fewer than half of the rows have a 1.

    Raises:
        DataError: A named column holds something else.
    """
    if asked:
        for name, cells in columns.items():
            for cell, line in zip(cells, lines, strict=True):
                if cell.casefold() not in _MARKS:
                    raise DataError(f"{table.source}: {name} is {cell!r} in line {line}, expected 0 or 1.")
    marked = {name: cells for name, cells in columns.items() if all(cell.casefold() in _MARKS for cell in cells)}
    if len(marked) < 2 or not lines:
        return None
    rows = [tuple(name for name in marked if _MARKS[marked[name][row].casefold()]) for row in range(len(lines))]
    if 2 * sum(map(bool, rows)) < len(rows):
        return None
    several = {line: names for line, names in zip(lines, rows, strict=True) if len(names) > 1}
    return MarkedClasses(tuple(marked), tuple(names[0] if names else "" for names in rows), several)


def require_one_spelling(role: str, cells: Sequence[str], lines: Sequence[int], table: RawTable) -> None:
    """Refuse 1, 1.0 and 01 in one column, which may be one patient or three, and 2.02611E+16, which may be many."""
    for cell, line in zip(cells, lines, strict=True):
        if _ROUNDED.fullmatch(cell):
            raise DataError(
                f"{table.source}: {role} is {cell!r} in line {line}, a long number that a program has rounded: several "
                "may look the same now. Store the ids as text (in a spreadsheet, format the column as text before they "
                "are typed or pasted), or put letters before them."
            )
    twice = one_number_twice(cells)
    if twice:
        first, second = twice
        raise DataError(
            f"{table.source}: {role} is {cells[first]!r} in line {lines[first]} and {cells[second]!r} in line "
            f"{lines[second]}, which are one number. {ONE_WAY}"
        )


def one_number_twice(cells: Sequence[str]) -> tuple[int, int] | None:
    """Places of the first two cells that write one number in two ways, such as 1, 1.0 and 01; None without such."""
    seen: dict[Decimal, int] = {}
    for place, cell in enumerate(cells):
        if _NUMBER.fullmatch(cell) and cells[first := seen.setdefault(Decimal(cell.replace(",", ".")), place)] != cell:
            return first, place
    return None
