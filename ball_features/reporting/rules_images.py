"""Rules of the verdict on the images and their embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ball_features.reporting.evidence import AuditEvidence, Evidence
from ball_features.reporting.finding import Command, Finding
from ball_features.reporting.rule_words import cache_of, extract_again, fit_again, percent
from ball_features.reporting.words import counted

__all__ = [
    "audit_copies",
    "chosen_here",
    "doubtful_labels",
    "label_conflicts",
    "leaks",
    "overlay_tells_class",
    "precision_deviates",
    "random_weights",
    "seen_in_training",
    "site_adapted",
]

MOST = 0.5
# What crosses a given split, said of one test image and of several.
_LEAKS = {
    "copies": ("is identical to a training image", "are identical to training images"),
    "patients": ("is of a patient who is in training too", "are of patients who are in training too"),
    "groups": ("belongs to a group that is in training too", "belong to groups that are in training too"),
}
_WITHOUT_LEAK = {
    "patients": ("patient-cv", "patient"),
    "groups": ("group-cv", "group"),
}  # copies are kept together by every protocol
LOOKALIKE = 0.25  # share of pairs with different labels from which pairs are similar images, not copies
FEW_PAIRS = 20


def random_weights(evidence: Evidence) -> Iterator[Finding]:
    """The weights of the network are random."""
    extraction = evidence.extraction
    if extraction is not None and extraction.random_weights:
        yield Finding(
            "random-weights",
            "warning",
            {"backbone": extraction.backbone},
            f"The weights of {extraction.backbone} are random: these figures show that the commands work, not what "
            "the network can do.",
            extract_again(evidence, out="pretrained.h5", backbone=extraction.backbone, weights="imagenet"),
        )


def label_conflicts(evidence: Evidence) -> Iterator[Finding]:
    """Images that show the same have different labels."""
    audit, data = evidence.audit, evidence.data
    if audit is not None and _are_lookalikes(audit):
        audit = None
    count = max(audit.conflicts if audit else 0, data.conflicts if data else 0)
    if not count:
        return
    example = (audit.conflict_example if audit else ()) or (data.conflict_example if data else ())
    shown = f"{'for example ' if count > 1 else ''}{example[0]} and {example[1]}" if len(example) == 2 else ""
    shown = shown and f" ({shown})"
    yield Finding(
        "label-conflicts",
        "warning",
        {"pairs": count},
        f"{count} pairs of images show the same and have different labels{shown}: one label of each pair is wrong."
        if count > 1
        else f"2 images{shown} show the same and have different labels: one of the labels is wrong.",
    )


def doubtful_labels(evidence: Evidence) -> Iterator[Finding]:
    """All models give images another class than their label, and are sure of it."""
    data = evidence.data
    if data is None or not data.doubtful:
        return
    count, (path, label, other) = len(data.doubtful), data.doubtful[0]
    many = "1 image is" if count == 1 else f"{count} images are"
    yield Finding(
        "labels-doubtful",
        "note",
        {"images": count},
        f"{many} given another class than the label by all models, with a mean probability of 80 % or more (for "
        f"example {path}, labelled {label}, answered {other}): hard images, or wrong labels.",
        str(Command("labels", (cache_of(evidence),), {"out": "labels.csv"})),
    )


def audit_copies(evidence: Evidence) -> Iterator[Finding]:
    """Images show the same as others: augmented copies, duplicates, overlapping fields."""
    audit = evidence.audit
    if audit is None or not audit.images:
        return
    grouped = any(protocol.unit == "group" for protocol in evidence.protocols)
    next_step = "" if grouped else fit_again(evidence, "group-cv", "group")
    if _is_augmented(audit):
        yield Finding(
            "augmented-copies",
            "serious",
            {"images": audit.images, "photographs": audit.groups, "largest_group": audit.largest_group},
            f"These are augmented copies: {audit.images} images come from about "
            f"{counted(audit.groups, 'photograph')}. A random "
            "split tests on turned or brightened copies of training images; only scores with photographs kept "
            "together mean anything.",
            next_step,
        )
        return
    share = audit.in_pairs / audit.images
    if share < 0.01:
        return
    if _are_lookalikes(audit):
        pairs = audit.near + audit.shared
        yield Finding(
            "lookalikes",
            "note",
            {"pairs": pairs, "conflicts": audit.conflicts, "images": audit.in_pairs},
            f"{pairs} pairs of images look alike, and {audit.conflicts} of them have different labels: most are "
            "similar cells, not copies. The groups of the audit keep them together all the same.",
        )
        return
    yield Finding(
        "overlapping-images",
        "serious" if share >= MOST and not grouped else "warning" if share >= 0.1 else "note",
        {"exact": audit.exact, "near": audit.near, "shared": audit.shared, "images": audit.in_pairs, "share": share},
        f"{audit.in_pairs} of {audit.images} images ({percent(share, 0)}) show the same as another one, whole or in "
        f"part (pairs: {audit.exact} identical, {audit.near} nearly identical, {audit.shared} of overlapping fields): "
        "a random split puts them on both sides.",
        next_step,
    )


def _are_lookalikes(audit: AuditEvidence) -> bool:
    """Whether so many pairs have different labels that they cannot be copies: copies mostly share their label."""
    pairs = audit.near + audit.shared
    return pairs >= FEW_PAIRS and audit.conflicts >= LOOKALIKE * pairs


def _is_augmented(audit: AuditEvidence) -> bool:
    """Most images are near-duplicates of several others, not of a neighbour in a row of fields."""
    return audit.in_pairs >= MOST * audit.images and audit.groups <= audit.images / 2.5 and audit.near >= audit.shared


def leaks(evidence: Evidence) -> Iterator[Finding]:
    """A given split has the same patients, copies or fields on both sides."""
    data = evidence.data
    if data is None or not any(data.leaks.values()):
        return
    parts = [f"{counted(count, 'test image')} {_LEAKS[what][count > 1]}" for what, count in data.leaks.items() if count]
    protocol, unit = next((own for what, own in _WITHOUT_LEAK.items() if data.leaks.get(what)), ("cv", ""))
    yield Finding(
        "given-split-leaks",
        "serious",
        dict(data.leaks),
        f"The given split leaks: {', and '.join(parts)}. Its score is too high by an unknown amount.",
        fit_again(evidence, protocol, unit),
    )


def overlay_tells_class(evidence: Evidence) -> Iterator[Finding]:
    """A burned-in overlay alone tells the class."""
    audit = evidence.audit
    if audit is None or math.isnan(audit.overlay_accuracy) or math.isnan(audit.majority):
        return
    gain = audit.overlay_accuracy - audit.majority
    if gain < 0.05:
        return
    yield Finding(
        "overlay-tells-class",
        "serious" if gain >= 0.2 else "warning",
        {"overlay_accuracy": audit.overlay_accuracy, "majority": audit.majority},
        f"The burned-in scale bar alone tells the class of {percent(audit.overlay_accuracy, 0)} of the images "
        f"(guessing: {percent(audit.majority, 0)}): a network can read the label off the bar.",
    )


def chosen_here(evidence: Evidence) -> Iterator[Finding]:
    """Views or settings were chosen on these data."""
    data = evidence.data
    if data is not None and data.views_chosen_here:
        listed = ", ".join(data.views_chosen_here)
        yield Finding(
            "chosen-on-these-data",
            "warning",
            {"what": list(data.views_chosen_here)},
            f"Chosen by looking at this data set: {listed}. Figures on it are too good; they count on other data.",
        )


def precision_deviates(evidence: Evidence) -> Iterator[Finding]:
    """The precision of the forward pass changes the embeddings."""
    extraction = evidence.extraction
    if extraction is not None and extraction.cosine < extraction.bound:
        yield Finding(
            "precision-deviates",
            "warning",
            {"cosine": extraction.cosine, "bound": extraction.bound, "precision": extraction.precision},
            f"Embeddings in {extraction.precision} deviate from float32 (worst cosine {extraction.cosine:.4f}, bound "
            f"{extraction.bound}).",
            extract_again(evidence, out="fp32.h5", backbone=extraction.backbone, precision="fp32"),
        )


def seen_in_training(evidence: Evidence) -> Iterator[Finding]:
    """The network was trained on these images."""
    extraction = evidence.extraction
    if extraction is not None and extraction.trained_on:
        listed = ", ".join(extraction.trained_on)
        yield Finding(
            "network-saw-these",
            "serious",
            {"backbone": extraction.backbone, "sets": list(extraction.trained_on)},
            f"{extraction.backbone} was trained on images that appear to be among these ({listed}): no figure on them "
            "is an external one.",
        )
    elif extraction is not None and len(extraction.recognised) < extraction.collections:
        known, more = extraction.recognised, extraction.collections - len(extraction.recognised)
        told = f"{known[0] if known else 'none'} is recognised by name and is not among the images"
        if len(known) > 1:
            told = f"{', '.join(known)} are recognised by name, and none of them is among the images"
        yield Finding(
            "network-may-know-these",
            "note",
            {"backbone": extraction.backbone, "collections": extraction.collections, "sets": [*extraction.recognised]},
            f"{extraction.backbone} was trained on {extraction.collections} public collections of blood cells. Of "
            f"these, {told}. Check that they are not of the other {more} before you call a figure external.",
        )


def site_adapted(evidence: Evidence) -> Iterator[Finding]:
    """Models saw unlabelled images of the sites that they were tested on."""
    adapted = [protocol.name for protocol in evidence.protocols if protocol.adapted]
    if adapted:
        blind = list(dict.fromkeys(name for protocol in evidence.protocols for name in protocol.cannot_tell))
        told = (
            f" {', '.join(blind)} cannot tell images of one class from mixed ones, and lose by them." if blind else ""
        )
        yield Finding(
            "site-adapted",
            "note",
            {"protocols": adapted, "cannot_tell": blind},
            "Site-adapted: images of the site that is tested gave its statistics, without their labels. The figures "
            "hold for a site whose images come together, of mixed classes, not for single images of a site never seen."
            + told,
        )
