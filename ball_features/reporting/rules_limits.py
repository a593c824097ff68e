"""Rules of the verdict on what limits a score: few images, patients and groups, telling sites, calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ball_features.dataset.remarks import some
from ball_features.reporting.evidence import Evidence
from ball_features.reporting.finding import Finding
from ball_features.reporting.rule_words import fit_again, percent, points

__all__ = ["calibration", "class_of_few_patients", "many_equals", "site_tells_class", "too_few"]

BAD_ECE = 0.05
FEW_IMAGES = 20  # of a class
FEW_GROUPS = 10
LEAST_GAIN, LARGE_GAIN = 0.05, 0.20  # of the site alone, above guessing


def many_equals(evidence: Evidence) -> Iterator[Finding]:
    """Several models do not differ significantly from the best."""
    protocol = evidence.protocols[-1] if evidence.protocols else None
    if protocol is None or len(protocol.models) < 2:
        return
    equal = [model.name for model in protocol.models if model.ties_best]
    if len(equal) > 1:
        yield Finding(
            "many-equals",
            "note",
            {"equal": len(equal), "models": len(protocol.models), "names": equal},
            f"On {protocol.name}, {len(equal)} of {len(protocol.models)} models do not differ significantly from the "
            f"best ({', '.join(equal[:4])}{' and others' if len(equal) > 4 else ''}): the order of the table says "
            "little about them.",
        )


def too_few(evidence: Evidence) -> Iterator[Finding]:
    """A class or the number of groups is too small to say anything."""
    for protocol in evidence.protocols[-1:]:
        # Identical files say no more than one of them.
        few = {n: count for n, count in (protocol.distinct or protocol.tested).items() if count < FEW_IMAGES}
        if few:
            listed = some([f"{name} ({count})" for name, count in few.items()], 12)
            classes = "one class" if len(few) == 1 else "some classes"
            yield Finding(
                "class-too-small",
                "warning",
                few,
                f"Fewer than {FEW_IMAGES} different images of {classes} were tested ({protocol.name}), too few to say "
                f"anything about {'it' if len(few) == 1 else 'them'}: {listed}.",
            )
        if 0 < protocol.groups < FEW_GROUPS and protocol.unit not in ("image", "split"):
            yield Finding(
                "few-groups",
                "warning",
                {"groups": protocol.groups, "unit": protocol.unit},
                f"The strictest test rests on {_count(protocol.groups, protocol.unit)}: with so few, its figure may "
                "be further from the truth than the interval says.",
            )


def _count(number: int, unit: str) -> str:
    plural = unit if unit.endswith("s") or number == 1 else f"{unit}s"
    return f"{number} {plural}"


def calibration(evidence: Evidence) -> Iterator[Finding]:
    """The probabilities of the best model are badly calibrated."""
    protocol = evidence.protocols[0] if evidence.protocols else None
    model = protocol.network if protocol else None
    if protocol is None or model is None or model.ece is None or not model.ece >= BAD_ECE:
        return
    yield Finding(
        "badly-calibrated",
        "warning" if model.ece >= 2 * BAD_ECE else "note",
        {"model": model.name, "ece": model.ece},
        f"The probabilities of {model.name} are off by {points(model.ece)} on average (expected calibration error): "
        "do not read them as chances before they are calibrated.",
    )


def site_tells_class(evidence: Evidence) -> Iterator[Finding]:
    """The site alone tells the class, and no model was tested on a site that it has not seen."""
    data = evidence.data
    if data is None or math.isnan(data.site_accuracy) or any(own.unit == "site" for own in evidence.protocols):
        return
    majority = max(data.classes.values()) / max(sum(data.classes.values()), 1) if data.classes else float("nan")
    gain = data.site_accuracy - majority
    if not gain >= LEAST_GAIN:
        return
    untestable = "site" in data.untestable
    yield Finding(
        "site-tells-class",
        "serious" if gain >= LARGE_GAIN else "warning",
        {"site_accuracy": data.site_accuracy, "majority": majority},
        f"The site alone tells the class of {percent(data.site_accuracy, 0)} of the images (guessing: "
        f"{percent(majority, 0)}): a network can read the class off a hospital's stain or camera"
        + (", and no site can be left out to test that." if untestable else "."),
        "" if untestable else fit_again(evidence, "leave-site-out", "site"),
    )


def class_of_few_patients(evidence: Evidence) -> Iterator[Finding]:
    """The images of a class are of so few patients that knowing the patient is knowing the class."""
    data = evidence.data
    if data is None or not data.few_patients:
        return
    few = data.few_patients
    listed = some([f"{name} ({count})" for name, count in few.items()], 12)
    yield Finding(
        "class-of-few-patients",
        "serious" if min(few.values()) == 1 else "warning",
        dict(few),
        f"All images of {'one class' if len(few) == 1 else 'some classes'} are of one or two patients ({listed}): a "
        "model that recognises the patient knows the class, and new patients cannot be tested.",
    )
