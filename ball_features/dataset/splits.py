"""Protocols: which images train, choose and test.

The unit of every split is a set of images that must stay together: byte-identical copies always, the `group` of a
groups file (copies and shared fields) under every protocol, and the column that the protocol is by. Units are dealt out
so that each part gets its share of every class. Where a series is left out, an image elsewhere that shows the same as
one of its images trains nothing.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.config import FitConfig
from ball_features.errors import DataError, SplitError

__all__ = ["MIN_CLASS_TRAIN", "Grouping", "Split", "make_splits", "merge_units", "read_grouping", "read_groups"]

# Protocol -> the column that it is by, where the user names none; of others `group`.
_COLUMNS = {"block-cv": "block", "leave-group-out": "series"}

# A group is left out only where every class it holds keeps at least so many images to learn from.
MIN_CLASS_TRAIN = 50
_LEAST_UNITS = 10  # of a class, from which validation takes whole ones


@dataclass(frozen=True, eq=False)
class Split:
    """One division of the images.

    Attributes:
        repeat: Which repeat of the protocol.
        fold: Which fold of the repeat; 0 for a hold-out.
        train: int (train,), increasing row numbers.
        val: int (val,).
        test: int (test,).
        name: The group left out, or "".
    """

    repeat: int
    fold: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    name: str = ""


@dataclass(frozen=True, eq=False)
class Grouping:
    """What a groups file says of the images under a protocol.

    Attributes:
        column: The column that the protocol is by.
        group: str (images,), its values.
        together: str (images,), the file's `group`: what shows the same; each image alone where the file lacks it.
        series: str (images,), what models are trained against: the column that is left out where the user names it,
            else the file's `series`; as `group` where it lacks some.
        center: str (images,), whose mean is taken from embeddings, or None.
        sha256: Of the file's content.
    """

    column: str
    group: np.ndarray
    together: np.ndarray
    series: np.ndarray
    center: np.ndarray | None
    sha256: str

    def units(self, protocol: str, sha256: np.ndarray) -> np.ndarray:
        """What counts once in intervals and tests, int (images,): a whole series where series are left out."""
        if protocol == "leave-group-out":
            return merge_units(self.group)
        return merge_units(sha256, self.group, self.together)


def read_grouping(config: FitConfig, path: np.ndarray, label: np.ndarray) -> Grouping | None:
    """The columns of a groups file that a protocol needs, in the order of the images; None without a file.

    Args:
        config: `groups`, `group_column`, `protocol`.
        path: str (images,).
        label: str (images,).

    Raises:
        DataError: As `read_groups`; or a column to centre by tells the class.
    """
    if config.groups is None:
        return None
    columns = _columns(Path(config.groups))

    def read(name: str) -> np.ndarray:
        return read_groups(config.groups or "", name, path.tolist(), label)

    column = config.group_column
    if column == "auto":
        column = _COLUMNS.get(config.protocol, "group")
        column = column if column in columns else "group"
    group = read(column)
    together = read("group") if "group" in columns else path
    named = config.protocol == "leave-group-out" and config.group_column != "auto"
    try:
        series = read("series") if "series" in columns and not named else group
    except DataError:  # a column of the user's own with gaps, which only some models would have used
        series = group
    center = read(config.center) if config.center else None
    if center is not None and all(len(np.unique(label[center == name])) == 1 for name in np.unique(center)):
        raise DataError(
            f"Got {config.center} to centre by, each of whose values holds one class, which would go with its mean; "
            "expected a column that several classes share, such as overlay."
        )
    sha256 = hashlib.sha256(Path(config.groups).read_bytes()).hexdigest()
    return Grouping(column, group, together, series, center, sha256)


def _columns(path: Path) -> list[str]:
    """Names of the columns; none where the file cannot be read, which `read_groups` reports."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file).fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def read_groups(
    path: Path | str, column: str, paths: Sequence[str], label: Sequence[str] | np.ndarray | None = None
) -> np.ndarray:
    """A column of a groups file, or several joined, in the order of the images.

    Args:
        path: CSV with a header, the columns `path` and `column`, and a row an image.
        column: The column to read; `class+overlay` reads two and joins their values with a slash. `class` is the label
            where the file has no such column.
        paths: Ids of the images.
        label: Class of each image, for `class`.

    Returns:
        str (images,).

    Raises:
        DataError: The file or a column is missing, an image has no row or two, or a cell is empty.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            wanted = [column] if column in columns else [name.strip() for name in column.split("+")]
            labelled = label is not None and "class" not in columns
            for name in ("path", *wanted):
                if name not in columns and not (labelled and name == "class"):
                    raise DataError(f"{path} has the columns {', '.join(columns) or '(none)'}, expected {name!r} too.")
            rows = [(row["path"], [(row.get(name) or "").strip() for name in wanted]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"No groups file can be read at {path} ({error}). Expected a CSV with path,group.") from error
    twice = [name for name, count in Counter(name for name, _ in rows).items() if count > 1]
    if twice:
        raise DataError(f"{path} lists {len(twice)} images twice (first: {twice[0]}); expected one row an image.")
    table = dict(rows)
    own = dict(zip(paths, label, strict=True)) if label is not None and labelled else {}
    values: dict[str, list[str]] = {}
    for name in paths:
        cells = table.get(name, [""] * len(wanted))
        values[name] = [
            str(own[name]) if key == "class" and own else cell for key, cell in zip(wanted, cells, strict=True)
        ]
    missing = [name for name in paths if name not in table or not all(values[name])]
    if missing:
        raise DataError(
            f"{path} names no {column} for {len(missing)} of {len(paths)} images (first: {missing[0]}). Paths are "
            "relative to the image folder, with forward slashes; give each image a row."
        )
    return np.array(["/".join(values[name]) for name in paths])


def merge_units(*keys: Sequence[str] | np.ndarray) -> np.ndarray:
    """Connected components of images that share any key.

    Args:
        keys: Arrays (images,); images with an equal value in one of them belong together.

    Returns:
        int (images,), numbered in order of first appearance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(keys[0])
    sources, targets, offset = [], [], count
    for key in keys:
        _, code = np.unique(np.asarray(key), return_inverse=True)
        sources.append(np.arange(count))
        targets.append(code + offset)
        offset += int(code.max(initial=-1)) + 1
    edges = (np.ones(count * len(keys)), (np.concatenate(sources), np.concatenate(targets)))
    _, component = connected_components(coo_array(edges, shape=(offset, offset)), directed=False)
    _, first, code = np.unique(component[:count], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code]


