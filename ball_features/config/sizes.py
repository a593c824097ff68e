"""Numbers and amounts of memory as users and files write them."""

from __future__ import annotations

import re

__all__ = ["LEAST_MEMORY", "read_bytes", "whole_number"]

LEAST_MEMORY = 10_000_000  # bytes, with which a window holds some hundred rows of 1,920 numbers
_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1000**_power, f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}


def read_bytes(text: str) -> int | None:
    """Read an amount such as 4GB, 500 MB or 2GiB as bytes; None where it is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in _UNITS:
        return None
    return int(min(float(found[1]) * _UNITS[found[2]], 1e18))


def whole_number(text: str) -> int | None:
    """The number of up to 18 digits (0 to 9) that a text is; None of another text."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
