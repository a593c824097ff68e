"""Rules of the verdict on the scores: shortcuts, strict protocols, leaks, sizes, calibration."""

from __future__ import annotations

from collections.abc import Iterator

from ball_features.reporting.evidence import Evidence, ProtocolEvidence
from ball_features.reporting.finding import Command, Finding, Severity
from ball_features.reporting.rule_words import interval, percent, points

__all__ = ["calibration", "falls", "leaks", "many_equals", "shortcuts", "too_few"]

# Thresholds in shares. A difference is a finding only where intervals or a test support it, or where it is this large.
LARGE_DROP = 0.10
SMALL_DROP = 0.03
EQUAL = 0.01  # a shortcut this close to the network has all of its score
STRONG = 0.80  # of the way from guessing to the network
BAD_ECE = 0.05
FEW_IMAGES = 20  # of a class
FEW_GROUPS = 10
PLAIN_SHORTCUTS = {
    "colour": "six colour numbers of each image",
    "histogram": "colour histograms",
    "corner": "the corners of the images",
    "nuclei": "a few measurements of dark nuclei",
}
_MEASURES = {
    "series": "it measures how well the model knows these slides, not how well it knows the cells",
    "site": "it does not carry over to a hospital that the model has not seen",
    "patient": "it measures how well the model knows these patients",
    "group": "copies or overlapping fields of test images were in training",
    "block": "images taken one after the other were on both sides of the split",
    "image": "random test images are easier than those that the given split tests on",
}


def _loosest(evidence: Evidence) -> ProtocolEvidence | None:
    return evidence.protocols[0] if evidence.protocols else None


def _majority(protocol: ProtocolEvidence) -> float:
    known = protocol.named("majority")
    if known is not None:
        return known.accuracy
    total = sum(protocol.tested.values())
    return max(protocol.tested.values()) / total if total else float("nan")


def shortcuts(evidence: Evidence) -> Iterator[Finding]:
    """Compare the best shortcut with the best network under the most lenient protocol."""
    protocol = _loosest(evidence)
    network = protocol.network if protocol else None
    if protocol is None or network is None:
        return
    rivals = [m for m in protocol.models if m.kind == "shortcut" and m.name not in ("majority", "nuclei")]
    rivals.sort(key=lambda model: -model.accuracy)
    majority = _majority(protocol)
    strict = next((item.name for item in evidence.protocols[1:]), "")
    if rivals:
        best, gap = rivals[0], network.accuracy - rivals[0].accuracy
        words = PLAIN_SHORTCUTS.get(best.name, best.name)
        numbers = {"shortcut": best.name, "shortcut_accuracy": best.accuracy, "network": network.name}
        numbers |= {"network_accuracy": network.accuracy, "majority": majority}
        gain = network.accuracy - majority
        next_step = "" if strict else str(Command("audit", ("IMAGES",), {"out": "groups.csv"}))
        reach = f"On {protocol.name}, {words} alone reach {percent(best.accuracy)}"
        if gain > EQUAL and gap <= EQUAL:
            yield Finding(
                "shortcut-matches-network",
                "serious",
                numbers | {"gap": gap},
                f"{reach} and the best model with a network ({network.name}) {percent(network.accuracy)}: this score "
                "can be reached without looking at a cell.",
                next_step,
            )
        elif gain > EQUAL and best.ties_best:
            yield Finding(
                "shortcut-not-excluded",
                "warning",
                numbers | {"gap": gap},
                f"{reach} and the best model with a network ({network.name}) {percent(network.accuracy)}, which is no "
                "significant difference: these images do not show that the network sees more.",
                next_step,
            )
        elif gain > EQUAL and best.accuracy - majority >= STRONG * gain:
            yield Finding(
                "shortcut-strong",
                "warning",
                numbers | {"gap": gap},
                f"{reach}, where guessing the most frequent class gives {percent(majority)} and the best network "
                f"{percent(network.accuracy)}: most of the score needs no cell.",
                next_step,
            )
    nuclei = protocol.named("nuclei")
    if nuclei is not None and network.accuracy - nuclei.accuracy <= EQUAL and network.accuracy - majority > EQUAL:
        yield Finding(
            "network-not-needed",
            "note",
            {"nuclei_accuracy": nuclei.accuracy, "network_accuracy": network.accuracy},
            f"On {protocol.name}, {PLAIN_SHORTCUTS['nuclei']} alone reach {percent(nuclei.accuracy)}, as much as the "
            f"network ({percent(network.accuracy)}): the network adds nothing to them here.",
        )


