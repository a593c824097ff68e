"""One answer for each patient from the predictions of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ball_features.bundles.prediction import Prediction
from ball_features.evaluation.patients import answer_patients

__all__ = ["PatientAnswer", "answer_each_patient"]


@dataclass(frozen=True)
class PatientAnswer:
    """Answer for a patient.

    Attributes:
        patient: name of the patient.
        images: number of images behind the answer.
        unusual: number of them that are unlike the training images.
        predicted: most probable class by the mean of the log-probabilities of the images.
        probability: the mean, normalised: class -> probability.
        share: class -> share of the images that are predicted as it.
        majority: class of most images.
        agreement: share of the images whose predicted class is the patient's.
    """

    patient: str
    images: int
    unusual: int
    predicted: str
    probability: dict[str, float]
    share: dict[str, float]
    majority: str
    agreement: float

    @staticmethod
    def columns(classes: Sequence[str]) -> list[str]:
        """Columns of a table of answers."""
        named = ["patient", "images", "unusual", "predicted", "majority", "agreement"]
        return [*named, *(f"p_{name}" for name in classes), *(f"share_{name}" for name in classes)]

    def row(self, classes: Sequence[str]) -> list[object]:
        """Cells of these columns."""
        cells = [self.patient, self.images, self.unusual, self.predicted, self.majority, f"{self.agreement:.6f}"]
        return [*cells, *(f"{values[name]:.6f}" for values in (self.probability, self.share) for name in classes)]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)


def answer_each_patient(
    items: Sequence[Prediction], patient: Sequence[str], classes: Sequence[str]
) -> list[PatientAnswer]:
    """Combine the predictions of each patient's images (see `evaluation.patients`), sorted by patient.

    Args:
        items: predictions.
        patient: patient of each image; "" where it is not known, and the image is left out.
        classes: names of the classes.
    """
    if not any(patient):
        return []
    names = np.array(patient)
    probability = np.array([[item.probability[name] for name in classes] for item in items])
    zeros = np.zeros(len(items), dtype=int)
    found = answer_patients(names, zeros, zeros, probability)
    unusual = np.array([item.unusual for item in items])
    return [
        PatientAnswer(
            patient=str(name),
            images=int(found.images[row]),
            unusual=int(unusual[names == name].sum()),
            predicted=classes[int(found.predicted[row])],
            probability=dict(zip(classes, found.probability[row].tolist(), strict=True)),
            share=dict(zip(classes, found.share[row].tolist(), strict=True)),
            majority=classes[int(found.majority[row])],
            agreement=float(found.agreement[row]),
        )
        for row, name in enumerate(found.patient.tolist())
    ]
