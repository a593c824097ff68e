"""Splits that a column of the user's table gives: train, validation and test, or folds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ball_features.errors import SplitError

__all__ = ["GivenParts", "count_leaks", "read_parts"]

_PARTS: dict[str, int] = {
    **dict.fromkeys(("train", "training", "trainset", "tr"), 0),
    **dict.fromkeys(("val", "valid", "validate", "validation", "valset", "dev", "development"), 1),
    **dict.fromkeys(("test", "testing", "testset", "te", "holdout", "hold-out", "eval", "evaluation"), 2),
}
_FOLD = re.compile(r"(?:(?:fold|part|cv|split)[ _-]*)?(\d+)(?:\.0+)?", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class GivenParts:
    """The part, or the fold, that a column gives each image.

    Attributes:
        code: int (images,); without folds 0 trains, 1 validates and 2 tests, with folds the index of the fold; -1 for
            an image whose cell is empty, which takes no part.
        folds: names of the folds as the column has them, in increasing order; empty for train, validation and test.
    """

    code: np.ndarray
    folds: tuple[str, ...]


def read_parts(column: np.ndarray) -> GivenParts:
    """Read the names of parts or folds.

    Args:
        column: str (images,), such as train, val and test in any usual spelling, or 0 to 4, or fold_1 to fold_5.

    Raises:
        SplitError: a name is unknown, no image tests or trains, or there is a single fold.
    """
    cells = np.array([str(cell).strip() for cell in column])
    names, code = np.unique(cells, return_inverse=True)
    parts = [_PARTS.get(name.casefold(), None if name else -1) for name in names.tolist()]
    if not any(cells):
        raise SplitError("The column of the given split is empty. Expected train, val and test, or folds.")
    if all(part is not None for part in parts):
        found = np.array([-1 if part is None else part for part in parts])[code]
        for part, name in ((0, "trains"), (2, "tests")):
            if not (found == part).any():
                shown = ", ".join(f"{key or '(empty)'} {count}" for key, count in Counter(cells.tolist()).items())
                raise SplitError(f"No image {name} in the given split ({shown}). Expected train and test at least.")
        return GivenParts(found, ())
    numbers = [_FOLD.fullmatch(name) for name in names.tolist()]
    if all(number is not None for number, name in zip(numbers, names, strict=True) if name):
        keys = [-1 if number is None else int(number[1]) for number in numbers]
        order = sorted({key for key in keys if key >= 0})
        if len(order) < 2:
            raise SplitError(
                f"The given split has the single fold {str(names[-1])!r}, expected two or more, or train and test."
            )
        first = {key: str(name) for key, name in reversed(list(zip(keys, names.tolist(), strict=True)))}
        own = np.array([-1 if key < 0 else order.index(key) for key in keys])
        return GivenParts(own[code], tuple(first[key] for key in order))
    strange = [repr(name) for name, part in zip(names.tolist(), parts, strict=True) if part is None]
    raise SplitError(
        f"Got the parts {', '.join(strange[:5])} in the given split, expected train, val and test, or folds such as 0 "
        "to 4 or fold_1 to fold_5."
    )


def count_leaks(train: np.ndarray, test: np.ndarray, keys: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Count the test images that share something with training images.

    Args:
        train: row numbers of the images that train or validate.
        test: row numbers of the test images.
        keys: what is shared, such as "copies" or "patients" -> its value for each image, (images,); "" is unknown.

    Returns:
        Name of a key -> number of test images, for keys that any test image shares.
    """
    found = {}
    for name, value in keys.items():
        known = value[test] != "" if value.dtype.kind in "UO" else np.ones(len(test), dtype=bool)
        shared = int((np.isin(value[test], value[train]) & known).sum())
        if shared:
            found[name] = shared
    return found
