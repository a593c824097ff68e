"""Rules of the verdict on a fitted model in use: images of elsewhere, predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ball_features.reporting.evidence import Evidence
from ball_features.reporting.finding import Command, Finding
from ball_features.reporting.rule_words import percent, points

__all__ = ["external", "predictions"]

LARGE_DROP = 0.10
MOST = 0.5


def external(evidence: Evidence) -> Iterator[Finding]:
    """A fitted model does worse, or is too sure, on images of elsewhere."""
    found = evidence.external
    if found is None:
        return
    here = f"{percent(found.accuracy)} (95 % CI {100 * found.low:.0f} to {100 * found.high:.0f})"
    numbers = {"accuracy": found.accuracy, "low": found.low, "high": found.high, "images": found.images}
    if not math.isnan(found.sold):
        numbers |= {"published": found.sold, "drop_low": found.drop_low, "drop_high": found.drop_high}
        drop = found.sold - found.accuracy
        if found.drop_low > 0:
            yield Finding(
                "worse-elsewhere",
                "serious" if drop >= LARGE_DROP else "warning",
                numbers,
                f"On these {found.images} images the model is right in {here}, where its own test gave "
                f"{percent(found.sold)}: a loss of {points(drop)} (95 % CI {100 * found.drop_low:.1f} to "
                f"{100 * found.drop_high:.1f}).",
            )
        else:
            yield Finding(
                "holds-elsewhere",
                "good",
                numbers,
                f"On these {found.images} images the model is right in {here}; its own test gave "
                f"{percent(found.sold)}, and no loss is shown.",
            )
    if found.confidence - found.accuracy >= LARGE_DROP:
        yield Finding(
            "overconfident-elsewhere",
            "serious",
            {"confidence": found.confidence, "accuracy": found.accuracy},
            f"The model gives its answers {percent(found.confidence, 0)} probability on average and is right in "
            f"{percent(found.accuracy, 0)}: its probabilities do not hold here.",
        )
    if found.covered_high < found.coverage:
        yield Finding(
            "sets-do-not-cover",
            "serious" if found.coverage - found.covered >= LARGE_DROP else "warning",
            {"coverage": found.coverage, "covered": found.covered},
            f"Prediction sets that should hold the true class in {percent(found.coverage, 0)} of images hold it "
            f"in {percent(found.covered, 0)}.",
        )
    if found.unusual >= MOST:
        yield Finding(
            "mostly-unusual",
            "serious",
            {"unusual": found.unusual},
            f"{percent(found.unusual, 0)} of the images are unlike those that the model was made from.",
        )
    if found.unknown:
        yield Finding(
            "labels-unknown",
            "note",
            {"images": found.unknown},
            f"{found.unknown} images have a label that the model does not know; they are reported apart.",
        )


def predictions(evidence: Evidence) -> Iterator[Finding]:
    """New images are unlike the training images, or their neighbours disagree."""
    seen = evidence.predictions
    if seen is None or not seen.images:
        return
    share = seen.unusual / seen.images
    numbers = {"unusual": seen.unusual, "images": seen.images, "expected_share": seen.expected_unusual}
    if share >= MOST and seen.images > 1:
        yield Finding(
            "mostly-unusual",
            "serious",
            numbers,
            f"{seen.unusual} of {seen.images} images are unlike those that the model was made from: do not use its "
            "answers on this collection before it was evaluated on labelled images of it.",
            str(Command("evaluate", ("BUNDLE", "LABELLED_IMAGES"), {"out": "evaluation"})),
        )
    elif seen.unusual and share > 5 * seen.expected_unusual:
        yield Finding(
            "many-unusual",
            "warning",
            numbers,
            f"{seen.unusual} of {seen.images} images are unlike those that the model was made from, more than the "
            f"{percent(seen.expected_unusual, 0)} expected: look at these first.",
        )
    if seen.contradicted:
        yield Finding(
            "neighbours-disagree",
            "warning",
            {"images": seen.contradicted},
            f"{seen.contradicted} images get a class that none of their nearest training images has.",
        )
