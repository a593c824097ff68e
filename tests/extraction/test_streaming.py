"""Batches come out in order whoever computes them, and an error in one ends all."""

import threading
import time

import numpy as np
import pytest

from ball_features.errors import CacheError
from ball_features.extraction import stream as streaming
from ball_features.extraction.stream import Workers, Writing, pieces, stream

WAYS = [Workers(True, 3), Workers(False, 3), Workers(False, 3, 2)]


def test_batches_are_aligned():
    rows = np.array([0, 1, 3, 4, 9, 10])
    assert [piece.tolist() for piece in pieces(rows, 4)] == [[0, 1, 3], [4], [9, 10]]
    assert pieces(rows[:0], 4) == []


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_results_come_in_order(way):
    def compute(rows, loaded):
        time.sleep(0.02 if rows[0] % 16 == 0 else 0)  # the first of each four is the last to be done
        return rows.tolist(), loaded

    rows = np.arange(3, 103)
    found = list(stream(rows, 4, lambda row: row * row, compute, workers=way))
    assert [row for own, _ in found for row in own] == rows.tolist()
    assert [value for _, own in found for value in own] == (rows**2).tolist()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_error_ends_it_and_leaves_no_thread(way):
    before, stop = set(threading.enumerate()), threading.Event()

    def compute(rows, loaded):
        if rows[0] >= 8:
            raise MemoryError("full")
        return rows

    with pytest.raises(MemoryError, match="full"):
        list(stream(np.arange(400), 4, float, compute, stop=stop, workers=way))
    assert stop.is_set()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_who_stops_reading_stops_the_rest(way):
    done = []
    results = stream(np.arange(4000), 4, float, lambda rows, loaded: done.append(rows[0]), workers=way)
    next(results)
    results.close()
    assert len(done) < 100


def test_two_feed_at_once():
    """Each waits for the other: with one feeder this would never end."""
    meeting = threading.Barrier(2, timeout=20)
    results = stream(np.arange(40), 10, float, lambda rows, loaded: meeting.wait(), workers=Workers(False, 2, 2))
    assert len(list(results)) == 4


@pytest.mark.timeout(60)
@pytest.mark.parametrize("breaks", ["open", "write", "time", "close"])
@pytest.mark.parametrize("batches", [0, 1, 30])
def test_a_disk_that_fails_ends_the_run(tmp_path, monkeypatch, breaks, batches):
    """Whenever it fails, and however much waits: the one who feeds is told, and waits for nothing."""

    class Broken:
        def __init__(self, path, expected=None):
            self.fail("open")

        def fail(self, where):
            if where == breaks:
                raise OSError("no space left")

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.fail("close")

        def write(self, rows, embeddings, shortcuts):
            time.sleep(0.01)
            self.fail("write")

        def time(self, images, seconds):
            self.fail("time")

    monkeypatch.setattr(streaming, "CacheWriter", Broken)
    if breaks == "write" and not batches:
        return
    with pytest.raises(CacheError, match="no space left"), Writing(tmp_path / "a.h5") as writing:
        for row in range(batches):
            writing.put(np.array([row]), np.zeros((1, 1, 4)), {"colour": np.zeros((1, 6))})
        time.sleep(0.05 if batches == 30 else 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "write"]
