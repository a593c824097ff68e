"""Extraction on a Ray cluster of this machine: the rows of one process, also where workers are killed."""

import contextlib
import os
import signal
import sys
import threading
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ball_features import ExtractConfig, extract, read_cache
from ball_features.errors import CacheError, MissingExtraError
from ball_features.extraction.ray_tasks import Cluster, extract_with_ray

CONFIG = ExtractConfig("densenet121", "report", 2, weights="random", input_px=64, precision="fp32")


def test_without_ray_the_extra_is_named(tmp_path, smears, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="ray"):
        extract_with_ray(smears, tmp_path / "c.h5", CONFIG, cluster=Cluster())


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, smears):
    return read_cache(extract(smears, tmp_path_factory.mktemp("whole") / "c.h5", CONFIG).cache)


def assert_equal(one, two):
    for name in ("embeddings", "path", "label", "sha256"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert one.fingerprint == two.fingerprint


def test_the_rows_are_those_of_one_process(cluster, tmp_path, smears, whole):
    seen = []
    out = tmp_path / "c.h5"
    done = extract_with_ray(
        smears, out, CONFIG, cluster=Cluster(parts=3), progress=lambda done, total: seen.append((done, total))
    )
    assert (done.images, done.computed, done.cache) == (48, 48, out)
    assert seen[-1] == (48, 48)
    assert_equal(whole, read_cache(out))
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["c.h5"]
    with pytest.raises(CacheError, match="exists"):
        extract_with_ray(smears, out, CONFIG, cluster=Cluster(parts=3))


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_goes_on(cluster, tmp_path, smears, whole):
    killed = []

    def kill():
        for _ in range(200):
            time.sleep(0.1)
            workers = _workers()
            if workers and (tmp_path / ".c.h5.shards").exists():
                os.kill(workers[0], signal.SIGKILL)
                killed.append(workers[0])
                return

    thread = threading.Thread(target=kill)
    thread.start()
    extract_with_ray(smears, tmp_path / "c.h5", CONFIG, cluster=Cluster(parts=2))
    thread.join()
    assert killed
    assert_equal(whole, read_cache(tmp_path / "c.h5"))


def _workers():
    """Processes of Ray that run a shard now."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes().startswith(b"ray::_extract_shard"):
                found.append(int(entry.name))
    return found


def test_an_error_of_ours_is_told_with_its_shard(cluster, tmp_path, smears):
    config = ExtractConfig("densenet121", weights=str(tmp_path / "none.pth"), input_px=64)
    with pytest.raises(CacheError, match=r"shard \d of 2: No weights file"):
        extract_with_ray(smears, tmp_path / "c.h5", config, cluster=Cluster(parts=2))
    assert not (tmp_path / "c.h5").exists()


class Ray(ModuleType):
    """Stands for Ray: runs each task in this process when its result is asked for; `lost` tasks on, all are lost."""

    def __init__(self, nodes, lost=None):
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.count, self.lost, self.tasks = nodes, lost, {}

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1}}] * self.count + [{"Alive": False, "Resources": {}}]

    def put(self, value):
        return value

    def remote(self, **_):
        return lambda function: SimpleNamespace(remote=lambda *given: self._task(lambda: function(*given)))

    def _task(self, call):
        self.tasks[len(self.tasks)] = call
        return len(self.tasks) - 1

    def wait(self, running, num_returns):
        return running[:num_returns], running[num_returns:]

    def get(self, task):
        if task == self.lost:
            raise RuntimeError("the node is lost")
        return self.tasks[task]()


@pytest.fixture
def run(monkeypatch, smears):
    def run(out, nodes, lost=None, parts=0):
        told = []
        monkeypatch.setitem(sys.modules, "ray", Ray(nodes, lost))
        return extract_with_ray(smears, out, CONFIG, cluster=Cluster(parts=parts), log=told.append), told

    return run


@pytest.mark.parametrize(("nodes", "parts"), [(1, 0), (3, 0), (2, 5)])
def test_with_other_nodes_finished_shards_are_not_computed_again(tmp_path, run, whole, nodes, parts):
    out, folder = tmp_path / "c.h5", tmp_path / ".c.h5.shards"
    with pytest.raises(CacheError, match=r"4-of-8\.h5 could not be made"):
        run(out, 2, lost=3)
    assert sorted(path.name for path in folder.glob("*.h5")) == [f"{number}-of-8.h5" for number in (1, 2, 3)]
    done, told = run(out, nodes, parts=parts)
    assert (done.images, done.computed, done.reused) == (48, 30, 18)
    assert f"Ray: {nodes} nodes, 8 shards of an earlier run." in told
    assert_equal(whole, read_cache(out))
    assert not folder.exists()


def test_of_two_earlier_runs_the_one_that_got_further_goes_on(tmp_path, run, smears, whole):
    out, folder = tmp_path / "c.h5", tmp_path / ".c.h5.shards"
    for number in (1, 2):
        extract(smears, folder / f"{number}-of-8.h5", CONFIG, shard=(number, 8))
    extract(smears, folder / "3-of-3.h5", CONFIG, shard=(3, 3))
    done, _ = run(out, 1)
    assert (done.computed, done.reused) == (32, 16)
    assert_equal(whole, read_cache(out))
    assert not folder.exists()


def test_what_is_no_shard_is_left_and_is_no_error(tmp_path, run, smears, whole):
    out, folder = tmp_path / "c.h5", tmp_path / ".c.h5.shards"
    extract(smears, folder / "1-of-2.h5", CONFIG, shard=(1, 2))
    extract(smears, folder / "2-of-16.h5", CONFIG, shard=(2, 4))  # another shard than its name says
    (folder / "1-of-8.h5").write_text("notes")
    (folder / "1-of-8.h5.lock").write_text("mine")
    (folder / ".1-of-4.h5.elsewhere.1.partial").touch()  # of a node that was lost
    (folder / "notes.txt").touch()
    (folder / "3-of-8.h5").mkdir()
    (folder / "4-of-8.h5").symlink_to(folder / "2-of-16.h5")
    done, told = run(out, 1)
    assert (done.computed, done.reused) == (24, 24)
    assert_equal(whole, read_cache(out))
    kept = {"1-of-8.h5", "1-of-8.h5.lock", "2-of-16.h5", "2-of-16.h5.lock", "3-of-8.h5", "4-of-8.h5", "notes.txt"}
    assert {path.name for path in folder.iterdir()} == kept
    assert told[-1] == f"{folder} stays: it holds files that are no shards."


def test_a_leftover_that_is_no_cache_sets_no_number_of_shards(tmp_path, run, whole):
    out, folder = tmp_path / "c.h5", tmp_path / ".c.h5.shards"
    folder.mkdir()
    (folder / "1-of-8.h5").write_text("damaged")
    done, told = run(out, 1)
    assert (done.computed, told[-1]) == (48, f"{folder} stays: it holds files that are no shards.")
    assert_equal(whole, read_cache(out))
