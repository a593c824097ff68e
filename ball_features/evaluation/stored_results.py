"""Results in a run's folder: tables, compared with the predictions beside them as they are read."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ball_features.evaluation.agreement import edited, require_agreement, wrong_kind
from ball_features.evaluation.curve import CurveRow
from ball_features.evaluation.left_out import LEAST_IMAGES
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.results import Measurement, no_run
from ball_features.evaluation.rows import LadderRow, read_rows
from ball_features.evaluation.stored_predictions import PREDICTIONS, StoredPredictions, read_predictions
from ball_features.files import read_csv, read_json

__all__ = ["PREDICTIONS", "read_curve", "read_ladder", "read_measurement", "read_with_predictions", "told_as_damage"]

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
_agreed: dict[Path, tuple[tuple[int, int, int], ...]] = {}  # table -> it and its predictions, when they were compared


@contextlib.contextmanager
def told_as_damage(*folders: Path) -> Iterator[None]:
    """Tell what fails while a page is made of the files of runs as damage of these files, which anybody may edit.

    Args:
        folders: folders of the runs.

    Raises:
        DataError: Something failed that is no message yet.
    """
    try:
        with np.errstate(all="ignore"):  # of what is no number
            yield
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise edited(" or ".join(map(str, folders)), f"{type(error).__name__}: {error}") from error


def read_measurement(folder: Path) -> Measurement:
    """Read `metrics.json` of a run's folder, and compare it with `predictions.csv` where that is kept.

    Raises:
        DataError: The folder holds no run, or one that was edited or damaged.
    """
    if _is_new(folder, "metrics.json"):
        return read_with_predictions(folder)[0]
    try:
        return _measurement(folder)
    except _UNREADABLE as error:
        raise no_run(folder, error) from error


def read_with_predictions(folder: Path) -> tuple[Measurement, dict[str, StoredPredictions]]:
    """Read `metrics.json` and `predictions.csv` of a run's folder, and compare them.

    Returns:
        The measurement, and model -> its predictions.

    Raises:
        DataError: The folder holds no run, or one that was edited or damaged.
    """
    try:
        measurement = _measurement(folder)
        found = read_predictions(folder / PREDICTIONS, measurement.classes)
    except _UNREADABLE as error:
        raise no_run(folder, error) from error
    predictions = {name: own for (name,), own in found.items()}
    require_agreement(folder, measurement, predictions)
    _remember(folder, "metrics.json")
    return measurement, predictions


def _measurement(folder: Path) -> Measurement:
    return Measurement.from_dict(read_json(folder / "metrics.json"))


def read_ladder(folder: Path) -> list[LadderRow]:
    """Read `ladder.csv` of a folder, and compare it with `predictions.csv` where that is kept; no row without a ladder.

    Raises:
        DataError: It was edited or damaged.
        ValueError: A cell is of another type.
        KeyError: A column is missing.
    """
    rows = read_rows(folder / "ladder.csv", LadderRow)
    if rows and _is_new(folder, "ladder.csv"):
        groups = _groups_left_out(folder, {row.rung for row in rows if row.mean_recall is not None})
        stored = {(row.rung, row.model): row for row in rows}
        by = ("rung", "model")
        _require_rows(folder, "ladder.csv", stored, by, lambda key, own: _on_rung(own, groups.get(key[0])))
    return rows


def read_curve(folder: Path) -> list[CurveRow]:
    """Read `curve.csv` of a folder, and compare it with `predictions.csv` where that is kept; no row without a curve.

    Raises:
        DataError: It was edited or damaged.
        ValueError: A cell is of another type.
        KeyError: A column is missing.
    """
    rows = read_rows(folder / "curve.csv", CurveRow)
    if rows and _is_new(folder, "curve.csv"):
        stored = {(row.model, str(row.size)): row for row in rows}
        _require_rows(folder, "curve.csv", stored, ("model", "fold"), lambda _, own: _at_size(own))
    return rows


def _require_rows(
    folder: Path,
    name: str,
    stored: Mapping[tuple[str, ...], LadderRow | CurveRow],
    by: Sequence[str],
    figures: Callable[[tuple[str, ...], StoredPredictions], dict[str, float]],
) -> None:
    """Compare the rows of a table with the figures that predictions, told apart by some columns, give."""
    try:
        found = read_predictions(folder / PREDICTIONS, by=by)
    except _UNREADABLE as error:
        raise edited(folder, f"{PREDICTIONS} cannot be read ({type(error).__name__}: {error})") from error
    if other := sorted(stored.keys() ^ found.keys()):
        lacking = PREDICTIONS if other[0] in stored else name
        raise edited(folder, f"{lacking} has none of {' '.join(other[0])}")
    for key, row in stored.items():
        wrong = wrong_kind(name, row.model, row.kind)
        if not wrong and found[key].fault:
            wrong = f"{PREDICTIONS} gives {' '.join(key)} {found[key].fault}"
        values = row.to_dict()
        for column, value in {} if wrong else figures(key, found[key]).items():
            if not _same(values[column], value):
                wrong = f"{name} and {PREDICTIONS} give {' '.join(key)} {column} {values[column]:.6g} and {value:.6g}"
                break
        if wrong:
            raise edited(folder, wrong)
    _remember(folder, name)


def _on_rung(own: StoredPredictions, group: Mapping[tuple[str, str, str], str] | None) -> dict[str, float]:
    """The figures of a row of `ladder.csv`, but intervals."""
    found = {"accuracy": float(own.hit.mean()), "balanced_recall": _balanced(own.hit, own.truth)}
    if group is None:
        return found
    names = [group.get((*split, path), "") for split, path in zip(own.split, own.path, strict=True)]
    images = Counter(name for name, _ in set(zip(names, own.path, strict=True)) if name)
    counted = {name for name, count in images.items() if count >= LEAST_IMAGES} or images
    order, code = np.unique(names, return_inverse=True)
    hits = np.zeros((len(order), own.probability.shape[1]))
    tests = np.zeros_like(hits)
    np.add.at(hits, (code, own.truth), own.hit)
    np.add.at(tests, (code, own.truth), 1)
    large = np.isin(order, [*counted])
    recalls = hits[large].sum(1) / tests[large].sum(1)
    with np.errstate(invalid="ignore"):
        balanced = np.nanmean(hits[large] / tests[large], axis=1)
    return {
        **found,
        "mean_recall": float(recalls.mean()),
        "worst_recall": float(recalls.min()),
        "mean_balanced_recall": float(balanced.mean()),
    }


def _at_size(own: StoredPredictions) -> dict[str, float]:
    """The figures of a row of `curve.csv`, but intervals."""
    scores = evaluate_predictions(own.truth, own.probability).values
    subsets = len(set(own.split))
    return {"accuracy": float(own.hit.mean()), "subsets": subsets} | {
        name: scores[name] for name in ("recall", "log_loss")
    }


def _balanced(hit: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([hit[truth == code].mean() for code in np.unique(truth)]))


def _groups_left_out(folder: Path, rungs: set[str]) -> dict[str, dict[tuple[str, str, str], str]]:
    """Rung -> (repeat, fold, path) -> group of a test image, of the steps that leave groups out."""
    found: dict[str, dict[tuple[str, str, str], str]] = {rung: {} for rung in rungs}
    for row in read_csv(folder / "splits.csv") if rungs else ():
        if row["split"] == "test" and row["rung"] in found:
            found[row["rung"]][row["repeat"], row["fold"], row["path"]] = row["group"]
    return found


def _same(stored: object, value: float) -> bool:
    """Whether a stored figure is the computed one; a run of an earlier version lacks some."""
    return stored is None or bool(np.isclose(float(str(stored)), value, atol=1e-6, equal_nan=True))


def _is_new(folder: Path, table: str) -> bool:
    """Whether a table can be compared with predictions, and has not been since they were written."""
    return (folder / PREDICTIONS).exists() and _agreed.get(folder.resolve() / table) != _identities(folder, table)


def _remember(folder: Path, table: str) -> None:
    _agreed[folder.resolve() / table] = _identities(folder, table)


def _identities(folder: Path, table: str) -> tuple[tuple[int, int, int], ...]:
    states = [(folder / name).stat() for name in (table, PREDICTIONS)]
    return tuple((state.st_ino, state.st_size, state.st_mtime_ns) for state in states)