def make_splits(
    config: FitConfig,
    path: np.ndarray,
    label: np.ndarray,
    sha256: np.ndarray,
    group: np.ndarray | None = None,
    together: np.ndarray | None = None,
) -> tuple[list[Split], list[str]]:
    """Carry out a protocol.

    Args:
        config: Protocol, repeats, folds, sizes and seed.
        path: str (images,); makes the result independent of row order.
        label: str (images,).
        sha256: str (images,); equal hashes never cross a split.
        group: str (images,), for the protocols by group and, where given, for hold-out and cv too.
        together: str (images,), what no protocol may cut, such as copies and shared fields; None: `group` alone.

    Returns:
        The splits, and notes for the user.

    Raises:
        SplitError: The protocol needs groups, or a class is too small for it.
    """
    if group is None and config.protocol in ("group-cv", "block-cv", "leave-group-out"):
        raise SplitError(
            f"Protocol {config.protocol} needs groups, got none. Give --groups FILE.csv with the columns path,group."
        )
    classes, codes = np.unique(label, return_inverse=True)
    by_unit = None if config.protocol == "leave-group-out" else group
    units = merge_units(*(key for key in (sha256, together, by_unit) if key is not None))
    copies = len(label) - len(np.unique(sha256))
    notes = []
    if group is None:
        many = "is a byte-identical copy" if copies == 1 else "are byte-identical copies"
        seen = f"{copies} of {len(label)} images {many} of another and stay on its side of the split. "
        unseen = (
            "Overlapping fields cannot be seen here: `ball audit IMAGES` finds them, --groups takes what it writes."
        )
        notes.append((seen if copies else "") + unseen)
    if config.protocol == "leave-group-out":
        assert group is not None
        splits = _leave_out(config, path, codes, classes, merge_units(sha256), units, group, notes)
    else:
        _require_units(units, codes, classes, 3 if config.protocol == "holdout" else config.folds)
        splits = []
        for repeat in range(config.repeats):
            rng = np.random.default_rng([config.seed, repeat])
            if config.protocol == "holdout":
                shares = (1 - config.val_size - config.test_size, config.val_size, config.test_size)
                part = _deal(units, codes, shares, path, rng)
                train, val, test = (np.flatnonzero(part == index) for index in range(3))
                splits.append(Split(repeat, 0, train, val, test))
                continue
            part = _deal(units, codes, (1 / config.folds,) * config.folds, path, rng)
            for fold in range(config.folds):
                rest = np.flatnonzero(part != fold)
                train, val = _carve(rest, units, codes, config, path, rng)
                splits.append(Split(repeat, fold, train, val, np.flatnonzero(part == fold)))
    for split in splits:
        _check(split, units, merge_units(sha256), codes, classes)
    return splits, notes


