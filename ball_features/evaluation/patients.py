"""Answers for patients: the predictions of a patient's images combined into one.

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

__all__ = ["SEVERAL_LABELS", "PatientAnswers", "answer_patients", "patient_columns", "patient_rows"]

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
