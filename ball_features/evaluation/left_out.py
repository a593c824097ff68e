"""Recall of each group left out, and of groups as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ball_features.cache import Cache
from ball_features.evaluation.intervals import share_interval
from ball_features.evaluation.rows import GroupRow

if TYPE_CHECKING:  # they load scikit-learn, and pages read a constant of this module
    from ball_features.evaluation.fit_split import Fitted
    from ball_features.evaluation.protocols import ModelResult

__all__ = ["LEAST_IMAGES", "group_rows", "over_groups"]

LEAST_IMAGES = 20  # a smaller group says too little to be the worst one
_BENIGN = "benign"  # the class that is not malignant, as data sets of this disease call it


def group_rows(cache: Cache, results: Sequence[ModelResult], units: np.ndarray) -> list[GroupRow]:
    """Measure each model on each group left out.

    Args:
        cache: the images; its labels are the truth.
        results: a result a model.
        units: int (images,); images of one unit show the same, and count as little more than one image in intervals.
    """
    classes, codes = np.unique(cache.label, return_inverse=True)
    rows = []
    for result in results:
        by_group: dict[str, list[Fitted]] = {}
        for item in result.fitted:
            if item.split.name:
                by_group.setdefault(item.split.name, []).append(item)
        rows += [_row(result.spec.name, name, items, classes, codes, units) for name, items in by_group.items()]
    return rows


def _row(
    model: str, group: str, items: Sequence[Fitted], classes: np.ndarray, codes: np.ndarray, units: np.ndarray
) -> GroupRow:
    benign = [code for code, name in enumerate(classes) if str(name).lower() == _BENIGN]
    tested = np.concatenate([item.split.test for item in items])
    truth, predicted = codes[tested], np.concatenate([item.probability.argmax(1) for item in items])
    hit = truth == predicted
    low, high = share_interval(hit, units[tested], images=len(np.unique(tested)))
    wrong = Counter(str(classes[code]) for code in predicted[~hit]).most_common()
    flips = [item.flips for item in items if item.flips is not None]
    same_side = np.isin(truth, benign) == np.isin(predicted, benign)
    return GroupRow(
        model=model,
        group=group,
        images=len(np.unique(tested)),
        recall=float(hit.mean()),
        recall_low=low,
        recall_high=high,
        taken_for=", ".join(f"{name} {count}" for name, count in wrong),
        benign_malignant=float(same_side.mean()) if benign else None,
        flip_rate=float(np.concatenate(flips).mean()) if flips else None,
        balanced_recall=float(np.mean([hit[truth == code].mean() for code in np.unique(truth)])),
    )


def over_groups(rows: Sequence[GroupRow], model: str) -> list[GroupRow]:
    """Select the rows of a model for mean and worst recall: groups of at least 20 images, or all if there are none."""
    own = [row for row in rows if row.model == model]
    return [row for row in own if row.images >= LEAST_IMAGES] or own
