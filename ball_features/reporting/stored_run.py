"""A run's folder as a page needs it: its files read into records."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.errors import DataError
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.results import Measurement, ModelRow, no_run, read_measurement
from ball_features.evaluation.rows import GroupRow, read_rows
from ball_features.evaluation.run_details import COMPARISON, read_details
from ball_features.files import read_csv
from ball_features.models.registry import MODELS

__all__ = ["Curve", "Parts", "StoredPredictions", "StoredRun", "best_of_each_kind", "read_stored_run"]


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
            scores = evaluate_predictions(own.truth, own.probability)
            other = [
                f"{name} {row.values[name]:.6g} and {value:.6g}"
                for name, value in scores.values.items()
                if name in row.values and not np.isclose(row.values[name], value, atol=1e-6, equal_nan=True)
            ]
            if row.confusion and scores.confusion.tolist() != row.confusion:
                other.append("two confusion matrices")
            wrong = f"metrics.json and predictions.csv give {row.model} {', '.join(other)}" if other else ""
        if wrong:
            raise DataError(f"{folder} was edited or damaged: {wrong}. Make the run again; run.json has its command.")


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
