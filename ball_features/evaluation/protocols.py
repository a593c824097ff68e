"""Every model on every split of a protocol: out-of-sample predictions, fitted in parallel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.dataset.splits import Grouping, Split
from ball_features.errors import CacheError, DataError
from ball_features.evaluation.fit_split import Failed, Fitted, divide, fit_all
from ball_features.models.registry import ModelSpec
from ball_features.threads import core_count

__all__ = ["ModelResult", "Progress", "check_finite", "evaluate", "named_progress", "require_fitted"]

# Worker processes take some seconds to start. Less work than this (rows x columns x fits) is done in this process.
PARALLEL_FROM = 20_000_000

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class ModelResult:
    """One model on all splits.

    Attributes:
        spec: the model.
        fitted: a record a split, in order; empty where the model failed.
        failure: reason of the failure, or "".
        traceback: traceback of the failure, or "".
    """

    spec: ModelSpec
    fitted: list[Fitted] = field(default_factory=list)
    failure: str = ""
    traceback: str = ""


def require_fitted(results: Sequence[ModelResult]) -> None:
    """Raise `DataError` where every model failed; the traceback of the first one is a note of the error."""
    if any(result.fitted for result in results):
        return
    first = results[0]
    error = DataError(
        f"No model could be fitted, expected at least one. The first, {first.spec.name}: {first.failure}. Choose other "
        "models; the traceback of the failure is attached to this error."
    )
    error.add_note(first.traceback)
    raise error


def named_progress(progress: Progress | None, part: str) -> Progress | None:
    """Return a progress function that prefixes the model's name with the part of the work that it belongs to."""
    return None if progress is None else lambda done, total, name: progress(done, total, f"{part}: {name}")


def check_finite(cache: Cache) -> None:
    """Raise `CacheError` for an embedding that is NaN or infinite."""
    for start in range(0, len(cache.path), 4096):
        good = np.isfinite(cache.embeddings[start : start + 4096]).all((1, 2))
        if not good.all():
            path = cache.path[start + int(np.argmin(good))]
            raise CacheError(f"The embedding of {path} is not finite. Extract the images again into a new cache.")


def evaluate(
    cache: Cache,
    specs: Sequence[ModelSpec],
    splits: Sequence[Split],
    config: FitConfig,
    *,
    grouping: Grouping | None = None,
    keep: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[ModelResult]:
    """Fit every model on every split and predict its test images.

    Args:
        cache: a complete cache, whose labels are the classes.
        specs: the models.
        splits: the splits, from `dataset.splits.make_splits`.
        config: seed, head, views and number of processes.
        grouping: columns of the groups file: its series train robust models, and its `center` values centre them.
        keep: names of models whose estimator of the first split is returned.
        progress: called with (fits done, all fits, model just done).

    Returns:
        A result a model, in the order of `specs`.

    Raises:
        CacheError: an embedding is not finite, or pixel statistics are missing.
        ConfigError: a view is not in the cache.
    """
    from joblib import Parallel, delayed, parallel_config
    from threadpoolctl import threadpool_limits

    check_finite(cache)
    group, center = (None, None) if grouping is None else (grouping.series, grouping.center)
    work = divide(cache, specs, splits, config, group=group, center=center, keep=keep)
    fits = len(specs) * len(splits)
    jobs = min(config.jobs or core_count(), len(work))
    if max(part.numbers.size for part in work) * fits < PARALLEL_FROM:
        jobs = 1
    done: dict[tuple[int, int], Fitted | Failed] = {}
    with warnings.catch_warnings():
        # joblib replaces a worker whose memory grew, and warns. No result is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        # Each process has one thread. joblib maps the arrays into them, those of a mapped cache from its file.
        with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1) if jobs > 1 else threadpool_limits(1):
            calls = (delayed(fit_all)(part) for part in work)
            results: Any = Parallel(n_jobs=jobs, return_as="generator_unordered", mmap_mode="r")(calls)
            for number, fitted in results:
                for place, result in fitted.items():
                    done[place, number] = result
                    if progress:
                        progress(len(done), fits, specs[place].name)
    cache.require_unchanged()
    table = []
    for place, spec in enumerate(specs):
        own = [done[place, number] for number in range(len(splits))]
        failures = [item for item in own if isinstance(item, Failed)]
        if failures:
            table.append(ModelResult(spec, [], failures[0].reason, failures[0].traceback))
        else:
            table.append(ModelResult(spec, [item for item in own if isinstance(item, Fitted)]))
    return table
