"""How the folders below an image folder are to be read: which level is the class, the split, the patient.

A level that is named for splits or patients is taken for what it is named. Where the same names lie below every folder
of a level that is named for nothing known, two readings are possible, and none is guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ball_features.dataset.folder_names import (
    is_numeric,
    is_part,
    is_patient,
    is_site,
    is_split,
    is_unlabelled,
    split_and_rest,
    split_of,
)
from ball_features.dataset.patterns import Pattern, parse_pattern
from ball_features.errors import DataError

__all__ = ["Layout", "common_folders", "read_layout"]

_CROSSING = 1.5  # folders of a level above, on average, that a name of the level below lies in
_SHOWN = 6


@dataclass(frozen=True)
class Layout:
    """What the folders say of each image.

    Attributes:
        wrappers: number of folders above everything that say nothing.
        label: class of each image; "" for an image without one.
        columns: other columns: name -> text of each image.
        reading: the layout in words, such as split/class.
        problem: why no class is read, or ""; where the classes are not needed this is no error.
        misfits: rows that lie outside the layout, and have neither class nor split.
        ignored: levels of folders below the classes that are not read, each with its names.
    """

    wrappers: int
    label: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    reading: str
    problem: str = ""
    misfits: tuple[int, ...] = ()
    ignored: tuple[tuple[str, ...], ...] = ()


def common_folders(paths: Sequence[str]) -> int:
    """Number of folders that all images lie in, one inside the other, with nothing beside them."""
    if not paths:
        return 0
    parts = [path.split("/")[:-1] for path in paths]
    first, shortest = parts[0], min(map(len, parts))
    count = 0
    while count < shortest and all(own[count] == first[count] for own in parts):
        count += 1
    return count


def read_layout(paths: Sequence[str], layout: str = "auto") -> Layout:
    """Read the columns that folders and names of images tell.

    Args:
        paths: paths of the images, relative to their folder, with forward slashes.
        layout: "auto", words such as class or split/class, or a pattern; see `patterns.parse_pattern`.

    Raises:
        ConfigError: The layout is no layout.
        DataError: No path fits the layout.
    """
    if layout == "auto":
        return _recognise(paths)
    pattern = parse_pattern(layout)
    if "label" in pattern.fields:
        return _by_pattern(paths, pattern)
    found = _recognise(paths)
    named = _by_pattern(paths, pattern)
    columns = found.columns | named.columns
    return Layout(
        found.wrappers,
        found.label,
        columns,
        f"{found.reading}, {pattern.text}",
        found.problem,
        found.misfits,
        found.ignored,
    )


def _by_pattern(paths: Sequence[str], pattern: Pattern) -> Layout:
    wrappers = 0
    most = common_folders(paths) if pattern.anchored else 0
    read = [pattern.read(path) for path in paths]
    while wrappers < most and len({own["label"] for own in read if own and "label" in own}) < 2:
        further = [pattern.read(path.split("/", wrappers + 1)[-1]) for path in paths]
        if not any(further):
            break
        wrappers, read = wrappers + 1, further
    misfits = tuple(row for row, own in enumerate(read) if own is None)
    if len(misfits) == len(paths) and paths:
        raise DataError(f"None of {len(paths)} images fits layout={pattern.text!r}; the first is {paths[0]}.")
    texts = {name: tuple((own or {}).get(name, "") for own in read) for name in pattern.fields}
    if "split" in texts:
        texts["split"] = tuple(split_of(name) or name for name in texts["split"])
    label = texts.pop("label", ("",) * len(paths))
    return Layout(wrappers, label, texts, pattern.text, misfits=misfits)


@dataclass
class _Reading:
    """Levels read so far: column -> level."""

    roles: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, level: int) -> None:
        self.roles[name] = level

    def words(self, levels: int | None = None) -> list[str]:
        """A word for each level, to the last that is read or for a number of levels; * where nothing is read."""
        named = {level: "class" if name == "label" else name for name, level in self.roles.items()}
        return [named.get(level, "*") for level in range(max(named, default=-1) + 1 if levels is None else levels)]


def _recognise(paths: Sequence[str]) -> Layout:
    wrappers = common_folders(paths)
    folders = [path.split("/")[wrappers:-1] for path in paths]
    if not paths or not any(folders):
        if wrappers:  # one folder that holds all images
            folders = [path.split("/")[wrappers - 1 : -1] for path in paths]
            return Layout(wrappers - 1, tuple(own[0] for own in folders), {}, "class")
        rows = tuple(range(len(paths)))
        problem = (
            "the images lie in it directly: give its parent, if that has one folder per class; or a sheet with a row "
            "for each image; or a layout that reads their names, such as {label}_{_}"
        )
        if not paths:
            problem = "neither it nor a folder below it holds an image. Give the folder of the images"
        return Layout(0, ("",) * len(paths), {}, "no folders", problem=problem, misfits=rows)
    aside = [bool(own) and is_unlabelled(own[0]) for own in folders]
    if any(aside) and not all(aside):
        return _beside(_recognise([path for path, out in zip(paths, aside, strict=True) if not out]), aside, wrappers)
    folders = _divided(folders)
    depth = _depth(folders)
    whole = [own for own in folders if len(own) >= depth]  # a shallow branch, such as test images, tells no lower level
    names = [
        list(dict.fromkeys(own[level] for own in (whole if level else folders) if len(own) > level))
        for level in range(depth)
    ]
    found = _Reading()
    level = _read_named(names, found)
    problem = ""
    ignored: tuple[tuple[str, ...], ...] = ()
    if level == depth:
        problem = _only_named(names, found)
    elif level + 1 < depth:
        problem, ignored = _read_below(folders, names, level, found)
    if not problem:
        found.roles.setdefault("label", level)
    return _layout(folders, found, wrappers, problem, ignored)


def _beside(labelled: Layout, aside: Sequence[bool], wrappers: int) -> Layout:
    """A layout with images that lie aside, in a folder that is named for having no class."""
    rows = [row for row, out in enumerate(aside) if not out]

    def spread(cells: Sequence[str]) -> tuple[str, ...]:
        known = dict(zip(rows, cells, strict=True))
        return tuple(known.get(row, "") for row in range(len(aside)))

    return replace(
        labelled,
        wrappers=wrappers,
        label=spread(labelled.label),
        columns={name: spread(cells) for name, cells in labelled.columns.items()},
        misfits=tuple(rows[row] for row in labelled.misfits),
    )


def _divided(folders: Sequence[list[str]]) -> Sequence[list[str]]:
    """Folders in which names such as train_Benign and test_Benign are two levels, split and class."""
    names = list(dict.fromkeys(own[0] for own in folders if own))
    parts = {name: split_and_rest(name) for name in names}
    found = [own for own in parts.values() if own]
    rests = {rest for _, rest in found}
    if len(found) < len(names) or len(rests) < 2 or len(found) < _CROSSING * len(rests):
        return folders
    return [[*(parts[own[0]] or ()), *own[1:]] if own else own for own in folders]


def _depth(folders: Sequence[Sequence[str]]) -> int:
    """Levels that at least half of the images in folders have."""
    count = Counter(len(own) for own in folders if own)
    total, depth = sum(count.values()), 0
    while sum(number for length, number in count.items() if length > depth) * 2 >= total:
        depth += 1
    return depth


def _read_named(names: Sequence[Sequence[str]], found: _Reading) -> int:
    """Read levels from the top that are named for splits, patients or sites; the number of the first that is not."""
    for level, own in enumerate(names):
        if level and len(own) == 1 and level + 1 < len(names):  # one folder for all says nothing
            continue
        if len(own) > 1 and is_split(own) and "split" not in found.roles:
            found.add("split", level)
        elif len(own) > 1 and is_split(own) and "fold" not in found.roles:
            found.add("fold", level)
        elif len(own) > 1 and is_patient(own) and "patient" not in found.roles:
            found.add("patient", level)
        elif len(own) > 1 and is_site(own) and "site" not in found.roles:
            found.add("site", level)
        elif len(own) > 1 and is_part(own) and "part" not in found.roles:
            found.add("part", level)
        else:
            return level
    return len(names)


def _only_named(names: Sequence[Sequence[str]], found: _Reading) -> str:
    last = names[-1]
    return (
        f"its folders ({_shown(last)}) are named as {found.words()[-1]}s are, and no folder of a class lies in them. "
        f"Two readings are possible: layout='class' takes these folders for the classes; a sheet can tell the class of "
        "each image"
    )


def _read_below(
    folders: Sequence[Sequence[str]], names: Sequence[Sequence[str]], level: int, found: _Reading
) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Read the levels below the class: (why two readings are possible, folders that are not read)."""
    own, below = names[level], names[level + 1]
    for lower in range(level + 1, len(names)):
        role = _role_below(names[lower])
        if role and role not in found.roles:
            found.add(role, lower)
            return "", ()
    pairs = {(row[level], row[level + 1]) for row in folders if len(row) > level + 1}
    if len(below) == 1 or len(pairs) < _CROSSING * len(below) or (is_numeric(below) and not is_numeric(own)):
        return "", _nested(folders, names, level)
    before = "".join(f"{word}/" for word in found.words(level))
    reading = (
        f"the same names ({_shown(below)}) lie below several of its folders ({_shown(own)}). Two readings are "
        f"possible: layout='{before}class' takes {_shown(own, 3)} for the classes; layout='{before}patient/class' (or "
        f"split/class, site/class, */class, by what the upper folders are) takes {_shown(below, 3)}"
    )
    return reading, ()


