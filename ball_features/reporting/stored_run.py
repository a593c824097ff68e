"""A run's folder as a page needs it: its files read into records."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.errors import DataError
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.paired_tests import holm, mcnemar_exact
from ball_features.evaluation.results import Measurement, ModelRow, no_run, read_measurement
from ball_features.evaluation.rows import GroupRow, read_rows
from ball_features.evaluation.run_details import COMPARISON, read_details
from ball_features.files import read_csv
from ball_features.models.registry import MODELS

__all__ = ["Curve", "Parts", "StoredPredictions", "StoredRun", "best_of_each_kind", "read_stored_run"]

_LEVEL = 0.05  # of the tests behind `ties_best`


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """The predictions of one model.

    Attributes:
        path: ids of the images; an image that several splits tested comes several times.
        split: repeat and fold that tested each.
        truth: int (predictions,), index of the class.
        probability: float (predictions, classes).
    """

    path: list[str]
    split: list[tuple[str, str]]
    truth: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class Curve:
    """Training of one model on the first split of the file, as rows of `curves.csv`."""

    model: str
    rows: list[dict[str, str]]


@dataclass(frozen=True)
class Parts:
    """The content of `splits.csv`.

    Attributes:
        first: path -> split of the first repeat and fold.
        group: path -> group.
        trained: (repeat, fold) -> ids of the training images.
    """

    first: dict[str, str]
    group: dict[str, str]
    trained: dict[tuple[str, str], list[str]]


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A run that `ball fit` wrote.

    Attributes:
        folder: folder of the run.
        details: content of `run.json`.
        measurement: content of `metrics.json`.
        groups: rows of `groups.csv`; empty without groups left out.
        predictions: name of a model -> its predictions.
    """

    folder: Path
    details: Mapping[str, Any]
    measurement: Measurement
    groups: list[GroupRow]
    predictions: dict[str, StoredPredictions]

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.measurement.classes

    @property
    def models(self) -> list[ModelRow]:
        """Rows of the comparison, the best first."""
        return self.measurement.models

    def tests(self, model: str) -> int:
        """Number of test sets that the predictions of a model add up."""
        return len(set(self.predictions[model].split))

    def curves(self) -> list[Curve]:
        """Training of each model; on leave-group-out its first split need not be fold 0."""
        by_model: dict[str, list[dict[str, str]]] = {}
        for row in _rows(self.folder / "curves.csv"):
            rows = by_model.setdefault(row["model"], [])
            if not rows or (row["repeat"], row["fold"]) == (rows[0]["repeat"], rows[0]["fold"]):
                rows.append(row)
        return [Curve(name, rows) for name, rows in by_model.items()]

    def parts(self) -> Parts:
        """The part of each split that each image was in."""
        found, known = Parts({}, {}, {}), _Texts()
        for row in _rows(self.folder / "splits.csv"):
            key, path = (row["repeat"], row["fold"]), known[row["path"]]
            if not found.trained or key == next(iter(found.trained)):
                found.first[path] = known[row["split"]]
                found.group[path] = known[row["group"]]
            own = found.trained.setdefault(key, [])
            if row["split"] == "train":
                own.append(path)
        return found


def read_stored_run(folder: Path) -> StoredRun:
    """Read the files of a run.

    Raises:
        DataError: The folder holds no run.
    """
    measurement = read_measurement(folder)
    try:
        details = read_details(folder, COMPARISON)
        groups = read_rows(folder / "groups.csv", GroupRow)
        predictions = _read_predictions(folder / "predictions.csv", measurement.classes)
    except (OSError, ValueError, KeyError) as error:
        raise no_run(folder, error) from error
    _require_equal(folder, measurement, predictions)
    return StoredRun(folder, details, measurement, groups, predictions)


def _require_equal(folder: Path, measurement: Measurement, predictions: Mapping[str, StoredPredictions]) -> None:
    """Compare the table of a run with its predictions and with `MODELS`, which say the same unless one was edited."""
    for row in measurement.models:
        own, wrong = predictions.get(row.model), ""
        if row.model in MODELS and row.kind != MODELS[row.model].kind:
            wrong = f"metrics.json calls {row.model} a {row.kind}, and it is a {MODELS[row.model].kind}"
        elif own is None:
            wrong = f"predictions.csv has none of {row.model}"
        elif not (np.isfinite(own.probability).all() and np.allclose(own.probability.sum(1), 1, atol=1e-4)):
            wrong = f"probabilities of {row.model} in predictions.csv do not add up to 1"
        else:
            other = _differing(row, own, measurement.classes)
            wrong = f"metrics.json and predictions.csv give {row.model} {', '.join(other)}" if other else ""
        if wrong:
            raise _edited(folder, wrong)
    if wrong := _out_of_order(measurement.models) or _wrong_tests(measurement.models, predictions):
        raise _edited(folder, wrong)


def _edited(folder: Path, wrong: str) -> DataError:
    return DataError(f"{folder} was edited or damaged: {wrong}. Make the run again; run.json has its command.")


def _differing(row: ModelRow, own: StoredPredictions, classes: Sequence[str]) -> list[str]:
    """The figures of a model that its predictions contradict: name, stored value and computed one."""
    scores = evaluate_predictions(own.truth, own.probability)
    hit, repeat = own.probability.argmax(1) == own.truth, np.array([number for number, _ in own.split])
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
    hit = own.probability.argmax(1) == own.truth
    return {
        (fold, path): bool(right)
        for path, (repeat, fold), right in zip(own.path, own.split, hit.tolist(), strict=True)
        if repeat == own.split[0][0]
    }


def best_of_each_kind(models: Sequence[ModelRow]) -> list[ModelRow]:
    """The models that a reader compares first: the best on the network's embeddings, the head, the best shortcut."""
    network = next((row for row in models if row.kind != "shortcut"), None)
    head = next((row for row in models if row.kind == "head"), None)
    shortcut = next((row for row in models if row.kind == "shortcut"), None)
    found = [row for row in (network, head, shortcut) if row is not None]
    return [row for number, row in enumerate(found) if row not in found[:number]]


class _Texts(dict[str, str]):
    """Equal texts as one object, since a path stands in a file once for each split and model."""

    def __missing__(self, text: str) -> str:
        self[text] = text
        return text


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV; none where there is no such file."""
    if path.exists():
        yield from read_csv(path)


def _read_predictions(path: Path, classes: Sequence[str]) -> dict[str, StoredPredictions]:
    by_model: dict[str, tuple[list[str], list[tuple[str, str]], array[int], array[float]]] = {}
    columns = [f"p_{name}" for name in classes]
    code = {name: number for number, name in enumerate(classes)}
    known, keys = _Texts(), dict[tuple[str, str], tuple[str, str]]()
    if not path.exists():
        raise FileNotFoundError(f"no {path.name}")
    for row in _rows(path):
        if row["model"] not in by_model:
            by_model[row["model"]] = ([], [], array("q"), array("d"))
        paths, splits, truth, probability = by_model[row["model"]]
        paths.append(known[row["path"]])
        key = (row["repeat"], row["fold"])
        splits.append(keys.setdefault(key, key))
        truth.append(code[row["label"]])
        probability.extend(float(row[column]) for column in columns)
    return {
        name: StoredPredictions(p, s, np.array(t, dtype=np.int64), np.array(q).reshape(len(t), len(columns)))
        for name, (p, s, t, q) in by_model.items()
    }
