"""Rules of the verdict on the scores: guessing, shortcuts, strict protocols."""

from __future__ import annotations

from collections.abc import Iterator

from ball_features.config import LADDER
from ball_features.reporting.evidence import Evidence, ModelEvidence, ProtocolEvidence
from ball_features.reporting.finding import Command, Finding, Severity
from ball_features.reporting.rule_words import folder_of, interval, percent

__all__ = ["falls", "nothing_learnt", "share_of_majority", "shortcuts"]

# Thresholds in shares. A difference is a finding only where intervals or a test support it, or where it is this large.
LARGE_DROP = 0.10
SMALL_DROP = 0.03
EQUAL = 0.01  # a shortcut this close to the network has all of its score
STRONG = 0.80  # of the way from guessing to the network
CHANCE = 0.1  # mean recall above that of guessing from which a model that is right no more often has learnt
BLIND = ("colour", "corner")  # shortcuts that do not see how much of an image is nuclei
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
    "copy": "identical copies of test images were in training",
    "group": "copies or overlapping fields of test images were in training",
    "block": "images taken one after the other were on both sides of the split",
    "split": "random test images are easier than those that the given split tests on",
}


def _loosest(evidence: Evidence) -> ProtocolEvidence | None:
    return evidence.protocols[0] if evidence.protocols else None


def share_of_majority(protocol: ProtocolEvidence) -> float:
    """Accuracy of guessing the most frequent class."""
    known = protocol.named("majority")
    if known is not None:
        return known.accuracy
    total = sum(protocol.tested.values())
    return max(protocol.tested.values()) / total if total else float("nan")


def nothing_learnt(evidence: Evidence) -> Iterator[Finding]:
    """No model with a network is shown to do better than guessing."""
    protocol = _loosest(evidence)
    network = protocol.network if protocol else None
    if protocol is None or network is None or _has_learnt(protocol, network):
        return
    if evidence.extraction is not None and evidence.extraction.random_weights:
        return  # nobody expects more of a random network, and its own finding says so
    majority = share_of_majority(protocol)
    yield Finding(
        "nothing-learnt",
        "serious",
        {
            "model": network.name,
            "lenient": protocol.name,
            "accuracy": network.accuracy,
            "low": network.low,
            "high": network.high,
            "guessing": majority,
            "unit": protocol.unit,
        },
        f"On {protocol.name} the best model that uses the network ({network.name}) reaches {interval(network)}, which "
        f"is not shown to be better than guessing the most frequent class ({percent(majority)}): nothing shows that "
        + (
            f"what it learns holds for a {protocol.unit} that it has not seen."
            if protocol.unit in ("patient", "site", "series")
            else "it has learnt anything."
        ),
    )


def _has_learnt(protocol: ProtocolEvidence, model: ModelEvidence) -> bool:
    """Whether a model does better than guessing: in accuracy, or by finding rare classes too."""
    classes = sum(count > 0 for count in protocol.tested.values())
    by_class = model.balanced is not None and classes > 0 and model.balanced > 1 / classes + CHANCE
    return by_class or not model.low <= share_of_majority(protocol)


