"""Results in a run's folder: tables, compared with the predictions beside them as they are read."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ball_features.errors import DataError
from ball_features.evaluation.curve import CurveRow
from ball_features.evaluation.left_out import LEAST_IMAGES
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.paired_tests import holm, mcnemar_exact
from ball_features.evaluation.results import Measurement, ModelRow, no_run
from ball_features.evaluation.rows import LadderRow, read_rows
from ball_features.evaluation.stored_predictions import StoredPredictions, read_predictions
from ball_features.files import read_csv, read_json
from ball_features.models.registry import MODELS

__all__ = ["PREDICTIONS", "read_curve", "read_ladder", "read_measurement", "read_with_predictions", "told_as_damage"]

PREDICTIONS = "predictions.csv"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
_LEVEL = 0.05  # of the tests behind `ties_best`
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
        raise _edited(" or ".join(map(str, folders)), f"{type(error).__name__}: {error}") from error


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
    _require_agreement(folder, measurement, predictions)
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
        found = _predictions(folder, ("rung", "model"))
        groups = _groups_left_out(folder, {row.rung for row in rows if row.mean_recall is not None})
        stored = {(row.rung, row.model): row for row in rows}
        _require_rows(folder, "ladder.csv", stored, found, lambda key, own: _on_rung(own, groups.get(key[0])))
        _remember(folder, "ladder.csv")
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
        found = _predictions(folder, ("model", "fold"))
        stored = {(row.model, str(row.size)): row for row in rows}
        _require_rows(folder, "curve.csv", stored, found, lambda _, own: _at_size(own))
        _remember(folder, "curve.csv")
    return rows


def _require_agreement(folder: Path, measurement: Measurement, predictions: Mapping[str, StoredPredictions]) -> None:
    """Compare the table of a run with its predictions and with `MODELS`, which say the same unless one was edited."""
    for row in measurement.models:
        own, wrong = predictions.get(row.model), _wrong_kind("metrics.json", row.model, row.kind)
        if not wrong and own is None:
            wrong = f"{PREDICTIONS} has none of {row.model}"
        elif not wrong and own is not None and own.fault:
            wrong = f"{PREDICTIONS} gives {row.model} {own.fault}"
        elif not wrong and own is not None:
            other = _differing(row, own, measurement.classes)
            wrong = f"metrics.json and {PREDICTIONS} give {row.model} {', '.join(other)}" if other else ""
        if wrong:
            raise _edited(folder, wrong)
    if wrong := _out_of_order(measurement.models) or _wrong_tests(measurement.models, predictions):
        raise _edited(folder, wrong)


def _predictions(folder: Path, by: Sequence[str]) -> dict[tuple[str, ...], StoredPredictions]:
    try:
        return read_predictions(folder / PREDICTIONS, by=by)
    except _UNREADABLE as error:
        raise _edited(folder, f"{PREDICTIONS} cannot be read ({type(error).__name__}: {error})") from error


def _require_rows(
    folder: Path,
    name: str,
    stored: Mapping[tuple[str, ...], LadderRow | CurveRow],
    found: Mapping[tuple[str, ...], StoredPredictions],
    figures: Callable[[tuple[str, ...], StoredPredictions], dict[str, float]],
) -> None:
    """Compare the rows of a table with the figures that predictions give."""
    if other := sorted(stored.keys() ^ found.keys()):
        lacking = PREDICTIONS if other[0] in stored else name
        raise _edited(folder, f"{lacking} has none of {' '.join(other[0])}")
    for key, row in stored.items():
        wrong = _wrong_kind(name, row.model, row.kind)
        if not wrong and found[key].fault:
            wrong = f"{PREDICTIONS} gives {' '.join(key)} {found[key].fault}"
        values = row.to_dict()
        for column, value in {} if wrong else figures(key, found[key]).items():
            if not _same(values[column], value):
                wrong = f"{name} and {PREDICTIONS} give {' '.join(key)} {column} {values[column]:.6g} and {value:.6g}"
                break
        if wrong:
            raise _edited(folder, wrong)


def _on_rung(own: StoredPredictions, group: Mapping[tuple[str, str, str], str] | None) -> dict[str, float]:
    """The figures of a row of `ladder.csv`, but intervals."""
    found = {"accuracy": float(own.hit.mean()), "balanced_recall": _balanced(own.hit, own.truth)}
    if group is None:
        return found
    names = [group.get((*split, path), "") for split, path in zip(own.split, own.path, strict=True)]
    images = Counter(name for name, _ in set(zip(names, own.path, strict=True)))
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


def _wrong_kind(name: str, model: str, kind: str) -> str:
    if model in MODELS and kind != MODELS[model].kind:
        return f"{name} calls {model} a {kind}, and it is a {MODELS[model].kind}"
    return ""


def _edited(folder: Path | str, wrong: str) -> DataError:
    return DataError(f"{folder} was edited or damaged: {wrong}. Make the run again; run.json has its command.")


def _differing(row: ModelRow, own: StoredPredictions, classes: Sequence[str]) -> list[str]:
    """The figures of a model that its predictions contradict: name, stored value and computed one."""
    scores = evaluate_predictions(own.truth, own.probability)
    hit, repeat = own.hit, np.array([number for number, _ in own.split])
    pairs = [(name, row.values.get(name), value) for name, value in scores.values.items()]
    for code, name in enumerate(classes):
        stored = row.per_class.get(name, {})
        pairs += [(f"{key} of {name}", stored.get(key), float(value[code])) for key, value in scores.per_class.items()]
    pairs += [
        (f"accuracy of repeat {number}", stored, float(hit[repeat == number].mean()) if number in repeat else math.nan)
        for number, stored in row.accuracy_by_repeat.items()
    ]
    found = [
        f"{name} {stored:.6g} and {value:.6g}"
        for name, stored, value in pairs
        if stored is not None and not np.isclose(stored, value, atol=1e-6, equal_nan=True)
    ]
    different = row.confusion and scores.confusion.tolist() != row.confusion
    return [*found, "two confusion matrices"] if different else found


def _out_of_order(models: Sequence[ModelRow]) -> str:
    """What the rows of a table say that their own figures contradict, or ""."""
    for first, second in itertools.pairwise(models):
        if (second.accuracy, -second.values["log_loss"]) > (first.accuracy, -first.values["log_loss"]):
            return f"{second.model} stands below {first.model} in metrics.json, and is better"
    for row in models:
        if row.ties_best != (row.p_against_best > _LEVEL) and np.isfinite(row.p_against_best):
            return (
                f"metrics.json gives {row.model} p_against_best {row.p_against_best:.6g} and ties_best {row.ties_best}"
            )
    return ""


def _wrong_tests(models: Sequence[ModelRow], predictions: Mapping[str, StoredPredictions]) -> str:
    """The first p-value of McNemar's test that the predictions contradict, or ""."""
    first = {row.model: _first_hits(predictions[row.model]) for row in models}
    tested = [row for row in models[1:] if first[row.model].keys() == first[models[0].model].keys()]
    if len(tested) < len(models) - 1:
        return "predictions.csv has other test images for some models"
    best = np.array([*first[models[0].model].values()]) if models else np.array([])
    own = [np.array([first[row.model][key] for key in first[models[0].model]]) for row in tested]
    for row, p in zip(tested, holm([mcnemar_exact(best, hits) for hits in own]), strict=True):
        stored = row.mcnemar_p_against_best
        if np.isfinite(stored) and not np.isclose(stored, p, atol=1e-6):
            return f"metrics.json and predictions.csv give {row.model} mcnemar_p_against_best {stored:.6g} and {p:.6g}"
    return ""


def _first_hits(own: StoredPredictions) -> dict[tuple[str, str], bool]:
    """Whether a model was right about each image, (fold, path) -> bool, on the repeat that comes first."""
    return {
        (fold, path): bool(right)
        for path, (repeat, fold), right in zip(own.path, own.split, own.hit.tolist(), strict=True)
        if repeat == own.split[0][0]
    }
