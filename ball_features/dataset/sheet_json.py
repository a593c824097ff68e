"""Tables in JSON: a list of records, columns, what pandas writes, or a record in each line (JSON Lines)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from ball_features.dataset.raw_table import RawTable, from_columns
from ball_features.dataset.sheet_columns import names_images
from ball_features.errors import DataError

__all__ = ["read_json"]

_MOST_CHARACTERS = 1 << 28
_SPARSE, _FREE_CELLS = 16, 10_000_000  # cells of the whole table, for each cell that is there
_EXPECTED = "Expected a list of records, lists of equal length by name, or a record in each line"


def read_json(source: str, text: str) -> RawTable:
    """Read a table in JSON. Values that are nested are left out and named.

    Args:
        source: name of the file for messages.
        text: its content.

    Raises:
        DataError: The text is no JSON, is nested too deeply, holds no table or several, or is larger than it warrants.
    """
    if len(text) > _MOST_CHARACTERS:
        raise DataError(f"{source} has {len(text) / 1e6:.0f} million characters, too many for JSON. Save it as .csv.")
    try:
        found = _loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise _refused(source, f"line {error.lineno}: {error.msg}") from error
        return _lines(source, text)
    except (RecursionError, ValueError) as error:
        raise _refused(source, _reason(error)) from error
    return _table(source, found)


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice!r} is there twice in one record")
    return found


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _refused(source: str, reason: str) -> DataError:
    return DataError(
        f"{source} seems to be JSON and cannot be read as a table ({reason}). {_EXPECTED}; or save a .csv."
    )


def _lines(source: str, text: str) -> RawTable:
    records, lines = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = _loads(line)
        except (RecursionError, ValueError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else _reason(error)
            raise _refused(source, f"line {number}: {reason}") from error
        if not isinstance(record, Mapping):
            raise _refused(source, f"line {number} holds no record")
        records.append(record)
        lines.append(number)
    return _of_records(source, records, lines)


def _table(source: str, found: Any) -> RawTable:
    if _is_records(found):
        return _of_records(source, found, range(1, len(found) + 1))
    if not isinstance(found, Mapping) or not found:
        raise _refused(source, "it holds no records")
    tables = [name for name, value in found.items() if _is_records(value)]
    if len(tables) > 1:
        raise _refused(source, f"it holds several tables: {', '.join(tables)}; one for all images is needed")
    if tables:
        return _table(source, found[tables[0]])
    values = list(found.values())
    if isinstance(found.get("columns"), list) and isinstance(found.get("data"), list):  # pandas, orient="split"
        return _of_rows(source, found["columns"], found["data"])
    if all(isinstance(value, list) for value in values):
        lengths = {name: len(value) for name, value in found.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise _refused(source, f"its lists have different lengths: {listed}")
        return _of_rows(source, list(found), list(zip(*values, strict=True)))
    if all(isinstance(value, Mapping) for value in values):
        return _of_mappings(source, found)
    if not any(isinstance(value, list | Mapping) for value in values):
        if any(map(names_images, found)):
            return _of_records(source, [found], [1])
        return from_columns(source, ["id", "label"], [list(found), values])  # {"1.jpg": "Benign"}
    raise _refused(source, f"it holds no records, but {', '.join(list(found)[:5])}")


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _of_mappings(source: str, found: Mapping[str, Any]) -> RawTable:
    """Columns by the number of the row, as pandas writes them, or records by the name of the image or the patient."""
    if all(key.isdecimal() for key in chain.from_iterable(found.values())):
        numbers = list(dict.fromkeys(chain.from_iterable(found.values())))
        records = [{name: column.get(number) for name, column in found.items()} for number in numbers]
        return _of_records(source, records, range(1, len(records) + 1))
    numbered = all(name.isdecimal() for name in found) and any(
        names_images(key) for own in found.values() for key in own
    )
    records = [own if numbered else {"id": name, **own} for name, own in found.items()]
    return _of_records(source, records, range(1, len(records) + 1))


def _of_rows(source: str, header: Sequence[Any], rows: Sequence[Any]) -> RawTable:
    if any(not isinstance(row, list | tuple) or len(row) != len(header) for row in rows):
        raise _refused(source, f"its rows have other lengths than its {len(header)} columns")
    records = [dict(zip(map(str, header), row, strict=True)) for row in rows]
    return _of_records(source, records, range(1, len(records) + 1))


def _of_records(source: str, records: Sequence[Mapping[str, Any]], lines: Sequence[int]) -> RawTable:
    header = list(dict.fromkeys(chain.from_iterable(records)))
    held = sum(map(len, records))
    if len(header) * len(records) > max(_FREE_CELLS, _SPARSE * held):
        raise _refused(source, f"it spans {len(records)} rows and {len(header)} columns, and holds {held} cells")
    columns = [[record.get(name) for record in records] for name in header]
    table = from_columns(source, header, columns, lines)
    if not table.rows[0]:
        raise _refused(source, f"its values are nested: {', '.join(sorted(table.unread))}")
    return table
