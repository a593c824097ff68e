"""Rungs of the optimism ladder: ever stricter protocols on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping, read_grouping
from ball_features.dataset.splits import ImageTable, Split, given_leaks, make_splits
from ball_features.dataset.units import merge_units
from ball_features.errors import ConfigError, DataError, SplitError
from ball_features.runs.checks import image_table, split_by

__all__ = ["RUNGS", "Rung", "RungKind", "make_rungs"]


@dataclass(frozen=True)
class RungKind:
    """A rung that the ladder knows.

    Attributes:
        name: name of the rung, whose column replaces "series" where the user names one.
        protocol: protocol of the rung.
        column: column that the rung keeps together or goes by; "" for copies only, None for nothing.
        wanted: whether a note says why the rung is missing.
    """

    name: str
    protocol: str
    column: str | None
    wanted: bool = True


_NAMED = "series left out"  # leaves out another column where the user names one, and is then named after it

# The rungs from the most lenient to the strictest.
RUNGS: dict[str, RungKind] = {
    own.name: own
    for own in (
        RungKind("random", "holdout", None),
        RungKind("copies together", "holdout", ""),
        RungKind("given split", "given", "split", wanted=False),
        RungKind("groups", "group-cv", "group"),
        RungKind("blocks", "block-cv", "block"),
        RungKind("patients", "patient-cv", "patient", wanted=False),
        RungKind(_NAMED, "leave-group-out", "series"),
        RungKind("site left out", "leave-site-out", "site", wanted=False),
    )
}
_LEAST_FOLDS = 3
_FEW_COPIES = 0.1  # share of the test images
_MOST_GROUPS = 100  # left out one by one where the user did not name the column


@dataclass(frozen=True, eq=False)
class Rung:
    """A rung that can be climbed.

    Attributes:
        name: name of the rung.
        config: configuration with the rung's protocol and repeats.
        column: column that the rung keeps together or goes by, or "".
        splits: the splits.
        group: what the rung keeps together, (images,).
        units: int (images,); images of one unit count once in intervals.
        leaks: what crosses a given split -> number of test images concerned.
    """

    name: str
    config: FitConfig
    column: str
    splits: list[Split]
    group: np.ndarray
    units: np.ndarray
    leaks: Mapping[str, int] = field(default_factory=dict)


def make_rungs(config: FitConfig, cache: Cache) -> tuple[list[Rung], Grouping, list[str]]:
    """Make the rungs that these images, their columns in the cache and the groups file allow.

    Args:
        config: groups file or None, column of the last rung, repeats of the hold-outs.
        cache: the images.

    Returns:
        The rungs; the columns that robust models are trained against on all rungs; and notes on missing rungs.

    Raises:
        ConfigError: neither the cache nor a groups file names anything to keep together.
        DataError: the groups file has no usable column, or lacks the column that the user named.
    """
    groupings, missing = _groupings(config, cache)
    if not groupings:
        if config.groups is None:
            raise ConfigError(
                "The ladder needs groups, got none. Make them: `ball audit` on the images. Or extract with a sheet "
                "that has a column patient, site, group or split."
            )
        reason = next(iter(missing.values()))
        raise DataError(f"{reason} Or name a column of yours for the last rung, such as group_column='ward'.")
    rungs: list[Rung] = []
    notes: list[str] = []
    said: dict[str, list[str]] = {}  # note -> rungs
    for name, kind in RUNGS.items():
        if name in missing:
            notes += [f"{name}: {missing[name]}"] if kind.wanted and config.groups is not None else []
            continue
        if kind.column and name not in groupings:
            continue
        own = replace(config, protocol=kind.protocol, repeats=config.repeats if kind.protocol == "holdout" else 1)
        shown = f"{groupings[name].column} left out" if name == _NAMED else name
        try:
            if kind.column:
                _require_few(config, groupings[name], name)
                rung, remarks = _grouped(shown, own, groupings[name], cache)
                for remark in remarks:
                    said.setdefault(remark, []).append(shown)
            else:
                rung = _ungrouped(shown, own, cache, copies_together=kind.column is not None)
            rungs.append(rung)
        except SplitError as error:
            notes.append(f"{shown}: not tested. {error}")
    rungs, dropped = _without_inferred(rungs, config, cache)
    notes += [_tested(rungs), *dropped]
    alone = [own.name for own in rungs if own.name == "groups" and len(np.unique(own.units)) == len(cache.path)]
    notes += [f"{name}: no two images belong to one group; this is one more random division." for name in alone]
    said = {note: [name for name in names if name in {rung.name for rung in rungs}] for note, names in said.items()}
    notes += [f"{', '.join(names)}: {note}" for note, names in said.items() if names]
    if config.groups is None and any(name in missing and kind.wanted for name, kind in RUNGS.items()):
        lacking = ", ".join(name for name, kind in RUNGS.items() if name in missing and kind.wanted)
        notes.append(f"Not climbed, since the cache names none: {lacking}. `ball audit` finds them in the images.")
    usual = next((own for own in groupings.values() if own.series is not None), next(iter(groupings.values())))
    return rungs, groupings.get(_NAMED, usual), notes


def _tested(rungs: Sequence[Rung]) -> str:
    """How many images each rung tests, and in how many test sets."""
    counts = (f"{own.name} {sum(len(split.test) for split in own.splits)} in {len(own.splits)}" for own in rungs)
    return f"Tests of images, and test sets: {', '.join(counts)}."


def _without_inferred(rungs: list[Rung], config: FitConfig, cache: Cache) -> tuple[list[Rung], list[str]]:
    """Drop the series that the audit inferred where sites are known, with a note.

    A series is of one class. Left out of a site whose other classes stay, it tests whether a model takes the site for
    these classes, and that is asked better by leaving out the site.
    """
    inferred = next((own for own in rungs if own.name == _NAMED and own.column == "series"), None)
    sites = any(own.config.protocol == "leave-site-out" for own in rungs)
    if inferred is None or not sites or config.group_column != "auto" or "series" in cache.columns:
        return rungs, []
    note = f"{_NAMED}: not tested. The sites are known and left out instead; series are only inferred."
    return [own for own in rungs if own is not inferred], [note]


def _groupings(config: FitConfig, cache: Cache) -> tuple[dict[str, Grouping], dict[str, str]]:
    """Read the columns that the rungs need; return also why a rung's column cannot be read."""
    groupings, missing = {}, {}
    named = config.group_column
    for name, kind in RUNGS.items():
        if not kind.column or (kind.protocol != "group-cv" and name != _NAMED and kind.column == named):
            continue  # the column that the user named is left out value by value
        own = replace(config, protocol=kind.protocol, group_column=named if name == _NAMED else kind.column)
        try:
            grouping = read_grouping(own, cache.path, cache.label, cache.columns)
            if grouping is not None:
                groupings[name] = grouping
            else:
                missing[name] = f"The cache has no column {kind.column}."
        except (DataError, SplitError) as error:
            if name == _NAMED and named != "auto":  # the user named this column, so it must be there
                raise
            missing[name] = str(error)
    return groupings, missing


