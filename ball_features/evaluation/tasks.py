"""The fits of a comparison, each with all that a process needs for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.cache import Cache
from ball_features.config import PROTOCOLS, FitConfig, HeadConfig
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import Split
from ball_features.errors import CacheError
from ball_features.evaluation.views import Views, model_views, view_roles
from ball_features.models.base import ViewRole
from ball_features.models.registry import Model

__all__ = ["Evaluation", "FitTask", "Images", "divide", "obstacles"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is evaluated: models, on the images of a cache, under one protocol.

    Attributes:
        cache: complete cache, whose labels are the classes.
        models: models in the order of the results.
        splits: splits from `dataset.splits.make_splits`.
        config: seed, head, views, number of processes.
        grouping: columns that models are trained against, centred by and adapted to, or None.
        keep: names of models whose fitted estimator of the first split is returned.
    """

    cache: Cache
    models: tuple[Model, ...]
    splits: tuple[Split, ...]
    config: FitConfig
    grouping: Grouping | None = None
    keep: tuple[str, ...] = ()

    @property
    def adapted_site(self) -> np.ndarray | None:
        """Site of each image to which models on embeddings are adapted, str (images,), or None."""
        return None if self.grouping is None else self.grouping.adapted_site


@dataclass(frozen=True, eq=False)
class Images:
    """What models see of the images.

    Attributes:
        numbers: embeddings or pixel statistics, float (images, views, columns).
        codes: class of each image, int (images,).
        classes: number of classes.
        series: groups that models are trained against, (images,), or None.
        center: number of the set (such as a series) whose mean is subtracted from the image's embedding, int (images,),
            or None.
        site: site to which models are adapted, str (images,), or None.
    """

    numbers: np.ndarray
    codes: np.ndarray
    classes: int
    series: np.ndarray | None
    center: np.ndarray | None
    site: np.ndarray | None = None

    def center_of(self, rows: np.ndarray, views: tuple[int, ...]) -> np.ndarray | None:
        """Return what these views of these images are centred with, int (rows * views,): each view has its own mean."""
        if self.center is None:
            return None
        return (self.center[rows][:, None] * self.numbers.shape[1] + np.array(views)).ravel()


@dataclass(frozen=True, eq=False)
class FitTask:
    """One fit, with all that a process needs for it.

    Attributes:
        model: model.
        split: split.
        images: what the model sees of the images.
        views: views that train and test.
        flip_views: views whose answers are compared with each other.
        roles: for each view of a model that tells views apart, what it shows.
        adapt: key of `models.adaptation.ADAPTATIONS`, or "none".
        seed: seed of the run.
        head: settings of the head.
        keep: True returns the fitted estimator.
        memory: bytes that the fit may hold where its rows exceed them; 0 where they are held.
    """

    model: Model
    split: Split
    images: Images
    views: Views
    flip_views: tuple[int, ...]
    roles: tuple[ViewRole, ...]
    adapt: str
    seed: int
    head: HeadConfig
    keep: bool
    memory: int = 0


def obstacles(evaluation: Evaluation) -> dict[str, str]:
    """Return why models cannot be fitted, model name -> reason, as far as the number of training images tells."""
    classes, codes = np.unique(evaluation.cache.label, return_inverse=True)
    found: dict[str, str] = {}
    for model in evaluation.models:
        views = 1 if model.by_view else len(model_views(model, evaluation.cache, evaluation.config).train)
        for split in evaluation.splits:
            number, count = np.unique(codes[split.train], return_counts=True)
            counts = zip(classes[number].tolist(), (count * views).tolist(), strict=True)
            named = model.name in evaluation.config.models
            reason = model.obstacle({str(name): rows for name, rows in counts}, named=named)
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
    grouping = evaluation.grouping
    series, center = (None, None) if grouping is None else (grouping.series, grouping.center)
    center = None if center is None else np.unique(center, return_inverse=True)[1]
    blocked = obstacles(evaluation)
    models = {place: model for place, model in enumerate(evaluation.models) if model.name not in blocked}
    images = {
        features: Images(
            _numbers(cache, features),
            codes,
            len(classes),
            series,
            center,
            evaluation.adapted_site if features == "embedding" else None,
        )
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
                roles=view_roles(cache, views.train) if model.by_view else (),
                adapt=config.adapt,
                seed=config.seed,
                head=config.head,
                keep=number == 0 and model.name in evaluation.keep,
            )
    return tasks


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
    if PROTOCOLS[config.protocol].scheme != "leave-out" or model.features != "embedding":
        return ()
    # An ensemble's models lie in the order of its views: each must be given the view it was trained on.
    return views.test if model.by_view else tuple(sorted({*views.train, *views.test}))
