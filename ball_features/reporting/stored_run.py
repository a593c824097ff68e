"""A run's folder as a page needs it: its files read into records."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.errors import DataError

__all__ = ["Curve", "Model", "Parts", "StoredPredictions", "StoredRun", "read_stored_run", "read_table"]


@dataclass(frozen=True)
class Model:
    """A row of the comparison: the model's name and kind, and its part of `metrics.json`."""

    name: str
    kind: str
    values: Mapping[str, Any]

    def number(self, key: str) -> float:
        """A metric; NaN where it is not defined."""
        return float("nan") if self.values[key] is None else float(self.values[key])

    @property
    def interval(self) -> str:
        """The 95 % interval of the accuracy, in %."""
        return f"{100 * self.number('accuracy_low'):.1f} - {100 * self.number('accuracy_high'):.1f}"


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
    """What `splits.csv` says.

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
    """What `ball fit` wrote.

    Attributes:
        folder: folder of the run.
        details: content of `run.json`.
        classes: names of the classes.
        models: rows of the comparison, the best first.
        units: number of groups that intervals resample; None in runs of versions that did not keep it.
        predictions: name of a model -> its predictions.
    """

    folder: Path
    details: Mapping[str, Any]
    classes: list[str]
    models: list[Model]
    units: int | None
    predictions: dict[str, StoredPredictions]

    def curves(self) -> list[Curve]:
        """Training of each model; on leave-group-out its first split need not be fold 0."""
        by_model: dict[str, list[dict[str, str]]] = {}
        for row in read_table(self.folder / "curves.csv"):
            rows = by_model.setdefault(row["model"], [])
            if not rows or (row["repeat"], row["fold"]) == (rows[0]["repeat"], rows[0]["fold"]):
                rows.append(row)
        return [Curve(name, rows) for name, rows in by_model.items()]

    def parts(self) -> Parts:
        """Which image was in which part of each split."""
        found = Parts({}, {}, {})
        for row in read_table(self.folder / "splits.csv"):
            key = (row["repeat"], row["fold"])
            if not found.trained or key == next(iter(found.trained)):
                found.first[row["path"]] = row["split"]
                found.group[row["path"]] = row["group"]
            own = found.trained.setdefault(key, [])
            if row["split"] == "train":
                own.append(row["path"])
        return found


def read_stored_run(folder: Path) -> StoredRun:
    """Read the files of a run.

    Raises:
        DataError: The folder holds no run.
    """
    try:
        details = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        classes = metrics["classes"]
        models = [Model(row["model"], row["kind"], row) for row in metrics["models"]]
        predictions = _read_predictions(folder / "predictions.csv", classes)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no run ({error}). Expected a folder written by `ball fit`.") from error
    return StoredRun(folder, details, classes, models, metrics.get("units"), predictions)


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read_predictions(path: Path, classes: Sequence[str]) -> dict[str, StoredPredictions]:
    by_model: dict[str, tuple[list[str], list[tuple[str, str]], list[int], list[list[float]]]] = {}
    columns = [f"p_{name}" for name in classes]
    code = {name: number for number, name in enumerate(classes)}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            paths, splits, truth, probability = by_model.setdefault(row["model"], ([], [], [], []))
            paths.append(row["path"])
            splits.append((row["repeat"], row["fold"]))
            truth.append(code[row["label"]])
            probability.append([float(row[column]) for column in columns])
    return {name: StoredPredictions(p, s, np.array(t), np.array(q)) for name, (p, s, t, q) in by_model.items()}
