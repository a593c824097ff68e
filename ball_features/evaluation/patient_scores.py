"""Metrics of patients, with intervals by a bootstrap over patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from ball_features.evaluation.intervals import Interval, metric_intervals, share_interval
from ball_features.evaluation.many_patients import PatientMetrics, metrics_by_patient
from ball_features.evaluation.metrics import METRICS, evaluate_predictions
from ball_features.evaluation.patients import PatientAnswers, answer_patients
from ball_features.evaluation.resampling import draw_groups, few_groups, widened_quantiles

__all__ = ["ClassScores", "PatientScores", "measure_patients"]

_UNKNOWN: Interval = (float("nan"), float("nan"))
_DRAWS = 1000
_ONE_BY_ONE = 1000  # patients up to which each is measured by itself, as scikit-learn does


@dataclass(frozen=True)
class ClassScores:
    """One class on patients.

    Attributes:
        patients: number of patients with this label; under the basis "images", with images of this label.
        sensitivity: share of them that are recognised (mean over them of the share of their images).
        sensitivity_low: lower end of its 95 % interval.
        sensitivity_high: upper end.
        specificity: share of the others that are not taken for this class.
    """

    patients: int
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    specificity: float


@dataclass(frozen=True)
class PatientScores:
    """One model on patients.

    Attributes:
        model: name of the model.
        kind: "head", "baseline" or "shortcut".
        basis: "patients" where a patient has one label: its answer is right or wrong. "images" where the labels belong
            to images: each metric is computed on the images of a patient, and averaged over patients.
        patients: number of distinct patients that were scored.
        several_labels: number of distinct patients whose images have several labels; not scored under "patients".
        values: name of a metric -> its value.
        intervals: name of a metric -> its 95 % interval, by a bootstrap over patients.
        majority_accuracy: accuracy of the majority vote; NaN under "images".
        per_class: class -> its scores.
    """

    model: str
    kind: str
    basis: Literal["patients", "images"]
    patients: int
    several_labels: int
    values: dict[str, float]
    intervals: dict[str, Interval]
    majority_accuracy: float
    per_class: dict[str, ClassScores]

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        ends = {name: {"low": low, "high": high} for name, (low, high) in self.intervals.items()}
        return {**asdict(self), "intervals": ends}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PatientScores:
        """Read what `to_dict` gave; null and a missing metric become NaN.

        Raises:
            KeyError: a part is missing.
        """

        def number(value: float | None) -> float:
            return math.nan if value is None else float(value)

        ends = values["intervals"]
        return cls(
            model=values["model"],
            kind=values["kind"],
            basis=values["basis"],
            patients=values["patients"],
            several_labels=values["several_labels"],
            values={name: number(values["values"].get(name)) for name in METRICS},
            intervals={
                name: (number(ends[name]["low"]), number(ends[name]["high"])) for name in METRICS if name in ends
            },
            majority_accuracy=number(values["majority_accuracy"]),
            per_class={
                label: ClassScores(
                    own["patients"], *(number(own[name]) for name in list(ClassScores.__annotations__)[1:])
                )
                for label, own in values["per_class"].items()
            },
        )


@dataclass(frozen=True, eq=False)
class _Tests:
    """Test predictions of images whose patient is known.

    Attributes:
        patient: name of the patient, str (tests,).
        repeat: number of the repeat, int (tests,).
        truth: true class indices, int (tests,).
        probability: class probabilities, float (tests, classes).
        classes: names of the classes.
    """

    patient: Shaped[np.ndarray, " tests"]
    repeat: Int[np.ndarray, " tests"]
    truth: Int[np.ndarray, " tests"]
    probability: Float[np.ndarray, "tests classes"]
    classes: tuple[str, ...]


def measure_patients(
    model: tuple[str, str],
    patient: Shaped[np.ndarray, " tests"],
    repeat: Int[np.ndarray, " tests"],
    truth: Int[np.ndarray, " tests"],
    probability: Float[np.ndarray, "tests classes"],
    classes: Sequence[str],
) -> PatientScores | None:
    """Measure a model on patients; repeats are pooled, and all tests of a patient are drawn together.

    Args:
        model: name and kind of the model.
        patient: name of the patient of each test image, str (tests,); images without a name ("") are left out.
        repeat: number of the repeat, int (tests,).
        truth: true class indices, int (tests,); an image that was tested several times appears several times.
        probability: class probabilities, float (tests, classes).
        classes: names of the classes, in the order of probabilities.

    Returns:
        The scores: of patients' answers where at least half of the patients have one label, else of their images. None
        without patients.
    """
    known = patient != ""
    if not known.any():
        return None
    tests = _Tests(patient[known], repeat[known], truth[known], probability[known], tuple(classes))
    answers = answer_patients(tests.patient, tests.repeat, tests.truth, tests.probability)
    several = len(np.unique(answers.patient[~answers.scored]))
    patients = len(np.unique(answers.patient))
    if 2 * several > patients:
        return _score_images(model, tests, patients, several)
    return _score_answers(model, answers, several, tests.classes)


def _score_answers(
    model: tuple[str, str], answers: PatientAnswers, several: int, classes: Sequence[str]
) -> PatientScores:
    scored = answers.scored
    patient, truth, probability = answers.patient[scored], answers.label[scored], answers.probability[scored]
    patients = len(np.unique(patient))
    scores = evaluate_predictions(truth, probability)
    per_class = {}
    for code, name in enumerate(classes):
        own = truth == code
        distinct = len(np.unique(patient[own]))
        hit = answers.predicted[scored][own] == code
        low, high = share_interval(hit, patient[own], images=distinct) if distinct else _UNKNOWN
        recall, specificity = (float(scores.per_class[key][code]) for key in ("recall", "specificity"))
        per_class[name] = ClassScores(distinct, recall, low, high, specificity)
    return PatientScores(
        model=model[0],
        kind=model[1],
        basis="patients",
        patients=patients,
        several_labels=several,
        values=scores.values,
        intervals=metric_intervals(truth, probability, patient, images=patients),
        majority_accuracy=float((answers.majority[scored] == truth).mean()),
        per_class=per_class,
    )


def _score_images(model: tuple[str, str], tests: _Tests, patients: int, several: int) -> PatientScores:
    """Compute each metric on the images of each patient, and average over patients."""
    code = np.unique(tests.patient, return_inverse=True)[1]
    if patients > _ONE_BY_ONE:
        every = metrics_by_patient(tests.truth, tests.probability, code)
    else:
        each = [evaluate_predictions(tests.truth[rows], tests.probability[rows]) for rows in _rows_of(code)]
        every = PatientMetrics(
            {name: np.array([own.values[name] for own in each]) for name in METRICS},
            *(np.array([own.per_class[name] for own in each]) for name in ("recall", "specificity")),
        )
    per_class = {}
    for number, label in enumerate(tests.classes):
        recall, specificity = every.recall[:, number], every.specificity[:, number]
        low, high = _mean_interval(recall)
        per_class[label] = ClassScores(int(np.isfinite(recall).sum()), _mean(recall), low, high, _mean(specificity))
    return PatientScores(
        model=model[0],
        kind=model[1],
        basis="images",
        patients=patients,
        several_labels=several,
        values={name: _mean(own) for name, own in every.values.items()},
        intervals={
            name: _mean_interval(own, constant_has_interval=METRICS[name].constant_has_interval)
            for name, own in every.values.items()
        },
        majority_accuracy=float("nan"),
        per_class=per_class,
    )


def _rows_of(code: np.ndarray) -> list[np.ndarray]:
    """Row numbers of each patient."""
    order = np.argsort(code, kind="stable")
    return np.split(order, np.cumsum(np.bincount(code))[:-1])


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _mean_interval(values: np.ndarray, *, constant_has_interval: bool = True) -> Interval:
    """95 % interval of the mean over patients, (patients,), NaN where a patient has no value; as `metric_intervals`."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return _UNKNOWN
    if np.ptp(values) == 0:
        share = constant_has_interval and values[0] in (0, 1)
        return share_interval(values, np.arange(len(values))) if share else _UNKNOWN
    joined = few_groups(np.arange(len(values)), 0)  # of many patients, each draw would take a second
    sums, count = np.bincount(joined, values), np.bincount(joined)
    means = [(drawn @ sums) / (drawn @ count) for drawn in draw_groups(len(sums), _DRAWS, 0)]
    low, high = np.quantile(np.concatenate(means), widened_quantiles(np.ones(len(values)), 0.95))
    return float(low), float(high)
