"""Texts of cells: nothing is guessed, and what no reader sees is left out."""

from __future__ import annotations

import datetime
import math
import unicodedata
from typing import Any

__all__ = ["cell_text", "clean_text"]


def cell_text(value: Any) -> str:
    """The text of a cell: a whole number without its decimals, a date by ISO 8601, "" of what is missing."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    value = value.item() if hasattr(value, "item") else value  # NumPy scalars
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return clean_text(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def clean_text(text: str) -> str:
    """Without blanks around, and in one Unicode form; spreadsheets and the web bring blanks that do not break."""
    text = text.strip(" \t\r\n\v\f\u00a0\ufeff\u200b\u2007\u202f")
    return text if text.isascii() else unicodedata.normalize("NFC", text)
