"""Torch has a count of threads for the process, and OpenMP one for each thread."""

import math
import threading

import pytest
import torch

from ball_features.audit.thread_pool import thread_pool
from ball_features.threads import core_count, cpu_quota, memory_bytes, one_thread


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
