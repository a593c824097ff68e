"""Protocols: which images train, validate and test.

The unit of every split is a set of images that must stay together: byte-identical copies always, the `group` of a
groups file (copies and shared fields) under every protocol, and the column that the protocol is by. Units are dealt out
so that each part gets its share of every class. Where a group is left out, an image elsewhere that shows the same as
one of its images is left out of training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ball_features.config import PROTOCOLS, FitConfig
from ball_features.dataset.dealing import deal, train_every_class
from ball_features.dataset.given import count_leaks, read_parts
from ball_features.dataset.remarks import conflict_remark, left_out_remarks, some
from ball_features.dataset.units import merge_units
from ball_features.errors import SplitError

__all__ = ["MIN_CLASS_TRAIN", "MIN_NAMED_TRAIN", "ImageTable", "Split", "given_leaks", "make_splits"]

# A group is left out only where each of its classes keeps so many images: an inferred series, and one that is named.
MIN_CLASS_TRAIN = 50
MIN_NAMED_TRAIN = 10
_LEAST_UNITS = 10  # units of a class from which validation takes whole ones


@dataclass(frozen=True, eq=False)
class Split:
    """One division of the images.

    Attributes:
        repeat: number of the repeat of the protocol.
        fold: number of the fold in the repeat; 0 for a hold-out.
        train: int (train,), increasing row numbers.
        val: int (val,).
        test: int (test,).
        name: name of the group left out, or "".
    """

    repeat: int
    fold: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    name: str = ""


@dataclass(frozen=True, eq=False)
class ImageTable:
    """What a protocol knows of the images.

    Attributes:
        path: str (images,), ids; they make the splits independent of the order of rows.
        label: str (images,), classes.
        sha256: str (images,), content hashes; images of equal hash never cross a split.
        group: str (images,), for the protocols by group, and kept whole by the others; None where there is none.
        together: (images,), what no protocol may cut, such as copies and shared fields; None: `group` alone.
        patient: str (images,), patients, which `together` holds too; "" where unknown, None where there is no such
            column.
    """

    path: np.ndarray
    label: np.ndarray
    sha256: np.ndarray
    group: np.ndarray | None = None
    together: np.ndarray | None = None
    patient: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> ImageTable:
        """These images alone; rows is int (images,)."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items() if value is not None})

    def patients(self) -> int:
        """Number of patients."""
        return 0 if self.patient is None else len(np.unique(self.patient[self.patient != ""]))


@dataclass(frozen=True, eq=False)
class _Codes:
    """An `ImageTable` in numbers.

    Attributes:
        path: str (images,).
        classes: str (classes,), sorted.
        label: int (images,), index into `classes`.
        copies: int (images,), byte-identical images.
        units: int (images,), images that no split may cut.
    """

    path: np.ndarray
    classes: np.ndarray
    label: np.ndarray
    copies: np.ndarray
    units: np.ndarray


def make_splits(config: FitConfig, images: ImageTable) -> tuple[list[Split], list[str]]:
    """Carry out a protocol.

    Args:
        config: protocol, repeats, folds, sizes and seed.
        images: ids, classes, hashes and groups.

    Returns:
        The splits, and notes for the user.

    Raises:
        SplitError: The protocol needs groups, or a class is too small for it.
    """
    protocol = PROTOCOLS[config.protocol]
    if images.group is None and protocol.column:
        raise SplitError(
            f"The protocol {config.protocol} needs groups, got none. Give a groups file with the columns path,"
            f"{protocol.fallback or protocol.column}."
        )
    classes, label = np.unique(images.label, return_inverse=True)
    whole = None if protocol.scheme in ("leave-out", "given") else images.group
    units = merge_units(*(key for key in (images.sha256, images.together, whole) if key is not None))
    codes = _Codes(images.path, classes, label, merge_units(images.sha256), units)
    notes = [_copies_note(images)] if images.group is None else []
    conflict = conflict_remark(images.path.tolist(), images.label.tolist(), images.sha256.tolist())
    notes += [conflict] if conflict else []
    if images.patient is not None and protocol.scheme != "given":
        unknown = int((images.patient == "").sum())
        rest = f" {unknown} images name no patient and count as one each." if unknown else ""
        notes.append(
            f"No split cuts a patient: all images of each of the {images.patients()} patients stay together.{rest}"
        )
    if protocol.scheme == "given":
        assert images.group is not None
        return _given(config, codes, images, notes), notes
    if protocol.scheme == "leave-out":
        assert images.group is not None
        splits = _leave_out(config, codes, images, notes)
    else:
        _require_units(codes, 3 if protocol.scheme == "holdout" else config.folds)
        splits = [split for repeat in range(config.repeats) for split in _repeat(config, codes, repeat)]
    for split in splits:
        _check(split, codes)
    return splits, notes


