"""Rungs of the optimism ladder: ever stricter protocols on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping, read_grouping
from ball_features.dataset.splits import ImageTable, Split, make_splits
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError, SplitError
from ball_features.runs.checks import split_by

__all__ = ["RUNGS", "Rung", "make_rungs"]

# Rung -> (protocol, column of the groups file that stays together; "" for copies only, None for nothing). The last rung
# leaves out another column where the user names one, and is then named after it.
RUNGS: dict[str, tuple[str, str | None]] = {
    "random": ("holdout", None),
    "copies together": ("holdout", ""),
    "groups": ("group-cv", "group"),
    "blocks": ("block-cv", "block"),
    "series left out": ("leave-group-out", "series"),
}
_LAST = list(RUNGS)[-1]
_MOST_GROUPS = 100  # left out one by one where the user did not name the column


@dataclass(frozen=True, eq=False)
class Rung:
    """A rung that can be climbed.

    Attributes:
        name: name of the rung.
        config: configuration with the rung's protocol and repeats.
        column: column of the groups file that the rung keeps together, or "".
        splits: the splits.
        group: what the rung keeps together, (images,).
        units: int (images,); images of one unit count once in intervals.
    """

    name: str
    config: FitConfig
    column: str
    splits: list[Split]
    group: np.ndarray
    units: np.ndarray


def make_rungs(config: FitConfig, cache: Cache) -> tuple[list[Rung], Grouping, list[str]]:
    """Make the rungs that these images and this groups file allow.

    Args:
        config: groups file, column of the last rung, repeats of the hold-outs.
        cache: the images.

    Returns:
        The rungs; the columns that robust models are trained against on all rungs; and notes on missing rungs.

    Raises:
        DataError: the groups file has no usable column, or lacks the column that the user named.
    """
    groupings, missing = _groupings(config, cache)
    if not groupings:
        reason = next(iter(missing.values()))
        raise DataError(f"{reason} Or name a column of yours for the last rung, such as group_column='patient'.")
    rungs, notes = [], []
    for name, (protocol, column) in RUNGS.items():
        if name in missing:
            notes.append(f"{name}: {missing[name]}")
            continue
        shown = f"{groupings[name].column} left out" if name == _LAST else name
        own = replace(config, protocol=protocol, repeats=config.repeats if protocol == "holdout" else 1)
        try:
            if column:
                _require_few(config, groupings[name], name)
                rung, said = _grouped(shown, own, groupings[name], cache)
                notes += [f"{shown}: {note}" for note in said]
            else:
                rung = _ungrouped(shown, own, cache, copies_together=column is not None)
            rungs.append(rung)
        except SplitError as error:
            notes.append(f"{shown}: {error}")
    against = groupings[_LAST] if _LAST in groupings else next(iter(groupings.values()))
    return rungs, against, notes


def _groupings(config: FitConfig, cache: Cache) -> tuple[dict[str, Grouping], dict[str, str]]:
    """Read the columns that the rungs need; return also why a rung's column cannot be read."""
    groupings, missing = {}, {}
    for name, (protocol, column) in RUNGS.items():
        if not column:
            continue
        own = replace(config, protocol=protocol, group_column=config.group_column if name == _LAST else column)
        try:
            grouping = read_grouping(own, cache.path, cache.label, cache.columns)
            assert grouping is not None  # the caller made sure that a groups file is named
            groupings[name] = grouping
        except DataError as error:
            if name == _LAST and config.group_column != "auto":  # the user named this column, so it must be there
                raise
            missing[name] = str(error)
    return groupings, missing


def _grouped(name: str, config: FitConfig, grouping: Grouping, cache: Cache) -> tuple[Rung, list[str]]:
    splits, notes = split_by(config, cache, grouping)
    units = grouping.units(config.protocol, cache.sha256)
    return Rung(name, config, grouping.column, splits, grouping.group, units), notes


def _ungrouped(name: str, config: FitConfig, cache: Cache, *, copies_together: bool) -> Rung:
    splits, _ = make_splits(config, ImageTable(cache.path, cache.label, cache.path))
    units = merge_units(cache.sha256 if copies_together else cache.path)
    return Rung(name, config, "", _joined(splits, units, cache.path) if copies_together else splits, units, units)


def _require_few(config: FitConfig, grouping: Grouping, name: str) -> None:
    """Raise `SplitError` where a file without series would have its groups left out by the hundred."""
    count = len(np.unique(grouping.group))
    if name == _LAST and config.group_column == "auto" and grouping.column != "series" and count > _MOST_GROUPS:
        raise SplitError(
            f"{config.groups} has no column series, and {count} groups, expected at most {_MOST_GROUPS} to leave out "
            f"one by one. Name a column, such as group_column={grouping.column!r}, or one with larger groups."
        )


def _joined(splits: Sequence[Split], units: np.ndarray, path: np.ndarray) -> list[Split]:
    """Move each copy to the side of the first of its kind: the two rungs then differ by copies alone."""
    order = np.argsort(path)  # the result must not depend on the order of rows
    _, first, code = np.unique(units[order], return_index=True, return_inverse=True)
    leader = np.empty_like(order)
    leader[order] = order[first][code]
    joined = []
    for split in splits:
        part = np.zeros(len(path), dtype=int)
        part[split.val], part[split.test] = 1, 2
        parts = [np.flatnonzero(part[leader] == side) for side in range(3)]
        if not all(len(rows) for rows in parts):
            raise SplitError("Too few images are left to test once copies are put together. Add images.")
        joined.append(Split(split.repeat, split.fold, parts[0], parts[1], parts[2]))
    return joined
