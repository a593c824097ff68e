"""One model on one split: fitted on the training rows, then asked about the test images.

No test image is used before its prediction. Models are built anew for each split and fitted on its training rows;
validation rows go only to models that choose an epoch by them. A split may lack validation and test images: then the
model trains for all its epochs, and predicts nothing.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ball_features.cache import read_rows
from ball_features.dataset.splits import Split
from ball_features.evaluation.one_class_trial import try_one_class
from ball_features.evaluation.past_memory import HELD_BYTES, sampled, streams_of
from ball_features.evaluation.site_shift import adapt_test, center_training, fit_adapter
from ball_features.evaluation.tasks import FitTask
from ball_features.evaluation.views import view_rows
from ball_features.models.adaptation import SiteAdapter, SiteShift
from ball_features.models.one_class import OneClassRecord
from ball_features.threads import limited_pools

__all__ = ["Failed", "Fitted", "fit_task"]

_PARTS = 8  # of the memory, for the test images that are predicted at once


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
        remarks: sentences about the fit: what was chosen, which site could not be adapted to.
        adapter: offsets of the training sites, for a model that is adapted to sites.
        shifts: offset of each site that was tested and is not among them, by name.
        one_class: what adapting to images of one class of these sites would do; None where it was not tried.
        fitted_on: how rows that exceed the memory were read, or which sample of them was, in words; "" where all were
            held.
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
    remarks: tuple[str, ...] = ()
    adapter: SiteAdapter | None = None
    shifts: dict[str, SiteShift] = field(default_factory=dict)
    one_class: OneClassRecord | None = None
    fitted_on: str = ""


@dataclass(frozen=True)
class Failed:
    """Why a model has no result, and where it failed."""

    reason: str
    traceback: str


def fit_task(task: FitTask) -> Fitted | Failed:
    """Fit one model on one split; a model that fails loses its own row of the table alone."""
    try:
        fitted = _fit(task)
    except Exception as error:
        return Failed(f"{type(error).__name__}: {error}", traceback.format_exc())
    if not np.isfinite(fitted.probability).all():
        remedy = " Its training diverged: take a smaller learning rate." if task.model.validates else ""
        return Failed(f"{task.model.name} gave probabilities that are not finite numbers.{remedy}", "")
    return fitted


def _fit(task: FitTask) -> Fitted:
    from sklearn.exceptions import ConvergenceWarning

    model, split = task.model, task.split
    raw, adapter, shifts = task, None, {}
    if task.images.site is not None:
        adapter = fit_adapter(task)
        task = center_training(task, adapter)
    streams, fitted_on = streams_of(task) if task.memory else None, ""
    if task.memory and streams is None:
        task, fitted_on = sampled(task)
    X, y = _training_rows(task) if streams is None else (None, ())
    own = int(np.random.default_rng([task.seed, split.repeat, split.fold]).integers(2**31))
    estimator = model.build(own, task.head)
    model.fewer_trees(estimator, len(np.unique(task.images.codes[split.train])))
    if model.by_view:
        whole = tuple(role.whole_field for role in task.roles)
        estimator.set_params(**({"roles": task.roles} if model.chooses else {"whole_field": whole}))
    if model.kind == "head" and task.head.consistency:
        estimator.set_params(views_per_image=len(task.views.train))
    options = _fit_options(task, len(y)) if streams is None else {}
    fit_stream = _streamed(model.streams) if streams else None
    # The limit holds for libraries that are loaded, and building the estimator loads them.
    with limited_pools(), warnings.catch_warnings(record=True) as caught:  # no library's warning on the terminal
        warnings.simplefilter("always")
        start = time.perf_counter()
        if streams is None or fit_stream is None:
            estimator.fit(X, y, **options)
        else:
            estimator, fitted_on = fit_stream(estimator, *streams)
        fit_s = time.perf_counter() - start
        start = time.perf_counter()
        remarks = [f"{estimator.chosen_} ({estimator.reason_})."] if model.chooses else []
        if adapter is not None:
            shifts = adapt_test(raw, task, adapter, lambda own: _predict(estimator, own))
            remarks += [f"Not adapted to {name}: {s.reason}." for name, s in shifts.items() if not s.adapted]
        probability = _predict(estimator, task)
        predict_s = time.perf_counter() - start
        flips = _flips(estimator, task) if len(task.flip_views) > 1 and len(split.test) else None
        one_class = None
        if adapter is not None:
            one_class = try_one_class(raw, task, adapter, lambda own: _predict(estimator, own))
    return Fitted(
        split=split,
        probability=probability,
        curves=dict(estimator.history_) if model.validates else {},
        best_epoch=int(estimator.best_epoch_) if model.validates else -1,
        fit_s=fit_s,
        predict_s=predict_s,
        flips=flips,
        estimator=estimator if task.keep else None,
        remarks=tuple(remarks),
        adapter=adapter,
        shifts=shifts,
        one_class=one_class,
        fitted_on=fitted_on,
        converged=not any(issubclass(item.category, ConvergenceWarning) for item in caught),
    )


def _streamed(name: str) -> Callable[..., tuple[Any, str]]:
    from ball_features.models import streamed  # loads what every model of it needs

    return getattr(streamed, name)


def _training_rows(task: FitTask) -> tuple[np.ndarray, np.ndarray]:
    """Return X float32 (rows, columns), or (images, views, columns) if views are told apart, and their classes."""
    images, train, views = task.images, task.split.train, task.views.train
    if task.model.by_view:
        return images.numbers[train[:, None], list(views)].astype(np.float32), images.codes[train]
    return view_rows(images.numbers, train, images.codes, views)


def _fit_options(task: FitTask, rows: int) -> dict[str, np.ndarray]:
    """Return what `fit` takes beside X and y: validation rows, groups and center, as the model's record says."""
    model, images, split, views = task.model, task.images, task.split, task.views
    options: dict[str, np.ndarray | None] = {}
    validates = model.validates and len(split.val) > 0
    if validates:
        X_val, y_val = view_rows(images.numbers, split.val, images.codes, views.test)
        options |= {"X_val": X_val, "y_val": y_val}
    if model.groups and images.series is not None:
        options["groups"] = np.repeat(images.series[split.train], rows // len(split.train))
    if model.groups and images.center is not None:
        options["center"] = images.center_of(split.train, (0,) if model.by_view else views.train)
        if validates:
            options["center_val"] = images.center_of(split.val, views.test)
    return {name: value for name, value in options.items() if value is not None}


def _kinds(task: FitTask, view: int) -> dict[str, np.ndarray]:
    """Return what `predict_proba` takes beside one view of the test images."""
    center = task.images.center_of(task.split.test, (view,)) if task.model.groups else None
    return {} if center is None else {"center": center}


def _predict(estimator: Any, task: FitTask) -> np.ndarray:
    """Return class probabilities of the test images, their mean over views; classes unseen in training get 0."""
    return np.concatenate([_predict_held(estimator, part) for part in _parts(task)])


def _parts(task: FitTask) -> Iterator[FitTask]:
    """Yield the task with as many of its test images at a time as the memory holds: all, where all rows are held."""
    rows, width = task.split.test, len(task.views.test) * task.images.numbers.shape[2]
    step = max(1, task.memory // _PARTS // (HELD_BYTES * width)) if task.memory else max(1, len(rows))
    for start in range(0, max(1, len(rows)), step):
        yield replace(task, split=replace(task.split, test=rows[start : start + step]))


def _predict_held(estimator: Any, task: FitTask) -> np.ndarray:
    numbers, rows, views = task.images.numbers, task.split.test, task.views.test
    total = np.zeros((len(rows), task.images.classes))
    if not len(rows):
        return total
    if task.model.by_view:
        X = numbers[rows[:, None], list(views)].astype(np.float32)
        total[:, estimator.classes_] = estimator.predict_proba(X, **_kinds(task, 0))
        return total
    for view in views:
        X = (
            read_rows(numbers, rows)[:, view].astype(np.float32)
            if task.memory
            else numbers[rows, view].astype(np.float32)
        )
        total[:, estimator.classes_] += estimator.predict_proba(X, **_kinds(task, view))
    return total / total.sum(1, keepdims=True)


def _flips(estimator: Any, task: FitTask) -> np.ndarray:
    """Return whether the views of a test image are given different classes, bool (test,)."""
    return np.concatenate([_flips_held(estimator, part) for part in _parts(task)])


def _flips_held(estimator: Any, task: FitTask) -> np.ndarray:
    numbers, rows, views = task.images.numbers, task.split.test, task.flip_views
    if task.model.by_view:
        X = numbers[rows[:, None], list(views)].astype(np.float32)
        called = estimator.view_proba(X, **_kinds(task, 0)).argmax(2)
    else:
        parts = ((numbers[rows, view].astype(np.float32), _kinds(task, view)) for view in views)
        called = np.stack([estimator.predict_proba(part, **known).argmax(1) for part, known in parts], 1)
    return (called != called[:, :1]).any(1)