def _role_below(names: Sequence[str]) -> str:
    """What the folders of a level below the class are named for: patient, site, split, or "" for nothing known."""
    kinds = (("patient", is_patient), ("site", is_site), ("split", is_split))
    return next((role for role, is_kind in kinds if len(names) > 1 and is_kind(names)), "")


def _nested(
    folders: Sequence[Sequence[str]], names: Sequence[Sequence[str]], level: int
) -> tuple[tuple[str, ...], ...]:
    """Names of the levels below the class, the first to the one that divides the images most by names of its own.

    A level whose names come again in other folders, such as magnifications, divides by something else.
    """
    last = level + 1
    for lower in range(level + 2, len(names)):
        whole = [row for row in folders if len(row) > lower]
        if len({tuple(row[: lower + 1]) for row in whole}) == len(names[lower]) > len(names[last]):
            last = lower
    return tuple(tuple(names[lower]) for lower in range(level + 1, last + 1))


def _layout(
    folders: Sequence[Sequence[str]], found: _Reading, wrappers: int, problem: str, ignored: tuple[tuple[str, ...], ...]
) -> Layout:
    def texts(level: int) -> tuple[str, ...]:
        return tuple(own[level] if len(own) > level else "" for own in folders)

    columns = {name: texts(level) for name, level in found.roles.items() if name != "label"}
    for name in ("split", "fold"):
        if name in columns:
            columns[name] = tuple(split_of(own) for own in columns[name])
    if {"split", "fold"} <= set(columns) and all(own.isdecimal() for own in columns["split"] if own):
        columns["split"], columns["fold"] = columns["fold"], columns["split"]  # train and test of each fold
    label = texts(found.roles["label"]) if "label" in found.roles else ("",) * len(folders)
    beside = [any(columns[name][row] for name in columns) for row in range(len(folders))]
    misfits = tuple(row for row in range(len(folders)) if not label[row] and not beside[row])
    words = found.words()
    above = words.index("class") if "class" in words else len(words)
    reading = "/".join([*(word for word in words[:above] if word != "*"), *words[above:]])
    return Layout(wrappers, label, columns, reading, problem, misfits, ignored)


def _shown(names: Sequence[str], most: int = _SHOWN) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
