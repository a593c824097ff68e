"""The server's answer for one patient."""

from __future__ import annotations

from collections.abc import Sequence

from ball_features.bundles.prediction import Prediction
from ball_features.bundles.predictor import Predictor
from ball_features.deployment.patient_answers import answer_each_patient
from ball_features.deployment.recent import alarms
from ball_features.deployment.replies import Alarm, ImageAnswer, PatientReply, RejectedFile

__all__ = ["reply_for_patient"]


def reply_for_patient(
    predictor: Predictor,
    patient: str,
    items: Sequence[Prediction],
    rejected: Sequence[tuple[str, str]],
    coverage: float,
) -> PatientReply:
    """One answer from the predictions of a patient's images.

    Args:
        predictor: predictor that made them.
        patient: name of the patient, or "".
        items: at least one prediction.
        rejected: (name, reason) of each file that could not be decoded.
        coverage: coverage of the prediction sets.
    """
    bundle = predictor.bundle
    own = answer_each_patient(items, ["patient"] * len(items), bundle.classes)[0]
    found = alarms(items, bundle.classes, bundle.unusual_share)
    return PatientReply(
        patient=patient,
        predicted=own.predicted,
        probability=own.probability,
        images=own.images,
        unusual=own.unusual,
        majority=own.majority,
        agreement=own.agreement,
        share=own.share,
        coverage=coverage,
        answers=[
            ImageAnswer(
                name=item.path,
                predicted=item.predicted,
                probability=item.probability,
                set=list(item.set),
                distance=item.distance,
                unusual=item.unusual,
                nearest=list(item.nearest),
                nearest_class=list(item.nearest_class),
            )
            for item in items
        ],
        rejected=[RejectedFile(name=name, reason=reason) for name, reason in rejected],
        alarm=[Alarm(code=one.code, severity=one.severity, sentence=one.sentence) for one in found],
        caveat=predictor.caveat,
        notes=bundle.notes(coverage),
    )
