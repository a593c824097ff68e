"""`predictions.csv` of a run's folder, read into arrays."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.files import read_csv

__all__ = ["PREDICTIONS", "StoredPredictions", "TextPool", "read_predictions"]

PREDICTIONS = "predictions.csv"


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """The predictions of one model.

    Attributes:
        path: ids of the images; an image that several splits tested comes several times.
        split: repeat and fold that tested each.
        truth: int (predictions,), index of the class.
        predicted: int (predictions,), index of the class that the file names.
        probability: float (predictions, classes).
    """

    path: list[str]
    split: list[tuple[str, str]]
    truth: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray

    @property
    def hit(self) -> np.ndarray:
        """Whether the most probable class is the true one, bool (predictions,)."""
        return self.probability.argmax(1) == self.truth

    @property
    def fault(self) -> str:
        """What its own columns contradict, in words, or ""."""
        if not (np.isfinite(self.probability).all() and np.allclose(self.probability.sum(1), 1, atol=1e-4)):
            return "probabilities that do not add up to 1"
        other = np.flatnonzero(self.probability.argmax(1) != self.predicted)
        if len(other):
            return f"a predicted class that is not the most probable one, for {self.path[other[0]]}"
        return ""


class TextPool(dict[str, str]):
    """Equal texts as one object, since a path stands in a file once for each split and model."""

    def __missing__(self, text: str) -> str:
        self[text] = text
        return text


def read_predictions(
    path: Path, classes: Sequence[str] | None = None, by: Sequence[str] = ("model",)
) -> dict[tuple[str, ...], StoredPredictions]:
    """Read the predictions of each model.

    Args:
        path: path of a `predictions.csv`.
        classes: names of the classes in the order of their indices; None for those of its columns.
        by: columns whose values tell predictions apart, such as ("rung", "model").

    Returns:
        Values of these columns -> predictions.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: A cell is no number.
        KeyError: A column or a class is missing.
    """
    found: dict[tuple[str, ...], tuple[list[str], list[tuple[str, str]], array[int], array[int], array[float]]] = {}
    known, keys = TextPool(), dict[tuple[str, str], tuple[str, str]]()
    if not path.exists():
        raise FileNotFoundError(f"no {path.name}")
    columns: list[str] = []
    code: dict[str, int] = {}
    for row in read_csv(path):
        if not columns:
            names = [name[2:] for name in row if name.startswith("p_")] if classes is None else classes
            columns, code = [f"p_{name}" for name in names], {name: number for number, name in enumerate(names)}
        own = tuple(row[name] for name in by)
        if own not in found:
            found[own] = ([], [], array("q"), array("q"), array("d"))
        paths, splits, truth, predicted, probability = found[own]
        paths.append(known[row["path"]])
        key = (row["repeat"], row["fold"])
        splits.append(keys.setdefault(key, key))
        truth.append(code[row["label"]])
        predicted.append(code[row["predicted"]])
        probability.extend(float(row[column]) for column in columns)
    return {
        key: StoredPredictions(
            paths,
            splits,
            np.array(truth, dtype=np.int64),
            np.array(predicted, dtype=np.int64),
            np.array(values).reshape(len(truth), len(columns)),
        )
        for key, (paths, splits, truth, predicted, values) in found.items()
    }
