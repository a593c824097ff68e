"""A run's folder as a page needs it: its files read into records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.evaluation.results import Measurement, ModelRow, no_run
from ball_features.evaluation.rows import GroupRow, read_rows
from ball_features.evaluation.run_details import COMPARISON, read_details
from ball_features.evaluation.stored_predictions import StoredPredictions, TextPool
from ball_features.evaluation.stored_results import read_with_predictions
from ball_features.files import read_csv

__all__ = ["Curve", "Parts", "StoredRun", "best_of_each_kind", "read_stored_run"]


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
        found, known = Parts({}, {}, {}), TextPool()
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
        DataError: The folder holds no run, or one that was edited or damaged.
    """
    measurement, predictions = read_with_predictions(folder)
    try:
        details = read_details(folder, COMPARISON)
        groups = read_rows(folder / "groups.csv", GroupRow)
    except (OSError, ValueError, KeyError) as error:
        raise no_run(folder, error) from error
    return StoredRun(folder, details, measurement, groups, predictions)


def best_of_each_kind(models: Sequence[ModelRow]) -> list[ModelRow]:
    """The models that a reader compares first: the best on the network's embeddings, the head, the best shortcut."""
    network = next((row for row in models if row.kind != "shortcut"), None)
    head = next((row for row in models if row.kind == "head"), None)
    shortcut = next((row for row in models if row.kind == "shortcut"), None)
    found = [row for row in (network, head, shortcut) if row is not None]
    return [row for number, row in enumerate(found) if row not in found[:number]]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV; none where there is no such file."""
    if path.exists():
        yield from read_csv(path)