def shortcuts(evidence: Evidence) -> Iterator[Finding]:
    """Compare the best shortcut with the best network under the most lenient protocol."""
    protocol = _loosest(evidence)
    network = protocol.network if protocol else None
    if protocol is None or network is None:
        return
    majority = share_of_majority(protocol)
    rivals = [m for m in protocol.models if m.kind == "shortcut" and m.name not in ("majority", "nuclei")]
    rivals.sort(key=lambda model: -model.accuracy)
    # A random network says nothing of what can be learnt: a shortcut is then measured by what is left to learn.
    random = evidence.extraction is not None and evidence.extraction.random_weights
    gain = max([1.0 if random else network.accuracy, *(model.accuracy for model in rivals)]) - majority
    strong = majority + STRONG * gain
    if not any(_has_learnt(protocol, model) for model in (network, *rivals)):
        return
    only_colours = gain > EQUAL and bool(rivals) and _needs_every_colour(evidence, rivals, strong)
    if rivals and gain > EQUAL and not only_colours and (not random or rivals[0].accuracy >= strong):
        yield from _rival(evidence, rivals[0], network, majority)
    if only_colours and rivals[0].accuracy >= strong and network.accuracy - rivals[0].accuracy > EQUAL:
        yield Finding(
            "colours-tell-most",
            "note",
            {"shortcut": rivals[0].name, "shortcut_accuracy": rivals[0].accuracy, "network_accuracy": network.accuracy},
            f"On {protocol.name}, {PLAIN_SHORTCUTS.get(rivals[0].name, rivals[0].name)} alone reach "
            f"{percent(rivals[0].accuracy)} and the network {percent(network.accuracy)}: most of the score is in how "
            "much of each colour an image holds, be it the cells' colour or the stain's.",
        )
    enough = [m for m in (protocol.named("nuclei"), rivals[0] if only_colours else None) if m is not None]
    best = max(enough, key=lambda model: model.accuracy, default=None)
    if best is None or gain <= EQUAL or network.accuracy - best.accuracy > EQUAL:
        return
    words = PLAIN_SHORTCUTS.get(best.name, best.name)
    said = (
        "the network adds nothing to them here"
        if best.name == "nuclei"
        else "how much of each colour an image holds is enough, be it the cells' colour or the stain's, and shapes are "
        "not needed. Mean colours and corners alone do not reach it"
    )
    yield Finding(
        "network-not-needed",
        "note",
        {f"{best.name}_accuracy": best.accuracy, "network": network.name, "network_accuracy": network.accuracy},
        f"On {protocol.name}, {words} alone reach {percent(best.accuracy)}, about as "
        f"much as the network or more ({network.name}, {percent(network.accuracy)}): {said}.",
    )


def _needs_every_colour(evidence: Evidence, rivals: list[ModelEvidence], strong: float) -> bool:
    """Whether only a shortcut that also sees the cells' own colours is good, and keeps its score when it gets stricter.

    Args:
        evidence: all results.
        rivals: shortcuts, the best first.
        strong: accuracy from which a shortcut is good.
    """
    blind = [model for model in rivals if model.name in BLIND]
    if not blind or rivals[0].name in BLIND or blind[0].accuracy >= strong:
        return False
    stricter = (own.named(rivals[0].name) for own in _stricter(evidence))
    return all(own is None or rivals[0].accuracy - own.accuracy < LARGE_DROP for own in stricter)


def _stricter_step(evidence: Evidence) -> str:
    """The command that shows what is left of a score under stricter protocols."""
    data = evidence.data
    if data is not None and data.groups:
        return str(Command("fit", (data.cache,), {"groups": data.groups, "protocol": LADDER}))
    return str(Command("audit", (folder_of(evidence),), {"out": "groups.csv"}))


def _rival(evidence: Evidence, best: ModelEvidence, network: ModelEvidence, majority: float) -> Iterator[Finding]:
    """Say that a shortcut has the network's score, may have it, or has most of it."""
    protocol, gain, gap = evidence.protocols[0], network.accuracy - majority, network.accuracy - best.accuracy
    numbers = {"shortcut": best.name, "shortcut_accuracy": best.accuracy, "network": network.name}
    numbers |= {"network_accuracy": network.accuracy, "majority": majority, "gap": gap, "lenient": protocol.name}
    next_step = "" if len(evidence.protocols) > 1 else _stricter_step(evidence)
    words = PLAIN_SHORTCUTS.get(best.name, best.name)
    reach = f"On {protocol.name}, {words} alone reach {percent(best.accuracy)}"
    if gap <= EQUAL:
        yield Finding(
            "shortcut-matches-network",
            "serious",
            numbers,
            f"{reach} and the best model that uses the network ({network.name}) {percent(network.accuracy)}: this "
            "score can be reached without seeing the shape of a single cell.",
            next_step,
        )
    elif best.ties_best:
        yield Finding(
            "shortcut-not-excluded",
            "warning",
            numbers,
            f"{reach} and the best model that uses the network ({network.name}) {percent(network.accuracy)}, which is "
            "no significant difference: these images do not show that the network sees more.",
            next_step,
        )
    elif best.accuracy - majority >= STRONG * gain:
        yield Finding(
            "shortcut-strong",
            "warning",
            numbers,
            f"{reach}, where guessing the most frequent class gives {percent(majority)} and the best model that "
            f"uses the network {percent(network.accuracy)}: most of the score needs no cell's shape.",
            next_step,
        )


