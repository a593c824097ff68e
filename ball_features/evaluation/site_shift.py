"""Adaptation of the models of a comparison to the site of the images tested, whose labels stay unused.

A task's embeddings are replaced by centred ones before a model sees them, so that every model can be adapted. Offsets
of training sites come from training images and their labels; that of a site which training lacks comes from its test
images without labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ball_features.dataset.splits import Split
from ball_features.evaluation.tasks import FitTask
from ball_features.evaluation.views import Views
from ball_features.models.adaptation import SiteAdapter, SiteShift

__all__ = [
    "adapt_test",
    "cells_of",
    "center_training",
    "fit_adapter",
    "sites_of_one_class",
    "used_views",
    "views_of",
]


def fit_adapter(task: FitTask) -> SiteAdapter:
    """Estimate the offsets of the training sites from the training images, for the views that the task uses.

    Raises:
        ConfigError: A site holds one class in training.
    """
    images, train = task.images, task.split.train
    assert images.site is not None
    return SiteAdapter(task.adapt).fit(views_of(task, train), images.codes[train], images.site[train])


def center_training(task: FitTask, adapter: SiteAdapter) -> FitTask:
    """Return the task with embeddings of known sites less their offsets, of others less the average offset."""
    assert task.images.site is not None
    known = np.isin(task.images.site, adapter.sites_)
    numbers = np.zeros(task.images.numbers.shape, dtype=np.float32)
    every = np.arange(len(numbers))
    own = views_of(task, every)
    own[known] = adapter.center(own[known], task.images.site[known])
    own[~known] -= adapter.average
    numbers[:, used_views(task.views)] = own
    return replace(task, images=replace(task.images, numbers=numbers))


def adapt_test(
    task: FitTask, centred: FitTask, adapter: SiteAdapter, predict: Callable[[FitTask], np.ndarray]
) -> dict[str, SiteShift]:
    """Subtract the offset of each new site from its test images, in place.

    Args:
        task: task with the embeddings as they are.
        centred: result of `center_training`, which is changed.
        adapter: offsets of the training sites.
        predict: function from a task to the class probabilities of its test images, by the fitted model.

    Returns:
        The offset of each new site, by name, of the views in `used_views`.
    """
    assert task.images.site is not None
    shifts: dict[str, SiteShift] = {}
    test = task.split.test
    numbers = centred.images.numbers
    for name in np.unique(task.images.site[test]).tolist():
        if name in adapter.sites_:
            continue
        rows = test[task.images.site[test] == name]
        part = replace(centred, split=replace(centred.split, test=rows))

        def answer(X: np.ndarray, part: FitTask = part, rows: np.ndarray = rows) -> np.ndarray:
            numbers[cells_of(task, rows)] = X
            return predict(part)

        X = views_of(task, rows)
        shift = adapter.adapt(X, answer)
        numbers[cells_of(task, rows)] = X - shift.offset
        shifts[str(name)] = shift
    return shifts


def sites_of_one_class(site: np.ndarray, label: np.ndarray, splits: Sequence[Split]) -> list[str]:
    """Names of the sites whose training images are all of one class in some split.

    Args:
        site: site of each image, str (images,).
        label: class of each image, str (images,).
        splits: the splits.
    """
    found: set[str] = set()
    for split in splits:
        own, classes = site[split.train], label[split.train]
        found |= {str(name) for name in np.unique(own) if len(np.unique(classes[own == name])) == 1}
    return sorted(found)


def used_views(views: Views) -> list[int]:
    """Numbers of the views that are centred: the plain one, and those that train and test a model."""
    return sorted({0, *views.train, *views.test})


def cells_of(task: FitTask, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the embeddings of these rows and the used views."""
    return rows[:, None], np.array(used_views(task.views))


def views_of(task: FitTask, rows: np.ndarray) -> np.ndarray:
    """Embeddings of the views that the task uses, float32 (rows, views, D)."""
    return task.images.numbers[cells_of(task, rows)].astype(np.float32)
