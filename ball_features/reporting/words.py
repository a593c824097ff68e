"""What a run says of itself: its title, its caption, and what a reader should know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.dataset.splits import Split
from ball_features.errors import DataError
from ball_features.evaluation.protocols import ModelResult
from ball_features.reporting.groups import LEAST_IMAGES
from ball_features.reporting.tables import SAME_MARK

__all__ = ["choice_note", "counted", "describe_cache", "failed", "require_fitted", "title_and_caption"]


def counted(number: int, what: str) -> str:
    """A number of things: "1 test set", "5 test sets"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def describe_cache(cache: Cache) -> str:
    """A cache for a title: images, views, network, channels."""
    views = f"{len(cache.view)} views" if len(cache.view) > 1 else "1 view"
    used = cache.attributes.get("channels_used")
    joint = " + " if cache.attributes.get("combine") == "concat" else " averaged with "
    channels = f", {joint.join(used)}" if used else ""
    return f"{len(cache.path)} images, {views}, {cache.attributes['backbone']}{channels}"


def failed(results: Sequence[ModelResult]) -> list[dict[str, str]]:
    """The models that failed, why, and where, for `run.json`."""
    return [
        {"model": result.spec.name, "failure": result.failure, "traceback": result.traceback}
        for result in results
        if result.failure
    ]


def require_fitted(results: Sequence[ModelResult]) -> None:
    """Raise `DataError` where every model failed; the first one's traceback is a note of the error."""
    if any(result.fitted for result in results):
        return
    first = results[0]
    error = DataError(
        f"No model could be fitted, expected at least one. The first, {first.spec.name}: {first.failure}. Try others "
        "with --models; --verbose shows where it failed."
    )
    error.add_note(first.traceback)
    raise error


def title_and_caption(
    what: str, config: FitConfig, column: str, splits: Sequence[Split], label: np.ndarray
) -> tuple[str, str]:
    """Title and caption of a run."""
    tested = np.unique(np.concatenate([split.test for split in splits]))
    sizes = sorted({len(split.test) for split in splits})
    tests = " to ".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
    many = {"holdout": counted(config.repeats, "random hold-out"), "cv": f"{config.repeats} x {config.folds}-fold cv"}
    how = many.get(config.protocol, f"{config.protocol} by {column}")
    if config.protocol == "leave-group-out":
        chosen = f"the {len(splits) // config.repeats} groups left out"
    elif column:
        chosen = "groups of images, not of slides or patients (unless these are the groups)"
    else:
        chosen = "images (with their copies), not of slides or patients"
    title = f"{how} · {what} · {tests} test images a split"
    few = [(str(name), int((label[tested] == name).sum())) for name in np.unique(label)]
    few = [f"{name} ({count})" for name, count in few if count < LEAST_IMAGES]
    caption = (
        f"Sorted by accuracy, pooled over {counted(len(splits), 'test set')}; {len(tested)} distinct images were "
        f"tested. The 95 % interval covers chance in the choice of {chosen}; it is Wilson's on the effective sample "
        f"size. {SAME_MARK}: does not differ significantly from the best at 5 % (paired permutation test over groups, "
        "Holm-corrected for multiple comparisons). n/a: not defined. Shortcuts see a few pixel numbers and no network."
    )
    if few:
        caption += (
            f" Tested by fewer than {LEAST_IMAGES} images: {', '.join(few)}. Precision, recall and F1 are means over "
            "classes, so that these few images move them as much as all those of another class."
        )
    return title, caption


def choice_note(details: dict[str, Any]) -> list[str]:
    """What the first line of the table is worth to who chooses by it."""
    best = details.get("best_of")
    if best is None or not math.isfinite(best["accuracy"]):
        return []
    return [
        f"Whichever of the {best['models']} models looks best reaches {100 * best['accuracy']:.2f} % (95 % interval "
        f"{100 * best['low']:.1f} - {100 * best['high']:.1f}) on images that did not choose it (bootstrap "
        "bias-corrected cross-validation, Tsamardinos et al. 2018)."
    ]