def _stricter(evidence: Evidence) -> list[ProtocolEvidence]:
    """Protocols that are stricter than the most lenient one: one whose groups are single images is not."""
    return [own for own in evidence.protocols[1:] if own.unit != "image" and not own.keeps_nothing_together]


def falls(evidence: Evidence) -> Iterator[Finding]:
    """Compare the most lenient protocol with the one under which the same model does worst."""
    loose = _loosest(evidence)
    best = loose.network if loose else None
    if loose is None or best is None or len(evidence.protocols) < 2 or not _has_learnt(loose, best):
        return  # a model that guesses has no score to keep
    falls = []
    for protocol in _stricter(evidence):
        same = protocol.named(best.name)
        if same is not None:
            falls.append((best.accuracy - same.accuracy, protocol, same))
    if not falls:
        return
    # Series are inferred, patients and sites are known: where the score falls on these, that is the figure to quote.
    known = [item for item in falls if item[1].unit in ("patient", "site") and _falls_by(best, item[2])]
    drop, strict, same = max(known or falls, key=lambda item: item[0])
    severity = _falls_by(best, same)
    numbers = {"model": best.name, "lenient": loose.name, "lenient_accuracy": best.accuracy, "strict": strict.name}
    numbers |= {"strict_accuracy": same.accuracy, "strict_low": same.low, "strict_high": same.high, "drop": drop}
    numbers |= {"unit": strict.unit, "guessing": share_of_majority(loose)}
    if severity is not None:
        better = strict.network
        other = _without_network(strict, same)
        if better is not None and better.name != best.name and better.accuracy - same.accuracy > SMALL_DROP:
            other += f" The best model there is {better.name} with {interval(better)}."
        yield Finding(
            "falls-when-strict",
            severity,
            numbers,
            f"On {loose.name} the best model that uses the network ({best.name}) reaches {percent(best.accuracy)}; "
            f"with {strict.name} the same model falls to {interval(same)}. The first figure is not the one to quote: "
            f"{_MEASURES.get(strict.unit, '')}.{other}",
        )
        return
    last = _stricter(evidence)[-1]
    held = last.named(best.name)
    if held is None:
        return
    fall = best.accuracy - held.accuracy
    numbers |= {"strict": last.name, "strict_accuracy": held.accuracy, "strict_low": held.low}
    numbers |= {"strict_high": held.high, "drop": fall, "unit": last.unit}
    if fall < SMALL_DROP and best.accuracy - held.low < LARGE_DROP:
        yield Finding(
            "holds-when-strict",
            "good",
            numbers,
            f"The best model that uses the network ({best.name}) keeps its score: {percent(best.accuracy)} on "
            f"{loose.name}, {interval(held)} with {last.name}.",
        )
    else:
        yield Finding(
            "fall-uncertain",
            "note" if fall < SMALL_DROP else "warning",
            numbers,
            f"The best model that uses the network ({best.name}) reaches {percent(best.accuracy)} on {loose.name} and "
            f"{interval(held)} with {last.name}: "
            + (
                f"no fall is shown, and too little was tested to exclude one of {100 * LARGE_DROP:.0f} points."
                if fall < SMALL_DROP
                else "the intervals overlap, so that the difference may be chance."
            ),
        )


def _without_network(strict: ProtocolEvidence, same: ModelEvidence) -> str:
    """Say that a shortcut does as well as the network where the model has seen nothing alike; "" where none does."""
    rivals = [model for model in strict.models if model.kind == "shortcut" and model.name != "majority"]
    best = max(rivals, key=lambda model: model.accuracy, default=None)
    if best is None or best.accuracy < same.accuracy:
        return ""
    words = PLAIN_SHORTCUTS.get(best.name, best.name)
    return f" With {strict.name} {words} alone do as well, {interval(best)}: nothing shows that the network is of use."


def _falls_by(best: ModelEvidence, same: ModelEvidence) -> Severity | None:
    """How serious the loss of a model under a stricter protocol is; None where it may be chance, or is small."""
    drop = best.accuracy - same.accuracy
    if same.high >= best.low or drop < SMALL_DROP:
        return None
    return "serious" if drop >= LARGE_DROP else "warning"