def _copies_note(images: ImageTable) -> str:
    copies = len(images.label) - len(np.unique(images.sha256))
    many = "is a byte-identical copy" if copies == 1 else "are byte-identical copies"
    seen = f"{copies} of {len(images.label)} images {many} of another and stay on its side of the split. "
    unseen = "Overlapping fields cannot be seen here: `ball audit IMAGES` finds them and writes a groups file."
    return (seen if copies else "") + unseen


def _repeat(config: FitConfig, codes: _Codes, repeat: int) -> list[Split]:
    """The splits of one repeat of a hold-out or a cross-validation."""
    rng = np.random.default_rng([config.seed, repeat])
    if config.protocol == "holdout":
        shares = (1 - config.val_size - config.test_size, config.val_size, config.test_size)
        part = deal(codes.units, codes.label, shares, codes.path, rng)
        train, val, test = (np.flatnonzero(part == index) for index in range(3))
        return [Split(repeat, 0, train, val, test)]
    part = deal(codes.units, codes.label, (1 / config.folds,) * config.folds, codes.path, rng)
    splits = []
    for fold in range(config.folds):
        train, val = _carve(config, codes, np.flatnonzero(part != fold), codes.units, rng)
        splits.append(Split(repeat, fold, train, val, np.flatnonzero(part == fold)))
    return splits


