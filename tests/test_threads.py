"""Torch has a count of threads for the process, and OpenMP one for each thread."""

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from ball_features.audit.thread_pool import thread_pool
from ball_features.threads import core_count, cpu_quota, is_out_of_memory, memory_bytes, one_thread


@pytest.fixture
def three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def count_of_a_new_thread() -> int:
    counts = []
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return counts[0]


def test_blocks_that_overlap_leave_the_counts_as_they_were(three):
    begun, ended = threading.Event(), threading.Event()
    counts = []

    def other():
        with one_thread() as usual:
            begun.set()
            ended.wait(60)
            counts.append((usual, torch.get_num_threads(), count_of_a_new_thread()))
        counts.append(torch.get_num_threads())

    thread = threading.Thread(target=other)
    with thread_pool():
        thread.start()
        assert begun.wait(60)
    assert torch.get_num_threads() == 3
    ended.set()  # the first block ends within the second
    thread.join()
    assert counts == [(3, 1, 1), 3]
    assert torch.get_num_threads() == count_of_a_new_thread() == 3


def test_a_block_in_a_block_ends_nothing(three):
    with one_thread():
        with one_thread() as usual:
            assert usual == 3
        assert torch.get_num_threads() == count_of_a_new_thread() == 1
    assert torch.get_num_threads() == count_of_a_new_thread() == 3


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ({"proc/self/cgroup": "0::/job/one\n", "sys/fs/cgroup/job/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"sys/fs/cgroup/cpu.max": "nonsense"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_quota_of_a_container(tmp_path, monkeypatch, files, quota):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_quota(tmp_path) == quota
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("ball_features.threads.cpu_quota", lambda: quota)
    assert core_count() == {0.5: 1, 1.5: 2, 3.0: 3}.get(quota, 8)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"sys/fs/cgroup/memory.max": "1000000\n"}, 1e6),
        ({"sys/fs/cgroup/memory.max": "max\n"}, math.inf),
        ({"proc/self/cgroup": "0::/job/one\n", "sys/fs/cgroup/job/memory.max": "2000000\n"}, 2e6),
        ({"proc/self/cgroup": "4:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "3000000\n"}, 3e6),
        ({}, math.inf),
    ],
)
def test_the_memory_of_a_container(tmp_path, files, most):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    machine = memory_bytes(tmp_path / "nothing")
    assert memory_bytes(tmp_path) == min(most, machine)
    assert machine > 1e8


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        ValueError("[10:00:00] common.cc:1: std::bad_alloc"),
    ],
)
def test_memory_that_is_short_is_known_by_the_words_of_libraries(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


# What a process may map beyond what it has mapped, in MB, is the argument. A hang is ended by the alarm.
_SHORT_OF_MEMORY = """
import resource, signal, sys
import numpy as np, scipy.linalg
from ball_features.threads import reserve_blas

def limit(more_mb):
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + int(more_mb * 1e6), resource.RLIM_INFINITY))

signal.alarm(30)
limit(float(sys.argv[1]))
try:
    reserve_blas()
except MemoryError:
    print("refused")
else:
    limit(1)
    print(np.linalg.solve(2 * np.eye(2), np.ones(2)).tolist(), scipy.linalg.lu_factor(np.eye(2))[1].tolist())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells what a process has mapped")
@pytest.mark.parametrize(("more_mb", "said"), [(10, "refused"), (50, "refused"), (300, "[0.5, 0.5] [0, 1]")])
def test_a_product_that_gets_no_buffer_is_refused_and_waits_for_nothing(more_mb, said):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _SHORT_OF_MEMORY, str(more_mb)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, said), ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells what a process has mapped")
def test_a_fit_in_little_memory_ends_with_a_message(small_cache, tmp_path):
    limit = "import resource, signal; signal.alarm(100); resource.setrlimit(resource.RLIMIT_AS, (450 << 20, -1))"
    command = f"{limit}; import sys; sys.argv = ['ball', *sys.argv[1:]]; import ball_features.cli as c; c.main()"
    words = ["fit", str(small_cache), "--models", "lda", "--jobs", "1", "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", command, *words], env=environment, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "may map (0.5 GB) does not suffice. Raise the limit (ulimit -v)" in ended.stderr
    assert "Traceback" not in ended.stderr
