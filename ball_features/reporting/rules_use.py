"""Rules of the verdict on a fitted model that predicts new images."""

from __future__ import annotations

from collections.abc import Iterator

from ball_features.reporting.evidence import Evidence
from ball_features.reporting.finding import Command, Finding
from ball_features.reporting.rule_words import percent
from ball_features.reporting.words import counted

__all__ = ["predictions"]

LARGE_EXCESS = 0.10  # mean probability above what the distances warrant
MOST = 0.5
MANY = 5  # times the share that is flagged by chance


def predictions(evidence: Evidence) -> Iterator[Finding]:
    """New images are unlike the training images, the model is sure of them all the same, or neighbours disagree."""
    seen = evidence.predictions
    if seen is None or not seen.images:
        return
    share = seen.unusual / seen.images
    numbers = {"unusual": seen.unusual, "images": seen.images, "expected_share": seen.expected_unusual}
    are = f"{seen.unusual} of {seen.images} images {'is' if seen.unusual == 1 else 'are'}"
    evaluate = str(Command("evaluate", (seen.bundle, "LABELLED_IMAGES"), {"out": "evaluation"}))
    many = seen.unusual > 0 and share > MANY * seen.expected_unusual
    if share >= MOST and seen.images > 1:
        yield Finding(
            "mostly-unusual",
            "serious",
            numbers,
            f"{are} unlike those that the model was made from: do not use its answers on this collection before it was "
            "evaluated on labelled images of it.",
            evaluate,
        )
    elif many:
        yield Finding(
            "many-unusual",
            "warning",
            numbers,
            f"{are} unlike those that the model was made from, more than the {percent(seen.expected_unusual, 0)} "
            f"expected: look at {'it' if seen.unusual == 1 else 'these'} first.",
        )
    if many and seen.images > 1 and seen.classes:
        # Nothing is known of images beyond the threshold: what is warranted there is a guess among the classes.
        excess = share * (seen.confidence_unusual - 1 / seen.classes)
        if excess >= LARGE_EXCESS:
            yield Finding(
                "confident-on-unusual",
                "serious",
                {
                    "confidence": seen.confidence,
                    "confidence_unusual": seen.confidence_unusual,
                    "warranted": seen.confidence - excess,
                    "unusual": seen.unusual,
                    "images": seen.images,
                },
                f"The model gives the {counted(seen.unusual, 'unusual image')} {percent(seen.confidence_unusual, 0)} "
                f"probability{'' if seen.unusual == 1 else ' on average'}, as if it knew "
                f"{'it' if seen.unusual == 1 else 'them'}: its probabilities cannot be believed there.",
                "" if share >= MOST else evaluate,
            )
    if seen.contradicted:
        yield Finding(
            "neighbours-disagree",
            "warning",
            {"images": seen.contradicted},
            "1 image gets a class that none of its nearest training images has."
            if seen.contradicted == 1
            else f"{seen.contradicted} images get a class that none of their nearest training images has.",
        )