def _carve(
    config: FitConfig, codes: _Codes, rest: np.ndarray, units: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(train, val) of the images that do not test; val keeps the share that it has of train in a hold-out."""
    share = config.val_size / (1 - config.test_size)
    part = deal(units[rest], codes.label[rest], (1 - share, share), codes.path[rest], rng)
    part = train_every_class(part, units[rest], codes.label[rest])
    return rest[part == 0], rest[part == 1]


def _leave_out(config: FitConfig, codes: _Codes, images: ImageTable, notes: list[str]) -> list[Split]:
    group = images.group
    assert group is not None
    splits = []
    skipped, scarce = [], []
    dropped: set[int] = set()
    units, classes = codes.units, codes.classes
    column = config.group_column if config.group_column != "auto" else PROTOCOLS[config.protocol].column
    least = MIN_CLASS_TRAIN if column == "series" else MIN_NAMED_TRAIN
    for number, name in enumerate(np.unique(group).tolist()):
        test = np.flatnonzero(group == name)
        elsewhere = np.flatnonzero(group != name)
        shared = np.isin(units[elsewhere], units[test])
        rest = elsewhere[~shared]
        left = np.bincount(codes.label[rest], minlength=len(classes))
        few = [code for code in np.unique(codes.label[test]) if left[code] < MIN_CLASS_TRAIN]
        short = [str(classes[code]) for code in few if left[code] < least]
        if short:
            skipped.append(f"{name} ({', '.join(short)})")
            continue
        if few:
            scarce.append(f"{name} ({', '.join(f'{classes[code]} {left[code]}' for code in few)})")
        # Where a class is left with a few large groups, none of them can go to validation as a whole; patients do.
        many = min(len(np.unique(units[rest][codes.label[rest] == code])) for code in range(len(classes)))
        whole = units if many >= (_LEAST_UNITS if images.patient is None else 2) else codes.copies
        for repeat in range(config.repeats):
            rng = np.random.default_rng([config.seed, repeat, len(splits)])
            train, val = _carve(config, codes, rest, whole, rng)
            splits.append(Split(repeat, number, train, val, test, name))
        dropped |= set(elsewhere[shared].tolist())
    notes += left_out_remarks(skipped, least, scarce, MIN_CLASS_TRAIN, len(dropped))
    if not splits:
        raise SplitError(
            f"No group can be left out: each holds a class that would keep fewer than {least} images to train and "
            f"validate on: {some(skipped)}. Use group-cv, a column with smaller groups, or drop these classes."
        )
    return splits


def _given(config: FitConfig, codes: _Codes, images: ImageTable, notes: list[str]) -> list[Split]:
    """Splits as a column gives them, to the row; where no image validates, whole units of training images do."""
    assert images.group is not None
    given = read_parts(images.group)
    rng = np.random.default_rng([config.seed, 0])
    splits = []
    for fold in range(len(given.folds) or 1):
        tests, trains = (given.code == 2, given.code == 0) if not given.folds else (given.code == fold, given.code >= 0)
        train, val, test = np.flatnonzero(trains & ~tests), np.flatnonzero(given.code == 1), np.flatnonzero(tests)
        if given.folds or not len(val):
            train, val = _carve(config, codes, train, codes.units, rng)
        splits.append(Split(0, fold, train, val, test))
        _check(splits[-1], codes, given=True)
    unused = int((given.code < 0).sum())
    if unused:
        notes.append(f"{unused} images have no part in the given split and are not used.")
    if not given.folds and not (given.code == 1).any():
        notes.append("The given split has no validation images; some of its training images validate.")
    leaks = given_leaks(splits, images)
    if leaks:
        said = {"copies": ("has", "have", "a copy"), "patients": ("is", "are", "of a patient")}
        said["groups"] = ("is", "are", "of a group")
        found = ", ".join(f"{count} {said[name][count > 1]} {said[name][2]}" for name, count in leaks.items())
        total = sum(len(split.test) for split in splits)
        notes.insert(0, f"The given split leaks: of {total} test images {found} in training. Its scores are too high.")
    return splits


def given_leaks(splits: Sequence[Split], images: ImageTable) -> dict[str, int]:
    """Count the test images of a given split that share something with images that train or validate.

    Args:
        splits: the splits.
        images: ids, hashes and what belongs together.

    Returns:
        "copies", "patients" or "groups" -> number of test images, over all splits.
    """
    keys = {"copies": images.sha256} | ({} if images.patient is None else {"patients": images.patient})
    total: Counter[str] = Counter()
    for split in splits:
        train, test = np.concatenate([split.train, split.val]), split.test
        total.update(count_leaks(train, test, keys))
        if images.together is not None:  # which holds patients too: it counts where no patient is known
            test = test if images.patient is None else test[images.patient[test] == ""]
            total.update(count_leaks(train, test, {"groups": images.together}))
    return dict(total)


def _require_units(codes: _Codes, least: int) -> None:
    for code, name in enumerate(codes.classes):
        own = codes.units[codes.label == code]
        count = len(np.unique(own))
        if count < least:
            noun = "image" if count == len(own) else "separate group"
            raise SplitError(
                f"Class {str(name)!r} has {count} {noun}{'' if count == 1 else 's'}, expected at least {least} "
                "for this protocol. Add images, use fewer folds, or leave the class out."
            )


def _check(split: Split, codes: _Codes, *, given: bool = False) -> None:
    """Require parts that are not empty and do not share units; train and validation may share a group left whole.

    A split that the user gave may share units, which a note counts.
    """
    parts = {"train": split.train, "val": split.val, "test": split.test}
    for name, rows in parts.items():
        if not len(rows):
            raise SplitError(f"The {name} part of repeat {split.repeat} is empty. Add images, or change the sizes.")
    shared = (
        () if given else (("train", "val", codes.copies), ("train", "test", codes.units), ("val", "test", codes.units))
    )
    for a, b, of in shared:
        if np.intersect1d(of[parts[a]], of[parts[b]]).size:
            raise SplitError(f"An image or a copy of it is in {a} and in {b}. This is a fault of ball; report it.")
    train = codes.label[split.train]
    absent = [str(name) for code, name in enumerate(codes.classes) if not np.any(train == code)]
    if absent:
        raise SplitError(f"No image of {', '.join(absent)} is left to train on. Add images, or use another protocol.")