def falls(evidence: Evidence) -> Iterator[Finding]:
    """Compare the most lenient protocol with the one under which the same model does worst."""
    loose = _loosest(evidence)
    best = loose.network if loose else None
    if loose is None or best is None or len(evidence.protocols) < 2:
        return
    falls = []
    for protocol in evidence.protocols[1:]:
        same = protocol.named(best.name)
        if same is not None:
            falls.append((best.accuracy - same.accuracy, protocol, same))
    if not falls:
        return
    drop, strict, same = max(falls, key=lambda item: item[0])
    apart = same.high < best.low
    severity: Severity | None = None
    if drop >= LARGE_DROP and apart:
        severity = "serious"
    elif drop >= SMALL_DROP and apart:
        severity = "warning"
    numbers = {"model": best.name, "lenient": loose.name, "lenient_accuracy": best.accuracy, "strict": strict.name}
    numbers |= {"strict_accuracy": same.accuracy, "strict_low": same.low, "strict_high": same.high, "drop": drop}
    if severity is not None:
        better = strict.network
        other = ""
        if better is not None and better.name != best.name and better.accuracy - same.accuracy > SMALL_DROP:
            other = f" The best model there is {better.name} with {interval(better)}."
        yield Finding(
            "falls-when-strict",
            severity,
            numbers,
            f"On {loose.name} {best.name} reaches {percent(best.accuracy)}; with {strict.name} the same model falls "
            f"to {interval(same)}. The first figure is not the one to quote: {_MEASURES.get(strict.unit, '')}.{other}",
        )
        return
    last = evidence.protocols[-1]
    held = last.named(best.name)
    if held is None:
        return
    fall = best.accuracy - held.accuracy
    if fall < SMALL_DROP:
        yield Finding(
            "holds-when-strict",
            "good",
            numbers | {"strict": last.name, "strict_accuracy": held.accuracy, "drop": fall},
            f"{best.name} keeps its score: {percent(best.accuracy)} on {loose.name}, {interval(held)} with "
            f"{last.name}.",
        )
    else:
        yield Finding(
            "fall-uncertain",
            "warning",
            numbers | {"strict": last.name, "strict_accuracy": held.accuracy, "drop": fall},
            f"{best.name} reaches {percent(best.accuracy)} on {loose.name} and {interval(held)} with {last.name}; "
            "there are too few groups to say whether the difference is real.",
        )


def leaks(evidence: Evidence) -> Iterator[Finding]:
    """A given split has the same patients, copies or fields on both sides."""
    data = evidence.data
    if data is None or not any(data.leaks.values()):
        return
    parts = [f"{count} test images share {what} with the training part" for what, count in data.leaks.items() if count]
    yield Finding(
        "given-split-leaks",
        "serious",
        dict(data.leaks),
        f"The given split leaks: {', '.join(parts)}. Its score is too high by an unknown amount.",
        str(Command("fit", (data.cache,), {"protocol": "patient-cv" if data.patients else "group-cv"})),
    )


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
        few = {name: count for name, count in protocol.tested.items() if count < FEW_IMAGES}
        if few:
            listed = ", ".join(f"{name} ({count})" for name, count in few.items())
            yield Finding(
                "class-too-small",
                "warning",
                few,
                f"Too few images of some classes were tested to say anything about them: {listed}.",
            )
        if 0 < protocol.groups < FEW_GROUPS and protocol.unit != "image":
            yield Finding(
                "few-groups",
                "warning",
                {"groups": protocol.groups, "unit": protocol.unit},
                f"The strictest test rests on {_count(protocol.groups, protocol.unit)}: its interval is the least "
                "uncertainty there is.",
            )


def _count(number: int, unit: str) -> str:
    plural = unit if unit.endswith("s") or number == 1 else f"{unit}s"
    return f"{number} {plural}"


def calibration(evidence: Evidence) -> Iterator[Finding]:
    """The probabilities of the best model are badly calibrated."""
    protocol = _loosest(evidence)
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
