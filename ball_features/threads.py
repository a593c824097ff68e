"""Numbers of cores and threads, and the memory that this process may use."""

from __future__ import annotations

import functools
import math
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

__all__ = [
    "core_count",
    "cpu_quota",
    "is_out_of_memory",
    "limited_pools",
    "memory_bytes",
    "memory_limit",
    "one_blas_thread",
    "one_thread",
    "reserve_blas",
]

_BLAS_BYTES = 32 << 20  # of the buffer that OpenBLAS takes for each thread that calls it
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")

# What libraries say in errors of other kinds.
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "insufficient memory",
    "alloc_failed",
    "bad_alloc",
    "failed to map segment from shared object",
    "can't start new thread",
)

_lock = threading.Lock()
_inside = 0  # blocks of `one_thread` that run now
_before = 0  # torch threads outside these blocks
_own = threading.local()  # depth: number of blocks that this thread is in


def core_count() -> int:
    """Number of cores that this process may use: by its affinity, and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(1, math.ceil(quota)) if quota < cores else cores


def cpu_quota(system: Path = Path("/")) -> float:
    """Cores' worth of time that the control groups of this process allow (Linux); infinity without a quota.

    Args:
        system: root of the file system.
    """
    return min((_quota(place) for place in _groups(system, "cpu", "cpu,cpuacct")), default=math.inf)


def memory_bytes(system: Path = Path("/")) -> float:
    """Bytes of memory that this process may use: of the machine, or what its control groups allow (Linux).

    Args:
        system: root of the file system.
    """
    limits = [math.inf]
    with suppress(AttributeError, OSError, ValueError):  # Windows has no `sysconf`
        limits.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
    for place in _groups(system, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # "max" is no number
                limits.append(float((place / name).read_text(encoding="utf-8")))
    return min(limits)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, on a device or in this process."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in _NO_MEMORY)


def memory_limit() -> float:
    """Bytes that a process of this shell may map (`ulimit -v`); infinity without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((float(limit) for limit in limits if limit != resource.RLIM_INFINITY), default=math.inf)


@functools.cache
def reserve_blas() -> None:
    """Let NumPy's and SciPy's BLAS take their buffers while memory is there, in a process that may not map as it likes.

    OpenBLAS takes a buffer at its first product and keeps it. Where it gets none it asks again, for ever.

    Raises:
        MemoryError: The memory does not suffice for them.
    """
    if memory_limit() == math.inf and not _commits_strictly():
        return
    threads = next((int(own) for name in _BLAS_THREADS if (own := os.environ.get(name, "")).isdecimal()), core_count())
    try:
        mmap.mmap(-1, 2 * (threads + 1) * _BLAS_BYTES).close()  # a thread has one from the time that its library loads
    except OSError as error:
        raise MemoryError("no room for the buffers of BLAS") from error
    import numpy as np
    import scipy.linalg

    for solve in (np.linalg.inv, scipy.linalg.lu_factor):
        solve(np.eye(2))


def _commits_strictly(system: Path = Path("/")) -> bool:
    """Whether Linux refuses memory that it could not give to all processes at once."""
    with suppress(OSError):
        return (system / "proc/sys/vm/overcommit_memory").read_text(encoding="utf-8").strip() == "2"
    return False


def _groups(system: Path, *kinds: str) -> set[Path]:
    """Folders of the control groups of this process, and of those above them."""
    groups = system / "sys/fs/cgroup"
    places = {groups, *(groups / kind for kind in kinds)}
    with suppress(OSError, ValueError):
        for line in (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, named, below = line.split(":", 2)
            top = groups / named if named else groups
            own = top / below.lstrip("/")
            places |= {own, *(above for above in own.parents if above.is_relative_to(top))}
    return places


def _quota(group: Path) -> float:
    """The quota of one control group, of the second kind or of the first."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if quota == "max" else float(quota) / float(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = float((group / "cpu.cfs_quota_us").read_text(encoding="utf-8"))
        return math.inf if quota <= 0 else quota / float((group / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    return math.inf


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS compute in one thread inside the block, for work that has threads of its own.

    Threads of BLAS wait actively, so that several callers slow one another down.
    """
    import scipy.linalg  # noqa: F401  (loads SciPy's own BLAS; only what is loaded can be limited)

    with _pools(len(sys.modules)).limit(limits=1, user_api="blas"):
        yield


def limited_pools() -> AbstractContextManager[object]:
    """A block in which the libraries that are loaded (BLAS, OpenMP) compute in one thread."""
    return _pools(len(sys.modules)).limit(limits=1)


@functools.lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    """The thread pools of the libraries that are loaded; to find them takes as long as a small fit.

    Args:
        modules: number of modules, with which libraries are loaded.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[int]:
    """Let torch compute in one thread inside the block, in this thread and in threads that begin meanwhile.

    Small products gain nothing from more threads, and results then do not depend on the number of cores. Blocks may
    overlap in several threads.

    Yields:
        The number of torch threads outside the block.
    """
    import torch

    global _inside, _before
    with _lock:
        if not _inside:
            _before = torch.get_num_threads()
        _inside += 1
        _own.depth = getattr(_own, "depth", 0) + 1
        torch.set_num_threads(1)
    try:
        yield _before
    finally:
        with _lock:
            _inside -= 1
            _own.depth -= 1
            if not _own.depth:
                # Torch has a count for new threads, and OpenMP one for each thread that has set it.
                torch.set_num_threads(_before)
                if _inside:
                    begins_with_one = threading.Thread(target=torch.set_num_threads, args=(1,))
                    begins_with_one.start()
                    begins_with_one.join()
