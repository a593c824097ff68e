"""Models on one split: fitted on its training rows, and what they say of its test images.

Nothing here sees a test image before its prediction: models are built anew for each split and fitted on its training
rows; validation rows go only to models that choose an epoch by them.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import Split
from ball_features.errors import CacheError
from ball_features.evaluation.views import Views, model_views, view_plan, view_rows
from ball_features.models.memory import SplitMemory
from ball_features.models.registry import ModelSpec

__all__ = ["Failed", "Fitted", "Work", "divide", "fit_all"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """One model on one split.

    Attributes:
        split: The split.
        probability: float64 (test, classes), rows that sum to 1.
        curves: Name -> (epochs,) of a head's training, or empty.
        best_epoch: The epoch that validation chose, or -1.
        fit_s: Seconds to fit; what models share counts for the first of them.
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
class Failed:
    """Why a model has no record, and where it failed."""

    reason: str
    traceback: str


@dataclass(frozen=True, eq=False)
class Work:
    """Models that one process fits one after the other, on the same rows of the same split.

    Attributes:
        specs: By their place in the table.
        number: Of the split.
        split: The split.
        numbers: (images, views, columns).
        codes: int (images,), classes.
        classes: How many there are.
        seed: Of the run.
        head: Settings of the head.
        views: That train and test.
        flip_views: That are compared with each other.
        whole_field: For each view, whether it shows what lies between the cells too.
        group: (images,), or None.
        kinds: int (images,), what they are centred with, or None.
        keep: Names of models whose estimator is returned.
    """

    specs: dict[int, ModelSpec]
    number: int
    split: Split
    numbers: np.ndarray
    codes: np.ndarray
    classes: int
    seed: int
    head: HeadConfig
    views: Views
    flip_views: tuple[int, ...]
    whole_field: tuple[bool, ...]
    group: np.ndarray | None
    kinds: np.ndarray | None
    keep: tuple[str, ...]

    @property
    def cost(self) -> float:
        """Seconds, roughly."""
        return sum(spec.cost for spec in self.specs.values())


@dataclass(frozen=True, eq=False)
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


def _numbers(cache: Cache, features: str) -> np.ndarray:
    """What a model is trained on, (images, views, columns)."""
    if features == "embedding":
        return cache.embeddings
    if features == "none":
        return np.zeros((len(cache.path), 1, 1), dtype=np.float32)
    if features not in cache.shortcuts:
        raise CacheError(f"The cache holds no {features} numbers; make it again with `ball extract --overwrite`.")
    return cache.shortcuts[features][:, None, :]


def divide(
    cache: Cache,
    specs: Sequence[ModelSpec],
    splits: Sequence[Split],
    config: FitConfig,
    *,
    group: np.ndarray | None = None,
    center: np.ndarray | None = None,
    keep: Sequence[str] = (),
) -> list[Work]:
    """What each process is given, the longest first, so that no core is left with one of them at the end.

    For the arguments and errors see `protocols.evaluate`.
    """
    plan = view_plan(cache)
    kinds = None if center is None else np.unique(center, return_inverse=True)[1]
    classes, codes = np.unique(cache.label, return_inverse=True)
    numbers = {name: _numbers(cache, name) for name in dict.fromkeys(spec.features for spec in specs)}
    together: dict[Any, dict[int, ModelSpec]] = {}
    for place, spec in enumerate(specs):
        views = model_views(spec, cache, config)
        alone = None if spec.shares else place
        together.setdefault((spec.features, views, alone), {})[place] = spec
    work = []
    for (features, views, _), own in together.items():
        by_view = any(spec.by_view for spec in own.values())
        flips: tuple[int, ...] = ()
        if config.protocol == "leave-group-out" and features == "embedding":
            # The models of an ensemble lie in the order of its views: each must be given the one it was trained on.
            flips = views.test if by_view else tuple(sorted({*views.train, *views.test}))
        for number, split in enumerate(splits):
            part = Work(
                specs=own,
                number=number,
                split=split,
                numbers=numbers[features],
                codes=codes,
                classes=len(classes),
                seed=config.seed,
                head=config.head,
                views=views,
                flip_views=flips,
                whole_field=tuple(plan.views[view].shows_whole_field for view in views.train) if by_view else (),
                group=group,
                kinds=kinds,
                keep=tuple(keep) if number == 0 else (),
            )
            work.append(part)
    return sorted(work, key=lambda part: -part.cost)


def fit_all(work: Work) -> tuple[int, dict[int, Fitted | Failed]]:
    """The split's number, and of each model, by its place, a record or why it failed."""
    memory = SplitMemory()
    rows: tuple[np.ndarray, np.ndarray] | None = None
    results: dict[int, Fitted | Failed] = {}
    for place, spec in work.specs.items():
        try:
            rows = rows or _training_rows(work)
            results[place] = _fit_one(spec, *rows, work, memory)
        except Exception as error:  # one model that fails takes its row out of the table, not the others
            results[place] = Failed(f"{type(error).__name__}: {error}", traceback.format_exc())
    return work.number, results


def _training_rows(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """X float32 (rows, columns), or (images, views, columns) where views are told apart, and the class of each row."""
    train, views = work.split.train, work.views.train
    if any(spec.by_view for spec in work.specs.values()):
        return work.numbers[train[:, None], list(views)].astype(np.float32), work.codes[train]
    return view_rows(work.numbers, train, work.codes, views)


def _fit_one(spec: ModelSpec, X: np.ndarray, y: np.ndarray, work: Work, memory: SplitMemory) -> Fitted:
    numbers, codes, split, views = work.numbers, work.codes, work.split, work.views
    own = int(np.random.default_rng([work.seed, split.repeat, split.fold]).integers(2**31))
    estimator = spec.build(own, work.head)
    if spec.by_view:
        estimator.set_params(whole_field=work.whole_field)
    remembering = [name for name in estimator.get_params() if spec.shares and name.split("__")[-1] == "memory"]
    estimator.set_params(**dict.fromkeys(remembering, memory))
    options: dict[str, Any] = {}
    if spec.validates:
        options = dict(zip(("X_val", "y_val"), view_rows(numbers, split.val, codes, views.test), strict=True))
    if spec.kind == "head" and work.head.consistency:
        options["views"] = len(views.train)
    if spec.groups and work.group is not None:
        options["groups"] = np.repeat(work.group[split.train], len(y) // len(split.train))
    count = numbers.shape[1]
    kinds = _Kinds(None, count)
    if spec.groups and work.kinds is not None:
        kinds = _Kinds(work.kinds[split.test], count)
        own_views = (0,) if spec.by_view else views.train
        options["kinds"] = _Kinds(work.kinds[split.train], count).rows(own_views)
        if spec.validates:
            options["kinds_val"] = _Kinds(work.kinds[split.val], count).rows(views.test)
    start = time.perf_counter()
    estimator.fit(X, y, **options)
    fit_s = time.perf_counter() - start
    estimator.set_params(**dict.fromkeys(remembering, None))
    start = time.perf_counter()
    probability = _predict(estimator, numbers, split.test, work.classes, views.test, kinds)
    predict_s = time.perf_counter() - start
    flips = None
    if len(work.flip_views) > 1:
        flips = _flips(estimator, numbers, split.test, work.flip_views, kinds)
    return Fitted(
        split=split,
        probability=probability,
        curves=dict(getattr(estimator, "history_", {})),
        best_epoch=int(getattr(estimator, "best_epoch_", -1)),
        fit_s=fit_s,
        predict_s=predict_s,
        flips=flips,
        estimator=estimator if spec.name in work.keep else None,
    )
