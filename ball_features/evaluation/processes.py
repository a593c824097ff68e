"""Tasks in several processes; what is lost when a worker process is killed is done again in this one."""

from __future__ import annotations

import copyreg
import functools
import mmap
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

import numpy as np

from ball_features.errors import ConfigError, require_extra
from ball_features.files import is_running
from ball_features.threads import reserve_blas

__all__ = ["maps_by_name", "run_tasks"]

Key = TypeVar("Key")
Task = TypeVar("Task")
Result = TypeVar("Result")

_LOOKS_EVERY_S = 1.0  # how often a worker looks whether its parent lives


def run_tasks(
    function: Callable[[Task], Result], tasks: Mapping[Key, Task], jobs: int, backend: str = "loky", cluster: str = ""
) -> Iterator[tuple[Key, Result, bool]]:
    """Call a function on each task and yield results as they finish. Worker processes use one thread each.

    Args:
        function: function of one task; an exception in it ends the iteration.
        tasks: tasks by their keys, in the order in which they are started.
        jobs: number of processes; 1 uses this process.
        backend: "loky" for processes of this machine, or a cluster: "dask" or "ray".
        cluster: address of the cluster; "" starts one on this machine.

    Yields:
        The key, the result, and True if the worker process that had the task died (usually killed for lack of memory)
        and this process did the task again.

    Raises:
        MissingExtraError: The package of the backend is not installed.
        ConfigError: There is no such cluster.
    """
    from joblib import Parallel, delayed

    reserve_blas()
    missing, died = dict(tasks), False
    parent = os.getpid() if backend == "loky" else 0
    if jobs > 1 or backend != "loky":
        with warnings.catch_warnings():
            # joblib replaces a worker whose memory grew, and says so; nothing is lost.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            with _workers(backend, cluster, jobs) as how:
                calls = (delayed(_keyed)(function, key, task, parent) for key, task in tasks.items())
                results: Any = Parallel(**how)(calls)
                try:
                    for key, result in results:
                        del missing[key]
                        yield key, result, False
                except BrokenProcessPool:
                    died = True
    for key, task in missing.items():
        yield key, function(task), died


@contextmanager
def _workers(backend: str, cluster: str, jobs: int) -> Iterator[Any]:
    """Make joblib use a backend inside the block; what `Parallel` is to be called with."""
    from joblib import parallel_config

    if backend == "loky":
        # joblib maps arrays into the processes, those of a mapped cache from its file.
        with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
            yield {"n_jobs": jobs, "return_as": "generator_unordered", "mmap_mode": "r"}
        return
    with _cluster(backend, cluster, jobs), maps_by_name(), parallel_config(backend, n_jobs=-1):
        yield {"n_jobs": -1}  # all workers of the cluster


@contextmanager
def _cluster(backend: str, address: str, jobs: int) -> Iterator[None]:
    """Connect to a cluster, or start one here."""
    require_extra({"dask": "distributed", "ray": "ray"}[backend], backend, f"The backend {backend}")
    own = {"dask": _dask, "ray": _ray}[backend]
    try:
        end = own(address, jobs)
    except Exception as error:  # each raises errors of many kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"No cluster of {backend} at {address or 'this machine'} ({first}).", option="cluster"
        ) from error
    try:
        yield
    finally:
        end()


def _dask(address: str, jobs: int) -> Callable[[], object]:
    distributed: Any = import_module("distributed")
    if address:
        return distributed.Client(address, timeout=30).close
    local = distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    client = distributed.Client(local)

    def end() -> None:
        client.close()
        local.close()

    return end


def _ray(address: str, jobs: int) -> Callable[[], object]:
    ray: Any = import_module("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to its makers
    started = not ray.is_initialized()
    if started:
        here = {} if address else {"num_cpus": jobs, "include_dashboard": False}
        ray.init(address=address or None, log_to_driver=False, logging_level="error", **here)
    import_module("ray.util.joblib").register_ray()
    return ray.shutdown if started else lambda: None


@contextmanager
def maps_by_name() -> Iterator[None]:
    """Send the memory map of a cache to other processes by the name of its file, not by its content."""
    before = copyreg.dispatch_table.get(np.memmap)
    copyreg.pickle(np.memmap, _reduce_map)
    try:
        yield
    finally:
        if before is None:
            del copyreg.dispatch_table[np.memmap]
        else:
            copyreg.dispatch_table[np.memmap] = before


def _reduce_map(array: Any) -> Any:
    if array.flags.c_contiguous and isinstance(array.base, mmap.mmap):
        return _open_map, (str(array.filename), array.dtype.str, int(array.offset), array.shape)
    return np.asarray(array).__reduce__()


def _open_map(path: str, kind: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, np.dtype(kind), "r", offset, shape)


def _keyed(function: Callable[[Task], Result], key: Key, task: Task, parent: int) -> tuple[Key, Result]:
    _end_with(parent)
    reserve_blas()
    return key, function(task)


@functools.cache
def _end_with(parent: int) -> None:
    """End this worker once its parent was killed: it would stay, with all its memory and its files."""

    def look() -> None:
        while os.getppid() == parent or is_running(parent):
            time.sleep(_LOOKS_EVERY_S)
        os._exit(1)

    if parent:
        threading.Thread(target=look, name="parent", daemon=True).start()
