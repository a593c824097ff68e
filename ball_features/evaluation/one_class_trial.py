"""How a site-adapted model bears batches of one class, tried on sites that training lacks.

Labels of these sites make the batches and score them. Nothing else follows from them: no prediction and no figure of a
run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ball_features.evaluation.site_shift import cells_of, views_of
from ball_features.evaluation.tasks import FitTask
from ball_features.models.adaptation import ADAPTATIONS, MIN_IMAGES, SiteAdapter
from ball_features.models.one_class import OneClassRecord

__all__ = ["try_one_class"]

BATCH = 60  # most images of a batch
MOST_BATCHES = 12  # of a split


def try_one_class(
    task: FitTask, centred: FitTask, adapter: SiteAdapter, predict: Callable[[FitTask], np.ndarray]
) -> OneClassRecord | None:
    """Adapt a fitted model to batches of one class of the sites that it has not seen.

    Args:
        task: task with the embeddings as they are.
        centred: result of `center_training`; it comes back as it was given.
        adapter: offsets of the training sites.
        predict: function from a task to the class probabilities of its test images, by the fitted model.

    Returns:
        The record; None for a method without a guard, where no site was left out, or no class of one has `MIN_IMAGES`
        images.
    """
    site, codes, test = task.images.site, task.images.codes, task.split.test
    if site is None or not ADAPTATIONS[task.adapt].guarded:
        return None
    new = test[~np.isin(site[test], adapter.sites_)]
    rng = np.random.default_rng([task.seed, task.split.repeat, task.split.fold])
    kinds = [
        new[(site[new] == name) & (codes[new] == code)] for name in np.unique(site[new]) for code in np.unique(codes)
    ]
    kinds = [rows for rows in kinds if len(rows) >= MIN_IMAGES]
    chosen = rng.permutation(len(kinds))[:MOST_BATCHES]
    batches = [np.sort(rng.choice(kinds[k], min(BATCH, len(kinds[k])), replace=False)) for k in np.sort(chosen)]
    if not batches:
        return None
    numbers = centred.images.numbers
    before = numbers[cells_of(task, new)]
    X = [views_of(task, rows) for rows in batches]

    def answer(asked: dict[int, np.ndarray]) -> list[np.ndarray]:
        rows = np.concatenate([batches[number] for number in asked])
        numbers[cells_of(task, rows)] = np.concatenate(list(asked.values()))
        probability = predict(replace(centred, split=replace(centred.split, test=rows)))
        return np.split(probability, np.cumsum([len(batches[number]) for number in asked])[:-1])

    shifts = adapter.adapt_each(X, answer)
    accuracy = []
    for offsets in ([adapter.average] * len(X), [shift.offset for shift in shifts]):
        answers = answer({number: own - offset for number, (own, offset) in enumerate(zip(X, offsets, strict=True))})
        hits = [own.argmax(1) == codes[rows] for own, rows in zip(answers, batches, strict=True)]
        accuracy.append(float(np.mean([own.mean() for own in hits])))
    numbers[cells_of(task, new)] = before
    return OneClassRecord(len(batches), sum(shift.adapted for shift in shifts), *accuracy)
