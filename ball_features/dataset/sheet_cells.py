"""Cells of the columns of a sheet that `ball` knows: missing values, splits, ids in one spelling."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ball_features.dataset.sheet_columns import flag_columns, flag_value, split_value
from ball_features.dataset.sheet_formats import RawTable
from ball_features.errors import DataError

__all__ = ["flagged_split", "known_column", "require_one_spelling"]

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
_NUMBER = re.compile(r"[0-9]+([.,][0-9]+)?")


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


def require_one_spelling(role: str, cells: Sequence[str], lines: Sequence[int], table: RawTable) -> None:
    """Refuse 1, 1.0 and 01 in one column: they may be one patient or three."""
    spelt: dict[float, tuple[str, int]] = {}
    for cell, line in zip(cells, lines, strict=True):
        if not _NUMBER.fullmatch(cell):
            continue
        number = float(cell.replace(",", "."))
        other, first = spelt.setdefault(number, (cell, line))
        if other != cell:
            raise DataError(
                f"{table.source}: {role} is {other!r} in line {first} and {cell!r} in line {line}, which are one "
                "number. Write it in one way where one is meant, or put letters before where two are."
            )
