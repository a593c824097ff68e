"""The page of predictions: a summary, the images that need a look, then all of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ball_features.config.paths import shareable
from ball_features.deployment.alarm import reasons_to_look
from ball_features.deployment.patient_answers import PatientAnswer
from ball_features.files import joined_names
from ball_features.reporting.markup import Cell, Row, Table, page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ball_features.bundles.prediction import Prediction
    from ball_features.deployment.answers import Predictions

__all__ = ["predictions_page"]


def predictions_page(found: Predictions) -> str:
    """A whole page of the predictions, as text."""
    reasons = [reasons_to_look(item, found.classes) for item in found.predictions]
    doubtful = [(item, why) for item, why in zip(found.predictions, reasons, strict=True) if why]
    doubtful.sort(key=lambda pair: (not pair[0].unusual, pair[0].probability[pair[0].predicted]))
    return page(
        "predictions.html",
        "Predictions",
        images=len(found.predictions),
        doubtful=len(doubtful),
        verdict=found.findings,
        patients=_patients(found.patients, found.classes) if found.patients else None,
        summary=_summary(found, reasons),
        look=_look(doubtful),
        table=_all(found),
        model=f"{found.about['model']} on {found.about['backbone']}, {shareable(str(found.about['bundle']))}",
        coverage=f"{100 * found.about['coverage']:g}",
        notes=found.notes,
        rejected=found.rejected,
        remarks=found.remarks,
    )


def _number(value: int) -> Cell:
    return Cell(str(value), float(value))


def _summary(found: Predictions, reasons: Sequence[Sequence[str]]) -> Table:
    images = Counter(item.predicted for item in found.predictions)
    look = Counter(item.predicted for item, why in zip(found.predictions, reasons, strict=True) if why)
    unusual = Counter(item.predicted for item in found.predictions if item.unusual)
    rows = tuple(
        Row((Cell(name), _number(images[name]), _number(look[name]), _number(unusual[name]))) for name in found.classes
    )
    return Table(("predicted class", "images", "need a look", "unusual"), rows, "Images of each predicted class")


def _patients(answers: Sequence[PatientAnswer], classes: Sequence[str]) -> Table:
    rows = tuple(
        Row(
            (
                Cell(item.patient),
                Cell(item.predicted),
                _number(item.images),
                _number(item.unusual),
                Cell(f"{100 * item.agreement:.0f}", item.agreement),
                *(Cell(f"{item.probability[name]:.3f}", item.probability[name]) for name in classes),
            ),
            "unusual" if 2 * item.unusual >= item.images else "",
        )
        for item in answers
    )
    names = (f"p_{name} of the patient" for name in classes)
    header = ("patient", "answer", "images", "unusual", "images that agree %", *names)
    return Table(header, rows, "An answer for each patient", 2)


def _look(doubtful: Sequence[tuple[Prediction, list[str]]]) -> Table:
    rows = tuple(
        Row(
            (
                Cell(shareable(item.path)),
                Cell("; ".join(why)),
                Cell(item.predicted),
                Cell(f"{item.probability[item.predicted]:.3f}", item.probability[item.predicted]),
                Cell(f"{item.distance:.4f}", item.distance),
            ),
            "unusual" if item.unusual else "",
        )
        for item, why in doubtful
    )
    header = ("image", "why", "predicted", "probability", "distance")
    return Table(header, rows, "Images that need a look", 3, wrapped=1)


def _all(found: Predictions) -> Table:
    names = [f"p_{name}" for name in found.classes]
    rows = tuple(
        Row(
            (
                Cell(shareable(item.path)),
                Cell(item.predicted),
                *(Cell(f"{item.probability[name]:.6f}", item.probability[name]) for name in found.classes),
                Cell(joined_names(item.set)),
                Cell(f"{item.distance:.6f}", item.distance),
                Cell(str(item.unusual).lower()),
            ),
            "unusual" if item.unusual else "",
        )
        for item in found.predictions
    )
    return Table(("path", "predicted", *names, "set", "distance", "unusual"), rows, "All predictions", 2)
