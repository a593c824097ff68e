"""Readers of spreadsheets and of Parquet, which run in the process that `contained` starts."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ball_features.dataset.raw_table import NESTED, arrow_values, as_text, cell_text
from ball_features.dataset.spreadsheet_size import require_bounded

__all__ = ["READERS", "main"]

_MOST_CELLS, _MOST_SHEETS = 100_000_000, 1000
_LONGEST_MESSAGE = 300
_MOST_OUTSIDE = 1 << 20  # cells of merged blocks that lie beyond the cells that are there

Tables = list[tuple[str, list[list[str]], dict[str, str]]]


def main(limits: tuple[str, int, int]) -> None:
    """Read a file from standard input and write its tables to standard output, as JSON; a text says what is wrong.

    Args:
        limits: key of `READERS`, bytes of memory beside what is taken already, seconds of processor time.
    """
    kind, memory, seconds = limits
    try:
        data, read = sys.stdin.buffer.read(), READERS[kind]()
        _limit(memory, seconds)  # from here on
        text = json.dumps(read(data))
    except MemoryError:
        text = json.dumps("it needs more memory than its size warrants")
    except Exception as error:  # the readers raise several kinds for damaged files
        text = json.dumps(f"{str(error) or type(error).__name__}"[:_LONGEST_MESSAGE])
    sys.stdout.write(text)


def _limit(memory: int, seconds: int) -> None:
    """Bound this process; not every system can."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))  # told at the first, ended at the second
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))


def _spreadsheets() -> Callable[[bytes], Tables]:
    from python_calamine import CalamineWorkbook

    def read(data: bytes) -> Tables:
        if data.startswith(b"PK"):
            require_bounded(data)
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        if len(book.sheet_names) > _MOST_SHEETS:
            raise ValueError(f"it names {len(book.sheet_names)} sheets")
        found = []
        for name in book.sheet_names:
            sheet = book.get_sheet_by_name(name)
            cells = [[cell_text(value) for value in row] for row in sheet.to_python(skip_empty_area=False)]
            _fill_merged(cells, getattr(sheet, "merged_cell_ranges", None) or ())
            found.append((name, cells, {}))
        return found

    return read


def _fill_merged(cells: list[list[str]], ranges: Iterable[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    """Give each cell of a merged block its value."""
    left_over = sum(map(len, cells))
    for (top, left), (bottom, right) in ranges:
        left_over -= max(0, min(bottom + 1, len(cells)) - top) * (right + 1 - left)
        if left_over < -_MOST_OUTSIDE:
            raise ValueError("its merged blocks overlap")
        for row in range(top, min(bottom + 1, len(cells))):
            for column in range(left, min(right + 1, len(cells[row]))):
                cells[row][column] = cells[top][left]


def _parquets() -> Callable[[bytes], Tables]:
    import pyarrow as pa
    from pyarrow import parquet

    pa.set_cpu_count(1)

    def read(data: bytes) -> Tables:
        about = parquet.ParquetFile(pa.BufferReader(data))
        flat = [field.name for field in about.schema_arrow if not pa.types.is_nested(field.type)]
        cells = about.metadata.num_rows * max(len(flat), 1)
        if cells > _MOST_CELLS:
            raise ValueError(f"it claims {about.metadata.num_rows} rows of {len(flat)} columns")
        table = about.read(columns=flat, use_threads=False)
        names, texts, unread = as_text(table.column_names, map(arrow_values, table.columns))
        unread |= dict.fromkeys((field.name for field in about.schema_arrow if pa.types.is_nested(field.type)), NESTED)
        return [("", [names, *(list(row) for row in zip(*texts, strict=True))], unread)]

    return read


READERS: dict[str, Callable[[], Callable[[bytes], Tables]]] = {"worksheets": _spreadsheets, "parquet": _parquets}
