"""What a user should know of a collection before it is used: classes that read alike, copies, dark 16-bit images."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ball_features.files import escaped_controls

__all__ = [
    "alike_ids_remark",
    "alike_remark",
    "are",
    "conflict_remark",
    "count_classes",
    "counted",
    "dark_remark",
    "have",
    "left_out_remarks",
    "read_as",
    "some",
    "told_apart",
    "twin_names_remark",
    "visible",
]

_SAMPLE = 24  # images whose depth is looked at
_LONGEST = 255  # characters of a name that are shown, as many as a disk takes
_BRIGHT = 63.75  # of 255; 14 of 16 bits stay below
_ESCAPED = re.compile(r"\\(?:[trn]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")  # see `escaped_controls`
# Letters of Greek and Cyrillic that look like Latin ones, after case folding.
_LOOKS = str.maketrans("αβεικνορτυχаԁеһіјкӏмоԛрѕтԝухүв", "abeikvoptyxadehijklmoqpstwyxyb")
# Kind of a sign in Unicode, or a sign -> what it is read as: controls and formats as nothing.
_KINDS = {"Cc": "", "Cf": "", "Pd": "-", "Pi": "'", "Pf": "'"}
_SIGNS = {
    **dict.fromkeys("\t\n\r", " "),
    **dict.fromkeys("_\u2043\u2212", "-"),
    **dict.fromkeys('"`\xb4\u02bc\u2032', "'"),
}
_SIGNS |= dict.fromkeys(["\u034f", *map(chr, range(0xFE00, 0xFE10))], "")
_NO_FRACTION = re.compile(r"(?<=\d)[.,]0+$")  # what programs write a whole number with, where a cell is empty
_DEEP = (".tif", ".tiff", ".png", ".pgm", ".jp2")


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names of many, with commas."""
    shown = [
        name if len(name) <= _LONGEST else f"{name[:_LONGEST]}... ({len(name):,} characters)" for name in names[:most]
    ]
    return escaped_controls(", ".join(shown)) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(items: Sequence[object], noun: str) -> str:
    """A number and its noun: 1 row, 2 rows."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def have(items: Sequence[object]) -> str:
    """The verb of so many."""
    return "has" if len(items) == 1 else "have"


def are(items: Sequence[object]) -> str:
    """The verb of so many."""
    return "is" if len(items) == 1 else "are"


def visible(name: str) -> str:
    """A name in quotes, in which blanks at the ends, controls and forms of Unicode can be told apart."""
    return ascii(name) if not name.isascii() else repr(name)


def told_apart(names: Sequence[str]) -> list[str]:
    """Different names as they are, but for those that look like another one, which are made visible."""
    plain = [_without_hidden(unicodedata.normalize("NFC", name)).strip() for name in names]
    count = Counter(plain)
    return [name if count[own] == 1 else visible(name) for name, own in zip(names, plain, strict=True)]


def read_as(name: str) -> str:
    """A name in the form that others are read alike by: of letters, dashes and quotes one form, nothing invisible."""
    folded = unicodedata.normalize("NFKC", _ESCAPED.sub("", name)).casefold().translate(_LOOKS)
    return "".join(_SIGNS.get(own, _KINDS.get(unicodedata.category(own), own)) for own in folded)


def _without_hidden(text: str) -> str:
    return "".join(own for own in text if _KINDS.get(unicodedata.category(own)) != "")


def count_classes(label: Iterable[str]) -> str:
    """Classes with their counts, in a line."""
    count = Counter(label)
    none = count.pop("", 0)
    shown = dict(zip(count, told_apart([*count]), strict=True))
    listed = some([f"{shown[name]} {number}" for name, number in sorted(count.items())], 20)
    return "; ".join(filter(None, (listed, f"{none} without a class" if none else "")))


def alike_remark(label: Iterable[str]) -> str:
    """Classes whose names differ by letter case, blanks, controls, punctuation or the form of letters alone, or ""."""
    count = Counter(label)
    alike: dict[str, list[str]] = {}
    for name in sorted(count):
        alike.setdefault("".join(own for own in read_as(name) if own.isalnum()) or name, []).append(name)
    sets = [" and ".join(f"{visible(n)} ({count[n]})" for n in own) for own in alike.values() if len(own) > 1]
    if not sets:
        return ""
    return f"Classes that read alike are kept apart: {some(sets)}. Rename those that are one class."


def twin_names_remark(path: Sequence[str]) -> str:
    """Images whose names differ by the form of their letters alone, or ""."""
    names: dict[str, list[str]] = {}
    for name in path:
        if not name.isascii():
            names.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    sets = [" and ".join(map(visible, own)) for own in names.values() if len(own) > 1]
    if not sets:
        return ""
    return (
        f"{counted(sets, 'name')} {'is' if len(sets) == 1 else 'are'} there in several forms of Unicode, each of "
        f"another file: {some(sets, 3)}. A table must write them in the same form; rename them where one is a copy."
    )


def alike_ids_remark(name: str, values: Iterable[str]) -> str:
    """Ids of a column that differ by letter case, blanks, zeros before numbers or the form of signs alone, or ""."""
    alike: dict[str, list[str]] = {}
    for value in sorted(set(values)):
        plain = re.sub(r"\s|(?<![\d.,])0+(?=\d)", "", read_as(value))
        alike.setdefault(_NO_FRACTION.sub("", plain), []).append(value)
    sets = [" and ".join(map(visible, own)) for own in alike.values() if len(own) > 1]
    if not sets:
        return ""
    return f"Values of {name} that read alike are kept apart: {some(sets)}. Write those that are one in one way."


def conflict_remark(path: Sequence[str], label: Sequence[str], sha256: Sequence[str]) -> str:
    """Byte-identical images under different classes, named, or ""."""
    first: dict[str, int] = {}
    found = []
    for row, digest in enumerate(sha256):
        other = first.setdefault(digest, row)
        if label[other] != label[row] and label[row]:
            found.append(f"{path[other]} and {path[row]}")
    if not found:
        return ""
    pairs = (
        "1 pair of byte-identical images has"
        if len(found) == 1
        else f"{len(found)} pairs of byte-identical images have"
    )
    return f"{pairs} different classes: {some(found)}. Decide on one, or remove both."


def dark_remark(root: Path, path: Sequence[str]) -> str:
    """Images that are nearly black as they are read, mostly 10 to 14 bits in 16, or ""; a sample is looked at."""
    from ball_features.dataset.decode import opened, read_file  # slow to import

    deep = [name for name in path if name.lower().endswith(_DEEP)]
    for names in (deep, [name for name in path if not name.lower().endswith(_DEEP)]):
        most = [0.0, 0]
        for name in names[:: max(1, len(names) // _SAMPLE)]:
            try:
                with opened(read_file(root / name)) as (image, _):
                    most = [max(pair) for pair in zip(most, _brightest(image), strict=True)]
            except Exception:  # a damaged file is named when it is decoded
                continue
            if most[0] >= _BRIGHT:
                break
        if 0 < most[0] < _BRIGHT:
            return _dark(most[0], int(most[1]))
    return ""


def _dark(brightest: float, grey: int) -> str:
    if not grey:
        return (
            f"Images of this folder are nearly black as they are read (values up to {brightest:.0f} of 255), as those "
            "of 10 to 14 bits in files of 16 are. Save them with 8 bits, scaled to their full range."
        )
    bits = grey.bit_length()
    return (
        f"16-bit images of this folder use {bits} of 16 bits (values up to {grey} of 65535) and are nearly "
        f"black as they are read. Multiply their values by {2 ** (16 - bits)}, or save them with 8 bits."
    )


def _brightest(image: Any) -> tuple[float, int]:
    """The largest value of an image: (of 255, as it is read; of 65535, for 16-bit grey)."""
    import numpy as np

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "TIFF")):
        grey = int(np.asarray(image).max())
        return grey / 257, grey
    if image.mode == "F":
        return 255 * float(np.asarray(image).max()), 0
    image.draft("RGB", (256, 256))
    return float(np.asarray(image.convert("RGB")).max()), 0


def left_out_remarks(skipped: Sequence[str], least: int, scarce: Sequence[str], enough: int, dropped: int) -> list[str]:
    """What is to be known of groups that are left out in turn.

    Args:
        skipped: groups that are not left out, with the classes that would keep fewer than `least` images.
        least: images that a class must keep.
        scarce: groups that are left out though a class keeps fewer than `enough` images, with their number.
        enough: images that a class should keep.
        dropped: images that train nothing for they show the same as one of the group left out.
    """
    to_learn = "images to train and validate on"
    found = []
    if skipped:
        found.append(
            f"{'1 group is' if len(skipped) == 1 else f'{len(skipped)} groups are'} not left out, because without it a "
            f"class would keep fewer than {least} {to_learn}: {some(skipped)}."
        )
    if scarce:
        found.append(f"With these left out, a class keeps fewer than {enough} {to_learn}: {some(scarce)}.")
    if dropped:
        found.append(f"{dropped} images show the same as one of another group, and train no model that it tests.")
    return found
