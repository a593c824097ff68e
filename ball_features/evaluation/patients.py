"""Patients as units of evaluation: one answer per patient from the predictions of its images, and its metrics.

A patient's class probabilities are the mean of the log-probabilities of its images, normalised: the geometric mean,
which is the product of experts (Hinton 2002, doi 10.1162/089976602760128018) with the weight of a single image. The
majority vote and the share of images of each class stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ball_features.evaluation.intervals import Interval, metric_intervals, share_interval
from ball_features.evaluation.metrics import METRICS, evaluate_predictions

__all__ = [
    "SEVERAL_LABELS",
    "PatientAnswers",
    "PatientScores",
    "answer_patients",
    "patient_columns",
    "patient_rows",
    "score_patients",
]

SEVERAL_LABELS = -1  # class index of a patient whose images have several labels
_FLOOR = np.finfo(np.float64).eps  # a probability of 0 counts as this, as in the log loss


@dataclass(frozen=True, eq=False)
class PatientAnswers:
    """Answers of one model: a row a patient and repeat, sorted by repeat, then by patient.

    Attributes:
        patient: name of the patient, str (answers,).
        repeat: number of the repeat, int (answers,).
        images: number of test images behind the answer, int (answers,).
        label: true class index, int (answers,); `SEVERAL_LABELS` for a patient whose images have several labels.
        probability: normalised mean of the log-probabilities of the images, float64 (answers, classes).
        share: share of the images that are predicted as each class, float64 (answers, classes).
    """

    patient: Shaped[np.ndarray, " answers"]
    repeat: Int[np.ndarray, " answers"]
    images: Int[np.ndarray, " answers"]
    label: Int[np.ndarray, " answers"]
    probability: Float[np.ndarray, "answers classes"]
    share: Float[np.ndarray, "answers classes"]

    @cached_property
    def predicted(self) -> Int[np.ndarray, " answers"]:
        """Predicted class index, int (answers,): the first of equally probable classes."""
        return self.probability.argmax(1)

    @cached_property
    def majority(self) -> Int[np.ndarray, " answers"]:
        """Class index of most images, int (answers,); the more probable one of several."""
        most = self.share >= self.share.max(1, keepdims=True) - 1e-12
        return np.where(most, self.probability, -1.0).argmax(1)

    @cached_property
    def agreement(self) -> Float[np.ndarray, " answers"]:
        """Share of the images whose predicted class is the patient's, float64 (answers,)."""
        return self.share[np.arange(len(self.patient)), self.predicted]

    @cached_property
    def scored(self) -> Bool[np.ndarray, " answers"]:
        """True for patients with one label, bool (answers,)."""
        return self.label != SEVERAL_LABELS


@dataclass(frozen=True)
class PatientScores:
    """Metrics of one model on patients.

    Attributes:
        model: name of the model.
        kind: "head", "baseline" or "shortcut".
        patients: number of distinct patients that were scored.
        several_labels: number of distinct patients that were not scored, because their images have several labels.
        values: name of a metric -> its value over patients.
        intervals: name of a metric -> its 95 % interval, by a bootstrap over patients.
        majority_accuracy: accuracy of the majority vote.
        per_class: class -> "patients", "sensitivity", "sensitivity_low", "sensitivity_high" and "specificity".
    """

    model: str
    kind: str
    patients: int
    several_labels: int
    values: dict[str, float]
    intervals: dict[str, Interval]
    majority_accuracy: float
    per_class: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        ends = {name: {"low": low, "high": high} for name, (low, high) in self.intervals.items()}
        return {**vars(self), "intervals": ends}


