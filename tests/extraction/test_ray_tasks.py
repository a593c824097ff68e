"""Extraction on a Ray cluster of this machine: the rows of one process, also where workers are killed."""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

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
