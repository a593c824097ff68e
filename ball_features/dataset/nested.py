"""Nested subsets of training images in front of one fixed test set: the splits of a learning curve."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ball_features.config import FitConfig
from ball_features.dataset.dealing import deal, train_every_class
from ball_features.dataset.splits import ImageTable, Split
from ball_features.dataset.units import merge_units
from ball_features.errors import SplitError

__all__ = ["Nested", "Size", "nested_splits"]

_MOST_SIZES = 7
_FEW_SIZES = 6  # with fewer halvings than this, a step is half as large
_UNITS_PER_CLASS, _IMAGES_PER_CLASS = 2, 5  # of the smallest subset, on average


@dataclass(frozen=True)
class Size:
    """One size of subset.

    Attributes:
        units: number of units (images, patients or sites), mean over the subsets.
        images: number of images, mean over the subsets.
        lost: number of subsets whose training images lack a class.
        subsets: number of subsets.
    """

    units: float
    images: float
    lost: int
    subsets: int


@dataclass(frozen=True, eq=False)
class Nested:
    """Splits of a learning curve.

    Attributes:
        splits: a split for each seed and size; `repeat` is the number of the seed, `fold` that of the size.
        sizes: sizes from the smallest to the whole pool.
        notes: notes for the user.
    """

    splits: list[Split]
    sizes: list[Size]
    notes: list[str]


def nested_splits(config: FitConfig, images: ImageTable, unit: np.ndarray | None, noun: str) -> Nested:
    """Draw one test set, and from the other images chains of subsets, each within the next larger one.

    Subsets and parts are dealt out by class and never cut a unit, a group, or a set of byte-identical copies. A share
    of each subset validates, the one that a hold-out would take.

    Args:
        config: seed, sizes of test and validation set, number of seeds (`repeats`).
        images: ids, classes, hashes and groups.
        unit: unit that is counted, such as the patient, str (images,); None for single images.
        noun: name of the unit, for messages.

    Raises:
        SplitError: there are too few units for a test set and two sizes, or a class is lacking in the pool.
    """
    classes, codes = np.unique(images.label, return_inverse=True)
    keys = [images.sha256, *(key for key in (images.together, unit) if key is not None)]
    whole = merge_units(*keys)
    counted = np.arange(len(codes)) if unit is None else np.unique(unit, return_inverse=True)[1]
    rng = np.random.default_rng([config.seed, 0])
    part = deal(whole, codes, (1 - config.test_size, config.test_size), images.path, rng)
    pool, test = np.flatnonzero(part == 0), np.flatnonzero(part == 1)
    lacking = [str(name) for code, name in enumerate(classes) if not np.any(codes[pool] == code)]
    steps, factor = _steps(len(np.unique(counted[pool])), len(np.unique(whole[pool])), len(pool), len(classes))
    chains = []
    if not lacking and len(test):
        own = (whole, codes, images.path)
        chains = [_chain(config, own, pool, (steps, factor), repeat) for repeat in range(config.repeats)]
        steps = min(map(len, chains))
        chains = [chain[:steps][::-1] for chain in chains]
    if not chains or steps < 2:
        reason = f"no {noun} of {', '.join(lacking)} is left to train on" if lacking else f"there are too few {noun}s"
        raise SplitError(
            f"A learning curve cannot be drawn: {reason} beside a test set of {100 * config.test_size:g} %. Add "
            f"{noun}s, or change test_size."
        )
    splits = [
        Split(repeat, size, *chain[size], test, f"{len(np.unique(counted[np.concatenate(chain[size])]))} {noun}s")
        for repeat, chain in enumerate(chains)
        for size in range(steps)
    ]
    sizes = [_size([split for split in splits if split.fold == size], counted, codes) for size in range(steps)]
    return Nested(splits, sizes, _notes(splits, sizes, codes, classes, noun))


def _steps(units: int, whole: int, images: int, classes: int) -> tuple[int, float]:
    """Number of sizes, and factor from one to the next."""
    room = min(min(units, whole) / (_UNITS_PER_CLASS * classes), images / (_IMAGES_PER_CLASS * classes))
    halvings = 1 + int(math.log2(max(room, 1)))
    if halvings >= _FEW_SIZES:
        return min(halvings, _MOST_SIZES), 0.5
    return min(1 + int(2 * math.log2(max(room, 1)) + 1e-9), _MOST_SIZES), math.sqrt(0.5)


def _chain(
    config: FitConfig,
    images: tuple[np.ndarray, np.ndarray, np.ndarray],
    pool: np.ndarray,
    steps: tuple[int, float],
    repeat: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, val) of each size of one seed, the largest first; fewer sizes where units so unequal leave one alone."""
    whole, codes, path = images
    rng = np.random.default_rng([config.seed, repeat, 1])
    share = config.val_size / (1 - config.test_size)
    chain, rows = [], pool
    for _ in range(steps[0]):
        if len(np.unique(whole[rows])) < 2:
            break
        part = deal(whole[rows], codes[rows], (1 - share, share), path[rows], rng)
        chain.append(_kept_classes(rows, part, whole, codes))
        part = deal(whole[rows], codes[rows], (steps[1], 1 - steps[1]), path[rows], rng)
        rows = rows[part == 0]
    return chain


def _kept_classes(
    rows: np.ndarray, part: np.ndarray, whole: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(train, val), in which a class that only validation had trains instead, and validation has a unit at least."""
    part = train_every_class(part, whole[rows], codes[rows])
    if not (part == 1).any():
        common = np.bincount(codes[rows]).argmax()
        last = whole[rows[codes[rows] == common][-1]]
        part = np.where(whole[rows] == last, 1, part)
    return rows[part == 0], rows[part == 1]


def _size(splits: Sequence[Split], counted: np.ndarray, codes: np.ndarray) -> Size:
    rows = [np.concatenate([split.train, split.val]) for split in splits]
    return Size(
        units=float(np.mean([len(np.unique(counted[own])) for own in rows])),
        images=float(np.mean([len(own) for own in rows])),
        lost=sum(len(np.unique(codes[split.train])) < codes.max() + 1 for split in splits),
        subsets=len(splits),
    )


def _notes(
    splits: Sequence[Split], sizes: Sequence[Size], codes: np.ndarray, classes: np.ndarray, noun: str
) -> list[str]:
    notes = []
    for number, size in enumerate(sizes):
        if size.lost:
            own = [split for split in splits if split.fold == number]
            gone = Counter(
                str(name)
                for split in own
                for code, name in enumerate(classes)
                if not np.any(codes[split.train] == code)
            )
            notes.append(
                f"Of {size.subsets} subsets of about {size.units:.0f} {noun}s, {size.lost} train on no image of "
                f"{', '.join(gone)}: their models cannot name it."
            )
    untested = [str(name) for code, name in enumerate(classes) if not np.any(codes[splits[0].test] == code)]
    if untested:
        notes.append(f"The test set has no image of {', '.join(untested)}.")
    return notes
