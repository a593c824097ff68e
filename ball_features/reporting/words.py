"""Title, caption and notes of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ball_features.cache import Cache
from ball_features.config import PROTOCOLS, FitConfig
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.remarks import some
from ball_features.dataset.splits import Split
from ball_features.evaluation.left_out import LEAST_IMAGES
from ball_features.evaluation.results import BestOf
from ball_features.reporting.tables import SAME_MARK

__all__ = ["caption_of", "choice_note", "counted", "describe_cache", "left_out_note", "title_of"]


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: "1 test set", "5 test sets"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_cache(cache: Cache) -> str:
    """Describe a cache for a title: images, views, network, channels."""
    views = f"{len(cache.view)} views" if len(cache.view) > 1 else "1 view"
    joint = " + " if cache.combine == "concat" else " averaged with "
    channels = f", {joint.join(cache.channels_used)}" if len(cache.channels) > 1 else ""
    return f"{len(cache.path)} images, {views}, {cache.backbone}{channels}"


def title_of(subject: str, config: FitConfig, grouping: Grouping | None, splits: Sequence[Split]) -> str:
    """Write the title of a run: protocol, data and size of the test sets.

    Args:
        subject: the data in a few words.
        config: protocol, repeats and folds.
        grouping: columns of the groups file, if there is one.
        splits: the splits.
    """
    sizes = sorted({len(split.test) for split in splits})
    tests = " to ".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
    column = "" if grouping is None else grouping.column
    many = {
        "holdout": counted(config.repeats, "random hold-out"),
        "cv": f"{config.repeats} x {config.folds}-fold cv",
        "given": "the given split" if len(splits) == 1 else f"{len(splits)} given folds",
    }
    protocol = many.get(config.protocol, f"{config.protocol} by {column}")
    if config.adapt != "none" and grouping is not None and grouping.adapted_site is not None:
        protocol += ", site-adapted"
    return f"{protocol} · {subject} · {tests} test images a split"


def caption_of(config: FitConfig, grouping: Grouping | None, splits: Sequence[Split], label: np.ndarray) -> str:
    """Write the caption of a run: explanation of the order, the intervals and the marks.

    Args:
        config: protocol and repeats.
        grouping: columns of the groups file, if there is one.
        splits: the splits.
        label: class of each image, str (images,).
    """
    tested = np.unique(np.concatenate([split.test for split in splits]))
    if PROTOCOLS[config.protocol].scheme == "leave-out":
        chosen = f"the {len(splits) // config.repeats} groups left out"
        if grouping is not None:
            units = len(np.unique(grouping.units_left_out[tested]))
            chosen += f", those of one patient together ({units})" if units < len(splits) // config.repeats else ""
    elif grouping is not None and grouping.patient is not None:
        chosen = "patients"
    elif grouping is not None:
        chosen = "groups of images, not of slides or patients (unless these are the groups)"
    else:
        chosen = "images (with their copies), not of slides or patients"
    few = [(str(name), int((label[tested] == name).sum())) for name in np.unique(label)]
    few = [f"{name} ({count})" for name, count in few if count < LEAST_IMAGES]
    caption = (
        f"Sorted by accuracy, pooled over {counted(len(splits), 'test set')}; {len(tested)} distinct images were "
        f"tested. The 95 % interval covers chance in the choice of {chosen}; it is Wilson's on the effective sample "
        f"size. {SAME_MARK}: does not differ significantly from the best at 5 % (paired permutation test over groups, "
        "Holm-corrected for multiple comparisons). n/a: not defined. Shortcuts see a few pixel statistics and no "
        "network."
    )
    if few:
        caption += (
            f" Tested by fewer than {LEAST_IMAGES} images: {some(few, 12)}. Precision, recall and F1 are means over "
            "classes, so that these few images move them as much as all those of another class."
        )
    return caption


def left_out_note(reasons: Mapping[str, str]) -> str:
    """Say below a table which models are not in it, and why.

    Args:
        reasons: name of a model -> reason.
    """
    said = [own if own.startswith(name) else f"{name}: {own}" for name, own in reasons.items()]
    return f" Not in the table: {' '.join(said)}" if said else ""


def choice_note(best: BestOf | None) -> list[str]:
    """Explain what the first row of the table is worth to a reader who chooses by it."""
    if best is None or not math.isfinite(best.accuracy):
        return []
    return [
        f"Choosing the best of {best.models} models flatters it. Corrected accuracy: {100 * best.accuracy:.2f} % (95 % "
        f"CI {100 * best.low:.1f} to {100 * best.high:.1f}; bootstrap bias-corrected cross-validation, Tsamardinos et "
        "al. 2018)."
    ]
