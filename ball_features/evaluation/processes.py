"""Tasks in several processes; what is lost when a worker process is killed is done again in this one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

__all__ = ["run_tasks"]

Key = TypeVar("Key")
Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Mapping[Key, Task], jobs: int
) -> Iterator[tuple[Key, Result, bool]]:
    """Call a function on each task and yield results as they finish. Worker processes use one thread each.

    Args:
        function: function of one task; an exception in it ends the iteration.
        tasks: tasks by their keys, in the order in which they are started.
        jobs: number of processes; 1 uses this process.

    Yields:
        The key, the result, and True if the worker process that had the task died (usually killed for lack of memory)
        and this process did the task again.
    """
    from joblib import Parallel, delayed, parallel_config

    missing, died = dict(tasks), False
    if jobs > 1:
        with warnings.catch_warnings():
            # joblib replaces a worker whose memory grew, and says so; nothing is lost.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            # joblib maps arrays into the processes, those of a mapped cache from its file.
            with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
                calls = (delayed(_keyed)(function, key, task) for key, task in tasks.items())
                results: Any = Parallel(n_jobs=jobs, return_as="generator_unordered", mmap_mode="r")(calls)
                try:
                    for key, result in results:
                        del missing[key]
                        yield key, result, False
                except BrokenProcessPool:
                    died = True
    for key, task in missing.items():
        yield key, function(task), died


def _keyed(function: Callable[[Task], Result], key: Key, task: Task) -> tuple[Key, Result]:
    return key, function(task)
