"""One model on one split: fitted on the training rows, then asked about the test images.

No test image is used before its prediction. Models are built anew for each split and fitted on its training rows;
validation rows go only to models that choose an epoch by them.
"""

from __future__ import annotations

import time
import traceback
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import Split
from ball_features.errors import CacheError
from ball_features.evaluation.views import Views, model_views, view_rows
from ball_features.extraction.views import shows_whole_field
from ball_features.models.registry import Model

__all__ = ["Evaluation", "Failed", "FitTask", "Fitted", "divide", "fit_task", "obstacles"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is evaluated: models, on the images of a cache, under one protocol.

    Attributes:
        cache: complete cache, whose labels are the classes.
        models: models in the order of the results.
        splits: splits from `dataset.splits.make_splits`.
        config: seed, head, views, number of processes.
        group: group of each image, (images,), for models that are trained against groups, or None.
        center: what the embeddings of each image are centred with before those models, (images,), or None.
        keep: names of models whose fitted estimator of the first split is returned.
    """

    cache: Cache
    models: tuple[Model, ...]
    splits: tuple[Split, ...]
    config: FitConfig
    group: np.ndarray | None = None
    center: np.ndarray | None = None
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Fitted:
    """One model on one split.

    Attributes:
        split: split.
        probability: class probabilities of the test images, float64 (test, classes), rows that sum to 1.
        curves: curves of a head's training, name -> (epochs,), or empty.
        best_epoch: epoch that validation chose, or -1.
        fit_s: seconds to fit.
        predict_s: seconds to predict the test images.
        flips: whether the views of a test image are given different classes, bool (test,), or None if not compared.
        estimator: fitted estimator, or None if not kept.
        converged: False if an optimiser stopped at its limit of iterations.
        refitted: True if a worker process died while it had the fit, and the main process did it again.
    """

    split: Split
    probability: np.ndarray
    curves: dict[str, np.ndarray]
    best_epoch: int
    fit_s: float
    predict_s: float
    flips: np.ndarray | None = None
    estimator: Any = None
    converged: bool = True
    refitted: bool = False


@dataclass(frozen=True)
class Failed:
    """Why a model has no result, and where it failed."""

    reason: str
    traceback: str


@dataclass(frozen=True, eq=False)
class _Images:
    """What models see of the images.

    Attributes:
        numbers: embeddings or pixel statistics, float (images, views, columns).
        codes: class of each image, int (images,).
        classes: number of classes.
        group: group of each image, (images,), or None.
        kinds: what each image is centred with, int (images,), or None.
    """

    numbers: np.ndarray
    codes: np.ndarray
    classes: int
    group: np.ndarray | None
    kinds: np.ndarray | None

    def kinds_of(self, rows: np.ndarray, views: tuple[int, ...]) -> np.ndarray | None:
        """Return what these views of these images are centred with, int (rows * views,): each view has its own mean."""
        if self.kinds is None:
            return None
        return (self.kinds[rows][:, None] * self.numbers.shape[1] + np.array(views)).ravel()


@dataclass(frozen=True, eq=False)
class FitTask:
    """One fit, with all that a process needs for it.

    Attributes:
        model: model.
        split: split.
        images: what the model sees of the images.
        views: views that train and test.
        flip_views: views whose answers are compared with each other.
        whole_field: for each view of a model that tells views apart, whether it shows the space between the cells too.
        seed: seed of the run.
        head: settings of the head.
        keep: True returns the fitted estimator.
    """

    model: Model
    split: Split
    images: _Images
    views: Views
    flip_views: tuple[int, ...]
    whole_field: tuple[bool, ...]
    seed: int
    head: HeadConfig
    keep: bool


def obstacles(evaluation: Evaluation) -> dict[str, str]:
    """Return why models cannot be fitted, model name -> reason, as far as the number of training images tells."""
    classes, codes = np.unique(evaluation.cache.label, return_inverse=True)
    found: dict[str, str] = {}
    for model in evaluation.models:
        views = 1 if model.by_view else len(model_views(model, evaluation.cache, evaluation.config).train)
        for split in evaluation.splits:
            number, count = np.unique(codes[split.train], return_counts=True)
            counts = zip(classes[number].tolist(), (count * views).tolist(), strict=True)
            reason = model.obstacle({str(name): rows for name, rows in counts})
            if reason:
                found[model.name] = reason
                break
    return found


def divide(evaluation: Evaluation) -> dict[tuple[int, int], FitTask]:
    """Return the fits by (place of the model, number of the split), slow models first so that no core idles at the end.

    Models with obstacles are left out.

    Raises:
        CacheError: The cache lacks the pixel statistics of a shortcut.
        ConfigError: A view is not in the cache.
    """
    cache, config = evaluation.cache, evaluation.config
    classes, codes = np.unique(cache.label, return_inverse=True)
    kinds = None if evaluation.center is None else np.unique(evaluation.center, return_inverse=True)[1]
    blocked = obstacles(evaluation)
    models = {place: model for place, model in enumerate(evaluation.models) if model.name not in blocked}
    images = {
        features: _Images(_numbers(cache, features), codes, len(classes), evaluation.group, kinds)
        for features in dict.fromkeys(model.features for model in models.values())
    }
    tasks: dict[tuple[int, int], FitTask] = {}
    for place, model in sorted(models.items(), key=lambda item: -item[1].cost):
        views = model_views(model, cache, config)
        for number, split in enumerate(evaluation.splits):
            tasks[place, number] = FitTask(
                model=model,
                split=split,
                images=images[model.features],
                views=views,
                flip_views=_flip_views(model, views, config),
                whole_field=_whole_field(model, views, cache),
                seed=config.seed,
                head=config.head,
                keep=number == 0 and model.name in evaluation.keep,
            )
    return tasks


def fit_task(task: FitTask) -> Fitted | Failed:
    """Fit one model on one split; a model that fails loses its own row of the table alone."""
    try:
        return _fit(task)
    except Exception as error:
        return Failed(f"{type(error).__name__}: {error}", traceback.format_exc())


def _numbers(cache: Cache, features: str) -> np.ndarray:
    """Return what a model is trained on, float (images, views, columns)."""
    if features == "embedding":
        return cache.embeddings
    if features == "none":
        return np.zeros((len(cache.path), 1, 1), dtype=np.float32)
    if features not in cache.shortcuts:
        raise CacheError(f"The cache has no {features} statistics. Extract it again with overwrite.")
    return cache.shortcuts[features][:, None, :]


def _flip_views(model: Model, views: Views, config: FitConfig) -> tuple[int, ...]:
    if config.protocol != "leave-group-out" or model.features != "embedding":
        return ()
    # An ensemble's models lie in the order of its views: each must be given the view it was trained on.
    return views.test if model.by_view else tuple(sorted({*views.train, *views.test}))


def _whole_field(model: Model, views: Views, cache: Cache) -> tuple[bool, ...]:
    if not model.by_view:
        return ()
    recipe = cache.attributes["recipe"] if len(cache.view) > 1 else "report"
    return tuple(shows_whole_field(recipe, view) for view in views.train)


def _fit(task: FitTask) -> Fitted:
    from sklearn.exceptions import ConvergenceWarning

    model, split = task.model, task.split
    X, y = _training_rows(task)
    own = int(np.random.default_rng([task.seed, split.repeat, split.fold]).integers(2**31))
    estimator = model.build(own, task.head)
    if model.by_view:
        estimator.set_params(whole_field=task.whole_field)
    if model.kind == "head" and task.head.consistency:
        estimator.set_params(views_per_image=len(task.views.train))
    options = _fit_options(task, len(y))
    with warnings.catch_warnings(record=True) as caught:  # warnings of libraries do not reach the user's terminal
        warnings.simplefilter("always")
        start = time.perf_counter()
        estimator.fit(X, y, **options)
        fit_s = time.perf_counter() - start
        start = time.perf_counter()
        probability = _predict(estimator, task)
        predict_s = time.perf_counter() - start
        flips = _flips(estimator, task) if len(task.flip_views) > 1 else None
    return Fitted(
        split=split,
        probability=probability,
        curves=dict(estimator.history_) if model.validates else {},
        best_epoch=int(estimator.best_epoch_) if model.validates else -1,
        fit_s=fit_s,
        predict_s=predict_s,
        flips=flips,
        estimator=estimator if task.keep else None,
        converged=not any(issubclass(item.category, ConvergenceWarning) for item in caught),
    )


def _training_rows(task: FitTask) -> tuple[np.ndarray, np.ndarray]:
    """Return X float32 (rows, columns), or (images, views, columns) if views are told apart, and their classes."""
    images, train, views = task.images, task.split.train, task.views.train
    if task.model.by_view:
        return images.numbers[train[:, None], list(views)].astype(np.float32), images.codes[train]
    return view_rows(images.numbers, train, images.codes, views)


def _fit_options(task: FitTask, rows: int) -> dict[str, Any]:
    """Return what `fit` takes beside X and y: validation rows, groups and kinds, as the model's record says."""
    model, images, split, views = task.model, task.images, task.split, task.views
    options: dict[str, Any] = {}
    if model.validates:
        X_val, y_val = view_rows(images.numbers, split.val, images.codes, views.test)
        options |= {"X_val": X_val, "y_val": y_val}
    if model.groups and images.group is not None:
        options["groups"] = np.repeat(images.group[split.train], rows // len(split.train))
    if model.groups and images.kinds is not None:
        options["kinds"] = images.kinds_of(split.train, (0,) if model.by_view else views.train)
        if model.validates:
            options["kinds_val"] = images.kinds_of(split.val, views.test)
    return options


def _kinds(task: FitTask, view: int) -> dict[str, Any]:
    """Return what `predict_proba` takes beside one view of the test images."""
    kinds = task.images.kinds_of(task.split.test, (view,)) if task.model.groups else None
    return {} if kinds is None else {"kinds": kinds}


def _predict(estimator: Any, task: FitTask) -> np.ndarray:
    """Return class probabilities of the test images, their mean over views; classes unseen in training get 0."""
    numbers, rows, views = task.images.numbers, task.split.test, task.views.test
    total = np.zeros((len(rows), task.images.classes))
    if task.model.by_view:
        X = numbers[rows[:, None], list(views)].astype(np.float32)
        total[:, estimator.classes_] = estimator.predict_proba(X, **_kinds(task, 0))
        return total
    for view in views:
        X = numbers[rows, view].astype(np.float32)
        total[:, estimator.classes_] += estimator.predict_proba(X, **_kinds(task, view))
    return total / total.sum(1, keepdims=True)


def _flips(estimator: Any, task: FitTask) -> np.ndarray:
    """Return whether the views of a test image are given different classes, bool (test,)."""
    numbers, rows, views = task.images.numbers, task.split.test, task.flip_views
    if task.model.by_view:
        X = numbers[rows[:, None], list(views)].astype(np.float32)
        called = estimator.view_proba(X, **_kinds(task, 0)).argmax(2)
    else:
        parts = ((numbers[rows, view].astype(np.float32), _kinds(task, view)) for view in views)
        called = np.stack([estimator.predict_proba(part, **known).argmax(1) for part, known in parts], 1)
    return (called != called[:, :1]).any(1)
