"""Layouts in words and patterns: which parts of a path are class, split, patient or another column."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ball_features.errors import ConfigError

__all__ = ["Pattern", "parse_pattern"]

_WORDS = {
    "class": "label", "label": "label", "split": "split", "fold": "split", "patient": "patient", "site": "site",
    "group": "group", "series": "series",
}  # fmt: skip
_WILDCARD = re.compile(r"(\{\w*\}|\*)")
_MOST_DEEP = 2  # more would try each of many folders against each other
_EXPECTED = "expected auto, class, split/class, patient/class, class/patient, or a pattern such as {label}/{patient}_*"


@dataclass(frozen=True)
class Pattern:
    """A layout as a regular expression.

    Attributes:
        text: the layout as it was given.
        fields: names of the columns that it reads, in order.
        anchored: whether it begins at the image folder; otherwise it may begin in any folder below.
        regex: expression that a path, relative to the image folder, must match whole.
    """

    text: str
    fields: tuple[str, ...]
    anchored: bool
    regex: re.Pattern[str]

    def read(self, path: str) -> dict[str, str] | None:
        """Columns of one image; None where its path does not fit."""
        found = self.regex.fullmatch(path)
        return None if found is None else {name: found[f"f{n}"] for n, name in enumerate(self.fields)}


def parse_pattern(text: str) -> Pattern:
    """Parse a layout such as `split/class`, `{label}/{patient}_*.png` or `class/UID_{patient}_{image}_{_}.bmp`.

    Between slashes stands a word (class, split, patient, site, group, series) for a folder, `**` for any number of
    folders, or a name in which `{field}` stands for a column, `{_}` and `*` for what is not read. Words alone stand for
    folders, with the images anywhere below them.

    Raises:
        ConfigError: The text is no layout, or names a column twice.
    """
    parts = [part for part in re.split(r"[\\/]", text.strip()) if part not in ("", ".")]
    folders = bool(parts) and all(part.lower() in _WORDS or part == "*" for part in parts)
    fields: list[str] = []

    def wildcard(name: str) -> str:
        if name in ("", "_"):
            return "[^/]*?"
        own = _WORDS.get(name.lower(), name)
        if own in fields:
            raise ConfigError(f"Got layout={text!r}, which names {own} twice, {_EXPECTED}.")
        fields.append(own)
        return f"(?P<f{len(fields) - 1}>[^/]+?)"

    def part(own: str) -> str:
        if own.lower() in _WORDS:
            return wildcard(own)
        first, *pieces = _WILDCARD.split(own)
        if any(mark in piece for piece in [first, *pieces[1::2]] for mark in "{}"):
            raise ConfigError(f"Got layout={text!r} with a brace that is not closed, {_EXPECTED}.")
        marks, plain = pieces[::2], pieces[1::2]
        named = [wildcard(mark.strip("{}*")) + re.escape(rest) for mark, rest in zip(marks, plain, strict=True)]
        # Each but the last ends where the text after it first occurs: if any reading fits, that one does. So nothing
        # is tried twice, which would take for ever on a long name.
        return re.escape(first) + "".join(f"(?>{one})" for one in named[:-1]) + "".join(named[-1:])

    if parts.count("**") > _MOST_DEEP:
        raise ConfigError(f"Got layout={text!r} with more than {_MOST_DEEP} times **, {_EXPECTED}.")
    deep = "**" in parts
    bits = ["(?:[^/]+/)*" if own == "**" else part(own) + "/" for own in parts[:-1]]
    expression = ""
    if folders:
        expression = "".join(bits) + part(parts[-1]) + "/.*"
    elif parts:
        last = part(parts[-1])
        ending = "" if re.search(r"\.\w+$", parts[-1]) else r"\.[^./]+"
        expression = ("" if deep else "(?:.*/)?") + "".join(bits) + last + f"(?:{ending})?"
    if not fields:
        raise ConfigError(f"Got layout={text!r}, which reads no column, {_EXPECTED}.")
    return Pattern(text, tuple(fields), folders or deep, re.compile(expression, re.IGNORECASE | re.DOTALL))
