"""Every model on every split of a protocol: out-of-sample predictions, fitted in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ball_features.cache import Cache, read_rows
from ball_features.errors import CacheError, DataError
from ball_features.evaluation.fit_split import Failed, Fitted, fit_task
from ball_features.evaluation.past_memory import held_bytes, share_memory
from ball_features.evaluation.processes import run_tasks
from ball_features.evaluation.tasks import Evaluation, divide, obstacles
from ball_features.models.registry import Model
from ball_features.threads import core_count

__all__ = ["ModelResult", "Progress", "check_finite", "evaluate", "fit_notes", "named_progress", "require_fitted"]

# Worker processes take some seconds to start. Less work than this (rows x columns x fits) is done in this process.
PARALLEL_FROM = 20_000_000

_MOST_REMARKS = 10  # of a model, in the notes of a run

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

    spec: Model
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
        rows = np.arange(start, min(start + 4096, len(cache.path)))
        good = np.isfinite(read_rows(cache.embeddings, rows)).all((1, 2))
        if not good.all():
            path = cache.path[start + int(np.argmin(good))]
            raise CacheError(f"The embedding of {path} is not finite. Extract the images again into a new cache.")


def evaluate(evaluation: Evaluation, progress: Progress | None = None) -> list[ModelResult]:
    """Fit every model on every split and predict its test images.

    Args:
        evaluation: models, images, splits and settings.
        progress: function called with (fits done, fits in all, name of the model just done).

    Returns:
        One result for each model, in the order of the models. A model that cannot be fitted has a failure instead of
        records.

    Raises:
        CacheError: an embedding is not finite, or pixel statistics are missing.
        ConfigError: a view is not in the cache.
    """
    cache, config = evaluation.cache, evaluation.config
    check_finite(cache)
    tasks = divide(evaluation)
    share = share_memory(tasks.values(), min(config.jobs or core_count(), len(tasks)), config.memory_bytes)
    jobs = share.jobs
    if share.memory:
        tasks = {
            key: replace(task, memory=share.memory) if held_bytes(task) > share.memory else task
            for key, task in tasks.items()
        }
    here = config.backend == "loky"
    if here and max((task.images.numbers.size for task in tasks.values()), default=0) * len(tasks) < PARALLEL_FROM:
        jobs = 1
    done: dict[tuple[int, int], Fitted | Failed] = {}
    for key, result, refitted in run_tasks(fit_task, tasks, jobs, config.backend, config.cluster):
        done[key] = replace(result, refitted=True) if refitted and isinstance(result, Fitted) else result
        if progress:
            progress(len(done), len(tasks), evaluation.models[key[0]].name)
    cache.require_unchanged()
    blocked = obstacles(evaluation)
    table = []
    for place, model in enumerate(evaluation.models):
        if model.name in blocked:
            table.append(ModelResult(model, [], blocked[model.name]))
            continue
        own = [done[place, number] for number in range(len(evaluation.splits))]
        failures = [item for item in own if isinstance(item, Failed)]
        if failures:
            table.append(ModelResult(model, [], failures[0].reason, failures[0].traceback))
        else:
            table.append(ModelResult(model, [item for item in own if isinstance(item, Fitted)]))
    return table


def fit_notes(results: Sequence[ModelResult]) -> list[str]:
    """Return what a reader should know about how the fits went: killed processes, optimisers that did not converge."""
    notes = []
    refitted = sum(item.refitted for result in results for item in result.fitted)
    if refitted:
        notes.append(
            f"A worker process was killed, most likely for lack of memory; this process did {refitted} fits again, one "
            "by one. Set jobs to a smaller number to use less memory."
        )
    for result in results:
        stopped = sum(not item.converged for item in result.fitted)
        if stopped:
            notes.append(
                f"{result.spec.name} stopped at its limit of iterations in {stopped} of {len(result.fitted)} fits, "
                "before it converged."
            )
    return notes + _remarks(results)


def _remarks(results: Sequence[ModelResult]) -> list[str]:
    """Return what the fits say of themselves, the first ones of each model."""
    notes = []
    for result in results:
        own = [
            f"{result.spec.name}, {item.split.name or f'split {number + 1}'}: {remark}"
            for number, item in enumerate(result.fitted)
            for remark in item.remarks
        ]
        notes += own[:_MOST_REMARKS]
        if len(own) > _MOST_REMARKS:
            notes.append(f"{result.spec.name}: {len(own) - _MOST_REMARKS} more remarks of this kind.")
    return notes
