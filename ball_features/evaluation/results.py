"""Records of a measured comparison, and their form in `metrics.json` and `metrics.csv`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ball_features.errors import DataError
from ball_features.evaluation.intervals import Interval
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.patient_scores import PatientScores

__all__ = ["BestOf", "Measurement", "ModelRow", "no_run"]


_WHOLE_MATRIX = 100  # most classes whose confusion matrix is stored whole
_MOST_CLASSES = 5000  # whose confusion matrix takes 200 MB


@dataclass(frozen=True)
class ModelRow:
    """A model of the comparison table. `row["f1"]` reads any column of `metrics.csv`.

    Attributes:
        model: name of the model.
        kind: "head", "baseline" or "shortcut".
        values: name of a metric -> its value on the pooled predictions.
        intervals: name of a metric -> its 95 % interval.
        fit_s: seconds to fit, mean over splits.
        predict_s: seconds to predict the test images, mean over splits.
        per_class: class -> "support", a metric's name, "recall_low" or "recall_high" -> its value.
        confusion: counts; a row a true class, a column a predicted one.
        accuracy_by_repeat: number of a repeat -> accuracy on it.
        best_epochs: epoch that validation chose on each split, from 0; empty for models without epochs.
        ties_best: True where the difference from the best is not significant at 5 %.
        p_against_best: p-value of the paired permutation test against the best, Holm-corrected; 1 for the best.
        mcnemar_p_against_best: p-value of McNemar's exact test on the first repeat, Holm-corrected.
        behind_best: 95 % interval of the accuracy that the best has more; not corrected.
        fitted_on: how rows that exceed the memory were read, or which sample of them was; "" where all were held.
    """

    model: str
    kind: str
    values: dict[str, float]
    intervals: dict[str, Interval]
    fit_s: float
    predict_s: float
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    accuracy_by_repeat: dict[str, float] = field(default_factory=dict)
    best_epochs: list[int] = field(default_factory=list)
    ties_best: bool = True
    p_against_best: float = 1.0
    mcnemar_p_against_best: float = 1.0
    behind_best: Interval = (0.0, 0.0)
    fitted_on: str = ""

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Columns of `metrics.csv`; a share of the predictions is followed by the ends of its interval."""
        names = []
        for name, metric in METRICS.items():
            names += [name, *([f"{name}_low", f"{name}_high"] if metric.share is not None else [])]
        return ("model", "kind", *names, "fit_s", "predict_s")

    def __getitem__(self, column: str) -> Any:
        """Read a column.

        Raises:
            KeyError: the table has no such column; the message lists those it has.
        """
        found = self._cells() | {"fitted_on": self.fitted_on}
        if column not in found:
            raise KeyError(f"Got the column {column!r}, expected one of: {', '.join(found)}.")
        return found[column]

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return self.values["accuracy"]

    def _cells(self) -> dict[str, object]:
        ends = {}
        for name, (low, high) in self.intervals.items():
            if METRICS[name].share is not None:
                ends |= {f"{name}_low": low, f"{name}_high": high}
        behind = dict(zip(("behind_low", "behind_high"), self.behind_best, strict=True))
        names = ("model", "kind", "fit_s", "predict_s", "ties_best", "p_against_best", "mcnemar_p_against_best")
        cells = {name: getattr(self, name) for name in names} | self.values | ends | behind
        return {name: cells[name] for name in dict.fromkeys((*self.columns(), *cells)) if name in cells}

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON: the columns first."""
        details = {
            "per_class": self.per_class,
            "confusion": _brief(self.confusion),
            "intervals": {name: _ends(own) for name, own in self.intervals.items()},
            "accuracy_by_repeat": self.accuracy_by_repeat,
            "best_epochs": self.best_epochs,
            "behind_best": _ends(self.behind_best),
        }
        details |= {"fitted_on": self.fitted_on} if self.fitted_on else {}
        return self._cells() | details

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], classes: int) -> ModelRow:
        """Read what `to_dict` gave, also of older runs, which lack some of it; null and a missing metric become NaN.

        Raises:
            KeyError: the model's name, its kind or its accuracy is missing.
            ValueError: the confusion matrix has another number of classes.
        """
        intervals = {name: _interval(own) for name, own in values.get("intervals", {}).items() if name in METRICS}
        for name, metric in METRICS.items():
            if metric.share is not None and name not in intervals and f"{name}_low" in values:
                intervals[name] = (_number(values[f"{name}_low"]), _number(values[f"{name}_high"]))
        known = ("accuracy_by_repeat", "best_epochs", "ties_best", "fitted_on")
        behind = values.get("behind_best")
        return cls(
            model=values["model"],
            kind=values["kind"],
            values={name: _number(values[name] if name == "accuracy" else values.get(name)) for name in METRICS},
            intervals={name: intervals[name] for name in METRICS if name in intervals},
            fit_s=_number(values.get("fit_s")),
            predict_s=_number(values.get("predict_s")),
            per_class={
                label: {name: _number(value) for name, value in own.items()}
                for label, own in values.get("per_class", {}).items()
            },
            p_against_best=_number(values.get("p_against_best", 1.0)),
            mcnemar_p_against_best=_number(values.get("mcnemar_p_against_best")),
            confusion=_in_full(values.get("confusion", []), classes),
            behind_best=(0.0, 0.0) if behind is None else _interval(behind),
            **{name: values[name] for name in known if name in values},
        )


@dataclass(frozen=True)
class BestOf:
    """Accuracy of the best of several models on images that did not choose it.

    Attributes:
        models: number of models that were compared, shortcuts left out.
        accuracy: the corrected accuracy; NaN for a single group.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    models: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Measurement:
    """Everything that was measured in a comparison: `metrics.json`.

    Attributes:
        classes: names of the classes, in the order of probabilities and confusion matrices.
        models: a row a model, sorted by accuracy, then by log loss.
        units: number of units that were drawn in intervals and tests; 0 for runs before 0.2 that did not keep it.
        best_of: the corrected accuracy of the best; None for a single model.
        patients: scores on patients, a row a model in the order of `models`; empty without patients.
    """

    classes: list[str]
    models: list[ModelRow]
    units: int = 0
    best_of: BestOf | None = None
    patients: list[PatientScores] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        values: dict[str, object] = {"classes": self.classes, "models": self.models, "units": self.units}
        values |= {} if self.best_of is None else {"best_of": asdict(self.best_of)}
        return values | ({"patients": self.patients} if self.patients else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """Read what `to_dict` gave.

        Raises:
            KeyError: a part is missing.
            ValueError: a class or a model comes twice, or there are more classes than any run has.
        """
        classes, known = list(values["classes"]), [own["model"] for own in values["models"]]
        if len(classes) > _MOST_CLASSES or len(set(classes)) < len(classes) or len(set(known)) < len(known):
            raise ValueError(f"a class or a model comes twice, or there are more than {_MOST_CLASSES} classes")
        models = [ModelRow.from_dict(own, len(classes)) for own in values["models"]]
        best = values.get("best_of")
        best_of = best and BestOf(best["models"], *(_number(best[name]) for name in ("accuracy", "low", "high")))
        patients = [PatientScores.from_dict(own) for own in values.get("patients", [])]
        return cls(classes, models, values.get("units") or 0, best_of, patients)


def no_run(folder: Path, error: Exception) -> DataError:
    """The error to raise where reading a run's folder failed with another."""
    if isinstance(error, FileNotFoundError):
        reason = f"it has no {Path(error.filename).name}" if folder.is_dir() else "there is no such folder"
    else:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return DataError(f"{folder} holds no run ({reason}). Expected a folder written by `ball fit`.")


def _brief(confusion: list[list[int]]) -> object:
    """A confusion matrix for JSON: of many classes only its counts above 0, as (true, predicted, count)."""
    if len(confusion) <= _WHOLE_MATRIX:
        return confusion
    counts = [
        [true, predicted, count] for true, row in enumerate(confusion) for predicted, count in enumerate(row) if count
    ]
    return {"classes": len(confusion), "counts": counts}


def _in_full(stored: Any, classes: int) -> list[list[int]]:
    """The matrix that `_brief` gave."""
    if isinstance(stored, list):
        return stored
    if stored["classes"] != classes:
        raise ValueError(f"a confusion matrix of {stored['classes']} classes, expected {classes}")
    confusion = [[0] * stored["classes"] for _ in range(stored["classes"])]
    for true, predicted, count in stored["counts"]:
        confusion[true][predicted] = count
    return confusion


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _ends(interval: Interval) -> dict[str, float]:
    return {"low": interval[0], "high": interval[1]}


def _interval(ends: Mapping[str, float | None]) -> Interval:
    return _number(ends["low"]), _number(ends["high"])
