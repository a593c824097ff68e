"""Fits in other processes and on clusters."""

import copyreg
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ball_features.config import FitConfig
from ball_features.errors import ConfigError, MissingExtraError
from ball_features.evaluation import processes
from ball_features.evaluation.processes import run_tasks


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "numbers.bin"
    numbers = np.arange(60_000, dtype=np.float16).reshape(3000, 2, 10)
    path.write_bytes(b"head" + numbers.tobytes())
    return np.memmap(path, np.float16, "r", 4, numbers.shape)


def test_a_memory_map_is_sent_by_the_name_of_its_file(mapped):
    with processes.maps_by_name():
        sent, part, plain = (pickle.dumps(own) for own in (mapped, mapped[5:9], np.asarray(mapped)[:4]))
        assert len(sent) < 1000
    assert np.memmap not in copyreg.dispatch_table
    assert np.array_equal(pickle.loads(sent), mapped)
    assert np.array_equal(pickle.loads(part), mapped[5:9])
    assert np.array_equal(pickle.loads(plain), mapped[:4])


@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_backend_that_is_not_installed_names_its_extra(monkeypatch, backend, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else found(name))
    with pytest.raises(MissingExtraError, match=rf"ball-features\[{backend}\]"):
        list(run_tasks(abs, {"a": -1}, 2, backend))


def test_an_address_needs_a_backend():
    with pytest.raises(ConfigError, match="backend"):
        FitConfig(cluster="tcp://a:1")
    assert FitConfig(backend="dask", cluster="a").fingerprint() == FitConfig().fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_of_this_machine_gives_the_same_results(backend, package):
    pytest.importorskip(package)
    tasks = {number: -number for number in range(5)}
    assert {key: value for key, value, _ in run_tasks(abs, tasks, 2, backend)} == {n: n for n in range(5)}


_HOLDS = """
import fcntl, os, sys, time
from ball_features.evaluation.processes import run_tasks

def hold(path):
    file = open(path, "w")
    fcntl.flock(file, fcntl.LOCK_EX)
    open(path + ".held", "w").close()
    time.sleep(120)

list(run_tasks(hold, {name: name for name in sys.argv[1:]}, 2))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the number of a parent that has ended")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    import fcntl

    paths = [tmp_path / name for name in "ab"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", _HOLDS, *map(str, paths)], env=environment)
    until = time.monotonic() + 60
    while not all(Path(f"{path}.held").exists() for path in paths):
        assert time.monotonic() < until and parent.poll() is None
        time.sleep(0.1)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    for path in paths:
        with path.open("r+") as file:
            free = False
            while not free:
                assert time.monotonic() < until + 30, "a worker outlives its parent"
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    free = True
                except BlockingIOError:
                    time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell whether a process runs")
def test_a_worker_whose_parent_is_gone_before_its_first_task_ends():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = f"import time; from ball_features.evaluation import processes as p; p._end_with({gone.pid}); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=50).returncode == 1
