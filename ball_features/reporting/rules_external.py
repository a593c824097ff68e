"""Rules of the verdict on a fitted model on labelled images of elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ball_features.reporting.evidence import Evidence, ExternalEvidence
from ball_features.reporting.finding import Finding
from ball_features.reporting.rule_words import percent, points
from ball_features.reporting.words import counted

__all__ = ["external"]

LARGE_DROP = 0.10
MOST = 0.5
MANY = 5  # times the share that is flagged by chance
FEW_IMAGES = 20  # of a class
TRAINED_SERIOUS = 0.05  # share of images that the model was trained on


def external(evidence: Evidence) -> Iterator[Finding]:
    """A fitted model does worse, is too sure, or was trained on the images."""
    found = evidence.external
    if found is None:
        return
    yield from _trained_on(found)
    yield from _accuracy(found)
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
    yield from _unusual(found)
    yield from _classes(found)


def _trained_on(found: ExternalEvidence) -> Iterator[Finding]:
    if found.trained_on:
        yield Finding(
            "trained-on-these",
            "serious" if found.trained_on >= TRAINED_SERIOUS * found.images else "warning",
            {"images": found.trained_on, "of": found.images},
            f"The model was trained on {found.trained_on} of these {found.images} images: "
            f"{'it does' if found.trained_on == 1 else 'they do'} not test it. Leave "
            f"{'it' if found.trained_on == 1 else 'them'} out (column trained_on of predictions.csv).",
        )


def _accuracy(found: ExternalEvidence) -> Iterator[Finding]:
    """The accuracy beside the published one."""
    here = f"{percent(found.accuracy)} (95 % CI {100 * found.low:.0f} to {100 * found.high:.0f})"
    said = f"On {'this image' if found.images == 1 else f'these {found.images} images'} the model is right in {here}"
    numbers = {"accuracy": found.accuracy, "low": found.low, "high": found.high, "images": found.images}
    if found.trained_on >= TRAINED_SERIOUS * found.images > 0:
        yield Finding("accuracy-elsewhere", "note", numbers, f"{said}; images that it was trained on are among them.")
        return
    if math.isnan(found.sold):
        yield Finding(
            "accuracy-elsewhere", "note", numbers, f"{said}; the bundle has no figure of its own to compare with."
        )
        return
    numbers |= {"published": found.sold, "drop_low": found.drop_low, "drop_high": found.drop_high}
    drop = found.sold - found.accuracy
    if found.drop_low > 0:
        yield Finding(
            "worse-elsewhere",
            "serious" if drop >= LARGE_DROP else "warning",
            numbers,
            f"{said}, where its own test gave {percent(found.sold)}: a loss of {points(drop)} (95 % CI "
            f"{100 * found.drop_low:.1f} to {100 * found.drop_high:.1f}).",
        )
    elif not found.drop_high < LARGE_DROP:
        yield Finding(
            "elsewhere-uncertain",
            "warning",
            numbers,
            f"{said}; its own test gave {percent(found.sold)}. No loss is shown, but the images are too few, or too "
            f"much alike, to exclude one of {100 * found.drop_high:.0f} points.",
        )
    else:
        yield Finding(
            "holds-elsewhere",
            "good",
            numbers,
            f"{said}; its own test gave {percent(found.sold)}, and no loss is shown.",
        )


def _unusual(found: ExternalEvidence) -> Iterator[Finding]:
    numbers = {"unusual": found.unusual, "expected_share": found.expected_unusual}
    if found.unusual >= MOST:
        yield Finding(
            "mostly-unusual",
            "serious",
            numbers,
            f"{percent(found.unusual, 0)} of the images are unlike those that the model was made from.",
        )
    elif found.unusual > MANY * found.expected_unusual:
        yield Finding(
            "many-unusual",
            "warning",
            numbers,
            f"{percent(found.unusual, 0)} of the images are unlike those that the model was made from, more than the "
            f"{percent(found.expected_unusual, 0)} expected.",
        )


def _classes(found: ExternalEvidence) -> Iterator[Finding]:
    """Labels that the model does not know, classes that the images do not show or hardly show, and other gaps."""
    if found.unknown:
        yield Finding(
            "labels-unknown",
            "note",
            {"images": found.unknown},
            f"{counted(found.unknown, 'image')} {'has' if found.unknown == 1 else 'have'} a label that the model does "
            f"not know; {'it is' if found.unknown == 1 else 'they are'} reported apart.",
        )
    absent = [name for name, images in found.tested.items() if not images]
    few = {name: images for name, images in found.tested.items() if 0 < images < FEW_IMAGES}
    if absent:
        yield Finding(
            "classes-absent",
            "note",
            {"classes": absent},
            f"No image shows {' or '.join(absent)}: how the model does on them here is not known.",
        )
    if few:
        listed = ", ".join(f"{name} {images}" for name, images in few.items())
        yield Finding(
            "class-too-small",
            "note",
            few,
            f"Fewer than {FEW_IMAGES} images of a class were tested ({listed}): its figures say little.",
        )
    missing = [name for name, count in (("patients", found.patients), ("sites", found.sites)) if count is None]
    if missing:
        yield Finding(
            "not-tested",
            "note",
            {"not_tested": missing},
            f"Not tested: whole {' and '.join(missing)}, since the images name none.",
        )
