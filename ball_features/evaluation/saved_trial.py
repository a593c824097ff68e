"""How models to save bear batches of one class, where no split of their run left a site out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from ball_features.dataset.splits import MIN_NAMED_TRAIN, Split
from ball_features.evaluation.protocols import Progress, evaluate, named_progress
from ball_features.evaluation.tasks import Evaluation
from ball_features.models.adaptation import ADAPTATIONS
from ball_features.models.one_class import OneClassRecord

__all__ = ["try_saved"]

_MOST_SITES = 5  # that are left out, the largest


def try_saved(
    evaluation: Evaluation, names: Collection[str], *, final: bool = False, progress: Progress | None = None
) -> dict[str, OneClassRecord]:
    """Fit models without each of their largest sites, and adapt them to batches of one class of that site.

    Args:
        evaluation: evaluation of the run.
        names: names of the models.
        final: whether they are fitted on all images, and not on those of the first split that do not test it.
        progress: function called with (fits done, all fits, model just done).

    Returns:
        The record of each model; none where models are not adapted or their method has no guard, where the sites do not
        suffice, or where a fit failed.
    """
    config, site, label = evaluation.config, evaluation.adapted_site, evaluation.cache.label
    if not names or site is None or config.adapt == "none" or not ADAPTATIONS[config.adapt].guarded:
        return {}
    first = evaluation.splits[0]
    used = [part for split in evaluation.splits for part in (split.train, split.val, split.test)]
    rows = np.unique(np.concatenate(used if final else [first.train, first.val]))
    sites, counts = np.unique(site[rows], return_counts=True)
    splits = []
    for own in sites[np.argsort(-counts, kind="stable")][:_MOST_SITES]:
        rest = rows[site[rows] != own]
        classes, images = np.unique(label[rest], return_counts=True)
        if len(classes) == len(np.unique(label[rows])) and images.min() >= MIN_NAMED_TRAIN:
            splits.append(Split(0, len(splits), rest, rows[:0], rows[site[rows] == own]))
    if not splits:
        return {}
    models = tuple(spec for spec in evaluation.models if spec.name in names)
    tried = replace(evaluation, models=models, splits=tuple(splits), keep=())
    found = evaluate(tried, named_progress(progress, "batches of one class"))
    records = {item.spec.name: OneClassRecord.joined([own.one_class for own in item.fitted]) for item in found}
    return {name: record for name, record in records.items() if record is not None}