def _deal(
    units: np.ndarray, codes: np.ndarray, shares: Sequence[float], path: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The part of each image: units at random, large ones first, each to the part that lacks its classes most."""
    _, units = np.unique(units, return_inverse=True)
    counts = np.zeros((units.max() + 1, codes.max() + 1))  # (units, classes)
    np.add.at(counts, (units, codes), 1)
    target = np.outer(shares, counts.sum(0))  # (parts, classes)
    lacking = target.copy()
    first = np.full(len(counts), len(path))
    rank = np.argsort(np.argsort(path))
    np.minimum.at(first, units, rank)
    order = rng.permutation(np.argsort(first))
    # A tie goes to a random part; otherwise the first part would take every odd image.
    jitter = np.empty((len(counts), len(shares)))
    jitter[order] = rng.uniform(0, 1e-9, jitter.shape)
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    chosen = np.empty(len(counts), dtype=np.int64)
    scale = 1 / np.maximum(target, 1e-9)
    for unit in order:
        own = counts[unit]
        part = int(np.argmax((lacking * scale) @ own + jitter[unit]))
        chosen[unit] = part
        lacking[part] -= own
    return chosen[units]


def _carve(
    rest: np.ndarray,
    units: np.ndarray,
    codes: np.ndarray,
    config: FitConfig,
    path: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """(train, val) of the images that do not test; val keeps the share it has of train in a hold-out."""
    share = config.val_size / (1 - config.test_size)
    part = _deal(units[rest], codes[rest], (1 - share, share), path[rest], rng)
    return rest[part == 0], rest[part == 1]


def _leave_out(
    config: FitConfig,
    path: np.ndarray,
    codes: np.ndarray,
    classes: np.ndarray,
    copies: np.ndarray,
    units: np.ndarray,
    group: np.ndarray,
    notes: list[str],
) -> list[Split]:
    splits = []
    skipped = []
    dropped: set[int] = set()
    for number, name in enumerate(np.unique(group).tolist()):
        test = np.flatnonzero(group == name)
        elsewhere = np.flatnonzero(group != name)
        shared = np.isin(units[elsewhere], units[test])
        rest = elsewhere[~shared]
        left = np.bincount(codes[rest], minlength=len(classes))
        short = [str(classes[code]) for code in np.unique(codes[test]) if left[code] < MIN_CLASS_TRAIN]
        if short:
            skipped.append(f"{name} ({', '.join(short)})")
            continue
        # Where a class is left with a few large groups (patients), none of them can go to validation as a whole.
        many = min(len(np.unique(units[rest][codes[rest] == code])) for code in range(len(classes))) >= _LEAST_UNITS
        for repeat in range(config.repeats):
            rng = np.random.default_rng([config.seed, repeat, len(splits)])
            train, val = _carve(rest, units if many else copies, codes, config, path, rng)
            splits.append(Split(repeat, number, train, val, test, name))
        dropped |= set(elsewhere[shared].tolist())
    if skipped:
        notes.append(
            f"Not left out, since a class of theirs would keep fewer than {MIN_CLASS_TRAIN} images to train and "
            f"validate on: {', '.join(skipped[:5])}{f' and {len(skipped) - 5} more' if len(skipped) > 5 else ''}."
        )
    if dropped:
        notes.append(f"{len(dropped)} images show the same as one of a group left out, and do not train for it.")
    if not splits:
        raise SplitError(
            f"No group can be left out: each holds a class that would keep fewer than {MIN_CLASS_TRAIN} images "
            "to train and validate on. Use --protocol group-cv, or a --group-column with smaller groups."
        )
    return splits


def _require_units(units: np.ndarray, codes: np.ndarray, classes: np.ndarray, least: int) -> None:
    for code, name in enumerate(classes):
        count = len(np.unique(units[codes == code]))
        if count < least:
            raise SplitError(
                f"Class {str(name)!r} has {count} images or groups that can be told apart, expected at least {least} "
                "for this protocol. Add images, use fewer --folds, or leave the class out."
            )


def _check(split: Split, units: np.ndarray, copies: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> None:
    """Disjointness, always: of what trains and of what tests by unit, of train and validation at least by copy."""
    parts = {"train": split.train, "val": split.val, "test": split.test}
    for name, rows in parts.items():
        if not len(rows):
            raise SplitError(f"The {name} part of repeat {split.repeat} is empty. Add images, or change the sizes.")
    for a, b, of in (("train", "val", copies), ("train", "test", units), ("val", "test", units)):
        if np.intersect1d(of[parts[a]], of[parts[b]]).size:
            raise SplitError(f"An image or a copy of it is in {a} and in {b}. This is a fault of ball; report it.")
    absent = [str(name) for code, name in enumerate(classes) if not np.any(codes[split.train] == code)]
    if absent:
        raise SplitError(f"No image of {', '.join(absent)} is left to train on. Add images, or use another protocol.")
