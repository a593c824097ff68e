"""A protocol's splits times the models: out-of-sample predictions, fitted in parallel.

Nothing here sees a test image before its prediction: models are built anew for each split and fitted on its training
rows; validation rows go only to models that choose an epoch by them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import Split
from ball_features.errors import CacheError
from ball_features.evaluation.views import Views, model_views, view_rows
from ball_features.extraction.threads import core_count
from ball_features.extraction.views import shows_whole_field
from ball_features.heads.registry import ModelSpec

__all__ = ["Fitted", "ModelResult", "check_finite", "evaluate"]

# Starting worker processes takes some seconds; less work than this (rows x columns x fits) is done in this one.
PARALLEL_FROM = 20_000_000

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Fitted:
    """One model on one split.

    Attributes:
        split: The split.
        probability: float64 (test, classes), rows that sum to 1.
        curves: Name -> (epochs,) of a head's training, or empty.
        best_epoch: The epoch that validation chose, or -1.
        fit_s: Seconds to fit.
        predict_s: Seconds to predict the test rows.
        flips: bool (test,), whether views of an image are given different classes; None where it was not asked.
        estimator: The fitted model, where it was asked for.
    """

    split: Split
    probability: np.ndarray
    curves: dict[str, np.ndarray]
    best_epoch: int
    fit_s: float
    predict_s: float
    flips: np.ndarray | None = None
    estimator: Any = None


@dataclass(frozen=True)
class ModelResult:
    """One model on all splits.

    Attributes:
        spec: The model.
        fitted: A record a split, in order; empty where the model failed.
        failure: Why, or "".
    """

    spec: ModelSpec
    fitted: list[Fitted] = field(default_factory=list)
    failure: str = ""


def check_finite(cache: Cache) -> None:
    """Raise `CacheError` for an embedding that is not a number."""
    for start in range(0, len(cache.path), 4096):
        good = np.isfinite(cache.embeddings[start : start + 4096]).all((1, 2))
        if not good.all():
            path = cache.path[start + int(np.argmin(good))]
            raise CacheError(f"The embedding of {path} is not finite. Make the cache again with --overwrite.")


def _numbers(cache: Cache, features: str) -> np.ndarray:
    """What a model is trained on, (images, views, columns)."""
    if features == "embedding":
        return cache.embeddings
    if features == "none":
        return np.zeros((len(cache.path), 1, 1), dtype=np.float32)
    if features not in cache.shortcuts:
        raise CacheError(f"The cache holds no {features} numbers; make it again with `ball extract --overwrite`.")
    return cache.shortcuts[features][:, None, :]


@dataclass(frozen=True)
class _Kinds:
    """What the images of a test are centred with: int (images,), or None. Each view has its own mean."""

    codes: np.ndarray | None
    views: int

    def of(self, view: int) -> dict[str, np.ndarray]:
        """As an argument of `predict_proba` on one view."""
        return {} if self.codes is None else {"kinds": self.codes * self.views + view}

    def rows(self, views: tuple[int, ...]) -> np.ndarray:
        """Of several views of each image, in the order of `view_rows`."""
        assert self.codes is not None
        return (self.codes[:, None] * self.views + np.array(views)).ravel()


def _predict(
    estimator: Any, numbers: np.ndarray, rows: np.ndarray, classes: int, views: tuple[int, ...], kinds: _Kinds
) -> np.ndarray:
    """Class probabilities, their mean over views; classes unseen in training get 0."""
    total = np.zeros((len(rows), classes))
    if getattr(estimator, "by_view", False):
        X = numbers[rows[:, None], list(views)].astype(np.float32)
        total[:, estimator.classes_] = estimator.predict_proba(X, **kinds.of(0))
        return total
    for view in views:
        X = numbers[rows, view].astype(np.float32)
        total[:, estimator.classes_] += estimator.predict_proba(X, **kinds.of(view))
    return total / total.sum(1, keepdims=True)


def _flips(estimator: Any, numbers: np.ndarray, rows: np.ndarray, views: tuple[int, ...], kinds: _Kinds) -> np.ndarray:
    """Whether views of an image are given different classes, bool (images,)."""
    if getattr(estimator, "by_view", False):
        called = estimator.view_proba(numbers[rows[:, None], list(views)].astype(np.float32), **kinds.of(0)).argmax(2)
    else:
        parts = ((numbers[rows, view].astype(np.float32), kinds.of(view)) for view in views)
        called = np.stack([estimator.predict_proba(part, **known).argmax(1) for part, known in parts], 1)
    return (called != called[:, :1]).any(1)


def _fit_one(
    spec: ModelSpec,
    split: Split,
    numbers: np.ndarray,
    codes: np.ndarray,
    classes: int,
    seed: int,
    head: HeadConfig,
    views: Views,
    flip_views: tuple[int, ...],
    whole_field: tuple[bool, ...],
    group: np.ndarray | None,
    center: np.ndarray | None,
    keep: bool,
) -> Fitted | str:
    try:
        own = int(np.random.default_rng([seed, split.repeat, split.fold]).integers(2**31))
        estimator = spec.build(own, head)
        if spec.by_view:
            estimator.set_params(whole_field=whole_field)
            X, y = numbers[split.train[:, None], list(views.train)].astype(np.float32), codes[split.train]
        else:
            X, y = view_rows(numbers, split.train, codes, views.train)
        validation: dict[str, Any] = {}
        if spec.validates:
            validation = dict(zip(("X_val", "y_val"), view_rows(numbers, split.val, codes, views.test), strict=True))
        if spec.kind == "head" and head.consistency:
            validation["views"] = len(views.train)
        if spec.groups and group is not None:
            validation["groups"] = np.repeat(group[split.train], len(y) // len(split.train))
        count = numbers.shape[1]
        kinds = _Kinds(None, count)
        if spec.groups and center is not None:
            kinds = _Kinds(center[split.test], count)
            own_views = (0,) if spec.by_view else views.train
            validation["kinds"] = _Kinds(center[split.train], count).rows(own_views)
            if spec.validates:
                validation["kinds_val"] = _Kinds(center[split.val], count).rows(views.test)
        start = time.perf_counter()
        estimator.fit(X, y, **validation)
        fit_s = time.perf_counter() - start
        start = time.perf_counter()
        probability = _predict(estimator, numbers, split.test, classes, views.test, kinds)
        predict_s = time.perf_counter() - start
        return Fitted(
            split=split,
            probability=probability,
            curves=dict(getattr(estimator, "history_", {})),
            best_epoch=int(getattr(estimator, "best_epoch_", -1)),
            fit_s=fit_s,
            predict_s=predict_s,
            flips=_flips(estimator, numbers, split.test, flip_views, kinds) if len(flip_views) > 1 else None,
            estimator=estimator if keep else None,
        )
    except Exception as error:  # one model that fails takes its row out of the table, not the others
        return f"{type(error).__name__}: {error}"


def evaluate(
    cache: Cache,
    specs: Sequence[ModelSpec],
    splits: Sequence[Split],
    config: FitConfig,
    *,
    group: np.ndarray | None = None,
    center: np.ndarray | None = None,
    keep: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[ModelResult]:
    """Fit every model on every split and predict its test images.

    Args:
        cache: Complete; labels are classes.
        specs: The models.
        splits: From `dataset.splits.make_splits`.
        config: Seed, head, test-time averaging, processes.
        group: (images,), for models that are trained against groups.
        center: (images,), what those models are centred with.
        keep: Names of models whose estimator of the first split is returned.
        progress: Called with (fits done, fits in all, model just done).

    Returns:
        A result a model, in the order of `specs`.

    Raises:
        CacheError: An embedding is not finite, or pixel numbers are missing.
        ConfigError: A view is not in the cache.
    """
    from joblib import Parallel, delayed, parallel_config
    from threadpoolctl import threadpool_limits

    check_finite(cache)
    recipe = cache.attributes["recipe"] if len(cache.view) > 1 else "report"
    kinds = None if center is None else np.unique(center, return_inverse=True)[1]
    chosen = {spec.name: model_views(spec, cache, config) for spec in specs}
    classes, codes = np.unique(cache.label, return_inverse=True)
    numbers = {name: _numbers(cache, name) for name in dict.fromkeys(spec.features for spec in specs)}
    tasks = [(place, number) for place in range(len(specs)) for number in range(len(splits))]
    # The long ones first, so that no core is left with one of them at the end.
    tasks.sort(key=lambda task: -specs[task[0]].cost)
    jobs = min(config.jobs or core_count(), len(tasks))
    if numbers.get("embedding", np.empty(0)).size * len(tasks) < PARALLEL_FROM:
        jobs = 1
    done: dict[tuple[int, int], Fitted | str] = {}

    def arguments(place: int, number: int) -> tuple[Any, ...]:
        spec = specs[place]
        kept = spec.name in keep and number == 0
        own, views = numbers[spec.features], chosen[spec.name]
        flips: tuple[int, ...] = ()
        if config.protocol == "leave-group-out" and spec.features == "embedding":
            # The models of an ensemble lie in the order of its views: each must be given the one it was trained on.
            flips = views.test if spec.by_view else tuple(sorted({*views.train, *views.test}))
        whole = tuple(shows_whole_field(recipe, view) for view in views.train) if spec.by_view else ()
        fixed = (config.seed, config.head, views, flips, whole, group, kinds, kept)
        return spec, splits[number], own, codes, len(classes), *fixed

    with warnings.catch_warnings():
        # joblib renews a worker whose memory grew, and says so; nothing is lost by it.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        # Processes with one thread each; joblib maps the arrays into them, those of a mapped cache from its file.
        with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1) if jobs > 1 else threadpool_limits(1):
            work = (delayed(_numbered)(place, number, arguments(place, number)) for place, number in tasks)
            results: Any = Parallel(n_jobs=jobs, return_as="generator_unordered", mmap_mode="r")(work)
            for place, number, result in results:
                done[place, number] = result
                if progress:
                    progress(len(done), len(tasks), specs[place].name)
    cache.require_unchanged()
    table = []
    for place, spec in enumerate(specs):
        own = [done[place, number] for number in range(len(splits))]
        failures = [item for item in own if isinstance(item, str)]
        fitted = [item for item in own if not isinstance(item, str)]
        table.append(ModelResult(spec, [] if failures else fitted, failures[0] if failures else ""))
    return table


def _numbered(place: int, number: int, arguments: tuple[Any, ...]) -> tuple[int, int, Fitted | str]:
    return place, number, _fit_one(*arguments)
