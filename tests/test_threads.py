"""Torch has a count of threads for the process, and OpenMP one for each thread."""

import threading

import pytest
import torch

from ball_features.audit.thread_pool import thread_pool
from ball_features.threads import one_thread


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
