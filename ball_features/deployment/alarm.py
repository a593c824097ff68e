"""Which predictions a person should look at, and what a verdict rests on."""

from __future__ import annotations

from collections.abc import Sequence

from ball_features.bundles.prediction import Prediction
from ball_features.config.paths import shareable
from ball_features.reporting.evidence import Evidence, PredictionEvidence
from ball_features.reporting.finding import Finding
from ball_features.reporting.verdict import verdict

__all__ = ["contradicted", "judge", "reasons_to_look"]

LOW_PROBABILITY = 0.7


def contradicted(item: Prediction, classes: Sequence[str]) -> bool:
    """Whether no nearest training image is of the predicted class, as far as the bundle or folders name classes."""
    if item.nearest_class:
        return item.predicted not in item.nearest_class
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


def judge(
    items: Sequence[Prediction], classes: Sequence[str], unusual_share: float, bundle: str = "BUNDLE"
) -> list[Finding]:
    """The verdict on predictions.

    Args:
        items: predictions.
        classes: names of the classes.
        unusual_share: share of images like the training images that is flagged as unusual.
        bundle: path of the bundle, for commands.
    """
    unusual = [item for item in items if item.unusual]
    evidence = PredictionEvidence(
        images=len(items),
        unusual=len(unusual),
        expected_unusual=unusual_share,
        confidence=_confidence(items),
        ambiguous=sum(len(item.set) > 1 for item in items),
        contradicted=sum(contradicted(item, classes) for item in items),
        confidence_unusual=_confidence(unusual),
        classes=len(classes),
        bundle=shareable(str(bundle)),
    )
    return verdict(Evidence(predictions=evidence))


def _confidence(items: Sequence[Prediction]) -> float:
    """Mean probability of the predicted class; 0 without images."""
    return sum(item.probability[item.predicted] for item in items) / max(len(items), 1)
