"""The page of predictions: a summary, the images that need a look, then all of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ball_features.reporting.evidence import Evidence, PredictionEvidence
from ball_features.reporting.markup import Cell, Row, Table, page
from ball_features.reporting.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ball_features.bundles.prediction import Prediction
    from ball_features.deployment.answers import Predictions

__all__ = ["contradicted", "predictions_page", "reasons_to_look"]

LOW_PROBABILITY = 0.7


def contradicted(item: Prediction, classes: Sequence[str]) -> bool:
    """Whether no nearest training image is of the predicted class, as far as folders name classes."""
    folders = {name.split("/")[0] for name in item.nearest}
    return bool(folders) and folders <= set(classes) and item.predicted not in folders


def reasons_to_look(item: Prediction, classes: Sequence[str]) -> list[str]:
    """Why a person should look at an image, the gravest first; none for an image like others."""
    reasons = []
    if item.unusual:
        reasons.append("unlike the training images: the class means nothing")
    if contradicted(item, classes):
        reasons.append("none of its nearest training images is of this class")
    if len(item.set) > 1:
        reasons.append(f"could be {' or '.join(item.set)}")
    if item.probability[item.predicted] < LOW_PROBABILITY:
        reasons.append(f"probability below {LOW_PROBABILITY:g}")
    return reasons


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
        verdict=verdict(Evidence(predictions=_evidence(found))),
        summary=_summary(found, reasons),
        look=_look(doubtful),
        table=_all(found),
        model=f"{found.about['model']} on {found.about['backbone']}, {found.about['bundle']}",
        coverage=f"{100 * found.about['coverage']:g}",
        notes=found.notes,
        rejected=found.rejected,
    )


def _evidence(found: Predictions) -> PredictionEvidence:
    items = found.predictions
    return PredictionEvidence(
        images=len(items),
        unusual=sum(item.unusual for item in items),
        expected_unusual=found.about["unusual_share"],
        confidence=sum(item.probability[item.predicted] for item in items) / max(len(items), 1),
        ambiguous=sum(len(item.set) > 1 for item in items),
        contradicted=sum(contradicted(item, found.classes) for item in items),
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


def _look(doubtful: Sequence[tuple[Prediction, list[str]]]) -> Table:
    rows = tuple(
        Row(
            (
                Cell(item.path),
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
                Cell(item.path),
                Cell(item.predicted),
                *(Cell(f"{item.probability[name]:.6f}", item.probability[name]) for name in found.classes),
                Cell("|".join(item.set)),
                Cell(f"{item.distance:.6f}", item.distance),
                Cell(str(item.unusual).lower()),
            ),
            "unusual" if item.unusual else "",
        )
        for item in found.predictions
    )
    return Table(("path", "predicted", *names, "set", "distance", "unusual"), rows, "All predictions", 2)