def answer_patients(
    patient: Shaped[np.ndarray, " tests"],
    repeat: Int[np.ndarray, " tests"],
    truth: Int[np.ndarray, " tests"],
    probability: Float[np.ndarray, "tests classes"],
) -> PatientAnswers:
    """Combine the predictions of each patient's images, in each repeat of the protocol.

    Args:
        patient: name of the patient of each test image, str (tests,); images without a name ("") are left out.
        repeat: number of the repeat, int (tests,).
        truth: true class indices, int (tests,).
        probability: class probabilities, float (tests, classes).
    """
    known = patient != ""
    patient, repeat, truth, probability = patient[known], repeat[known], truth[known], probability[known]
    classes = probability.shape[1]
    names, code = np.unique(patient, return_inverse=True)
    keys, first, row = np.unique(repeat * max(len(names), 1) + code, return_index=True, return_inverse=True)
    images = np.bincount(row, minlength=len(keys))

    def mean(values: np.ndarray) -> np.ndarray:
        """Mean over the images of each answer, (answers, classes)."""
        sums = [np.bincount(row, values[:, column], minlength=len(keys)) for column in range(classes)]
        return np.stack(sums, 1) / images[:, None]

    logs = mean(np.log(np.clip(probability.astype(np.float64), _FLOOR, 1.0)))
    combined = np.exp(logs - logs.max(1, keepdims=True, initial=-np.inf))
    lowest, highest = np.full(len(keys), classes), np.full(len(keys), -1)
    np.minimum.at(lowest, row, truth)
    np.maximum.at(highest, row, truth)
    return PatientAnswers(
        patient=patient[first],
        repeat=repeat[first],
        images=images,
        label=np.where(lowest == highest, lowest, SEVERAL_LABELS),
        probability=combined / combined.sum(1, keepdims=True),
        share=mean(np.eye(classes)[probability.argmax(1)]),
    )


def score_patients(model: str, kind: str, answers: PatientAnswers, classes: Sequence[str]) -> PatientScores | None:
    """Measure the answers; repeats are pooled, and a patient's answers of several repeats are drawn together.

    Args:
        model: name of the model.
        kind: "head", "baseline" or "shortcut".
        answers: the answers.
        classes: names of the classes, in the order of probabilities.

    Returns:
        The scores; None where no patient has one label.
    """
    scored = answers.scored
    several = len(np.unique(answers.patient[~scored]))
    if not scored.any():
        return None
    patient, truth, probability = answers.patient[scored], answers.label[scored], answers.probability[scored]
    patients = len(np.unique(patient))
    scores = evaluate_predictions(truth, probability)
    per_class = {}
    for code, name in enumerate(classes):
        own = truth == code
        distinct = len(np.unique(patient[own]))
        hit = answers.predicted[scored][own] == code
        low, high = share_interval(hit, patient[own], images=distinct) if distinct else (float("nan"),) * 2
        per_class[name] = {
            "patients": float(distinct),
            "sensitivity": float(scores.per_class["recall"][code]),
            "sensitivity_low": low,
            "sensitivity_high": high,
            "specificity": float(scores.per_class["specificity"][code]),
        }
    return PatientScores(
        model=model,
        kind=kind,
        patients=patients,
        several_labels=several,
        values={name: scores.values[name] for name in METRICS},
        intervals=metric_intervals(truth, probability, patient, images=patients),
        majority_accuracy=float((answers.majority[scored] == truth).mean()),
        per_class=per_class,
    )


def patient_columns(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of `patients.csv`."""
    named = ("model", "repeat", "patient", "images", "label", "predicted", "majority", "agreement")
    return (*named, *(f"p_{name}" for name in classes), *(f"share_{name}" for name in classes))


def patient_rows(model: str, answers: PatientAnswers, classes: Sequence[str]) -> Iterable[Sequence[object]]:
    """Yield the rows of `patients.csv`; the label of a patient with several labels is empty.

    Args:
        model: name of the model.
        answers: its answers.
        classes: names of the classes, in the order of probabilities.
    """
    names = np.array([*classes, ""])  # the last one is that of SEVERAL_LABELS
    for number in range(len(answers.patient)):
        yield (
            model,
            int(answers.repeat[number]),
            str(answers.patient[number]),
            int(answers.images[number]),
            *(str(names[code[number]]) for code in (answers.label, answers.predicted, answers.majority)),
            float(answers.agreement[number]),
            *answers.probability[number].tolist(),
            *answers.share[number].tolist(),
        )