def _grouped(name: str, config: FitConfig, grouping: Grouping, cache: Cache) -> tuple[Rung, list[str]]:
    if config.protocol == "patient-cv":  # few patients make few folds
        units = merge_units(cache.sha256, grouping.group, grouping.together)
        most = min(len(np.unique(units[cache.label == label])) for label in np.unique(cache.label))
        config = replace(config, folds=min(config.folds, max(most, _LEAST_FOLDS)))
    splits, notes = split_by(config, cache, grouping)
    units = grouping.units(config.protocol, cache.sha256)
    leaks = given_leaks(splits, image_table(cache, grouping)) if config.protocol == "given" else {}
    return Rung(name, config, grouping.column, splits, grouping.group, units, leaks), notes


def _ungrouped(name: str, config: FitConfig, cache: Cache, *, copies_together: bool) -> Rung:
    splits, _ = make_splits(config, ImageTable(cache.path, cache.label, cache.path))
    units = merge_units(cache.sha256 if copies_together else cache.path)
    if copies_together:
        splits = _uncrossed(splits, units, cache.label) or _joined(splits, units, cache.path, cache.label)
    return Rung(name, config, "", splits, units, units)


def _require_few(config: FitConfig, grouping: Grouping, name: str) -> None:
    """Raise `SplitError` where a file without series would have its groups left out by the hundred."""
    count = len(np.unique(grouping.group))
    if name == _NAMED and config.group_column == "auto" and grouping.column != "series" and count > _MOST_GROUPS:
        source = config.groups or "The cache"
        raise SplitError(
            f"{source} has no column series, and {count} groups, expected at most {_MOST_GROUPS} to leave out one by "
            f"one. Name a column, such as group_column={grouping.column!r}, or one with larger groups."
        )


def _uncrossed(splits: Sequence[Split], units: np.ndarray, label: np.ndarray) -> list[Split]:
    """Leave out test images of which a copy is trained or validated on; nothing where these are more than a few.

    The models of the splits before can then be asked again, and need not be fitted again.
    """
    left = []
    for split in splits:
        test = split.test[~np.isin(units[split.test], units[np.concatenate([split.train, split.val])])]
        few = len(split.test) - len(test) <= _FEW_COPIES * len(split.test)
        if not few or set(label[test]) != set(label[split.test]):
            return []
        left.append(replace(split, test=test))
    return left


def _joined(splits: Sequence[Split], units: np.ndarray, path: np.ndarray, label: np.ndarray) -> list[Split]:
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
        lost = np.setdiff1d(label, label[parts[0]])
        if len(lost):
            raise SplitError(f"No image of {', '.join(lost)} is left to train on once copies are put together.")
        joined.append(Split(split.repeat, split.fold, parts[0], parts[1], parts[2]))
    return joined
