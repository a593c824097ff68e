"""Bounds on what a small spreadsheet may claim: its reader ends the process where memory does not suffice."""

from __future__ import annotations

import io
import re
import zipfile

__all__ = ["require_bounded"]

_EXPANSION, _FREE_BYTES = 40, 1 << 26  # XML shrinks to a fortieth of its size at most
_SPARSE, _FREE_CELLS = 16, 10_000_000  # cells of the rectangle around all cells, for each cell that is there
_PLACE = re.compile(rb"""\br=["']([A-Z]{0,3})(\d{1,9})["']""")
_CELL = re.compile(rb"<(?:\w+:)?c[\s/>]")
_BLOCK, _LONGEST_TAG = 1 << 20, 200


def require_bounded(data: bytes) -> None:
    """Check a spreadsheet in a zip file (.xlsx) before it is read.

    Raises:
        ValueError: It unpacks to more than its size warrants, or spans more cells than it holds.
        zipfile.BadZipFile: It is damaged.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        items = file.infolist()
        if sum(item.file_size for item in items) > _EXPANSION * len(data) + _FREE_BYTES:
            raise ValueError("it unpacks to more than its size warrants")
        for item in items:  # whatever their names: a workbook may call any of them a sheet
            _require_cells(file, item)


def _require_cells(file: zipfile.ZipFile, item: zipfile.ZipInfo) -> None:
    rows, columns, cells = 1, 1, 0
    before = b""
    with file.open(item) as opened:
        while block := opened.read(_BLOCK):
            text = before + block
            before = text[-_LONGEST_TAG:]  # a tag that is cut is met again, which changes no maximum
            cells += len(_CELL.findall(block))
            for letters, number in _PLACE.findall(text):
                rows, columns = max(rows, int(number)), max(columns, _column(letters))
    if rows * columns > max(_FREE_CELLS, _SPARSE * cells):
        raise ValueError(f"it spans {rows} rows and {columns} columns, and holds about {cells} cells")


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number
