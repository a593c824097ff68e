"""Extraction on a Ray cluster of this machine: the rows of one process, also where workers are killed."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
import uuid
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ball_features import ExtractConfig, extract, read_cache
from ball_features.cache.lock import lock_cache
from ball_features.errors import CacheError, ConfigError, DataError, MissingExtraError
from ball_features.extraction import ray_tasks
from ball_features.extraction.ray_tasks import Cluster, extract_with_ray
from tests.commands import ball
from tests.tiny import TINY

SMALL = ExtractConfig(TINY, "report", 2, weights="random", input_px=64, precision="fp32")
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
def test_the_command_of_the_page_runs_as_typed(cluster, tmp_path, smears, whole):
    """In a folder of its own, on a cluster that runs already and was started in another one."""
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^    ball (extract .* --engine ray .*)$", page, re.MULTILINE)
    assert line == "extract IMAGES --out all.h5 --engine ray --address auto"
    (tmp_path / "IMAGES").symlink_to(smears)
    more = "--backbone densenet121 --weights random --input-px 64 --precision fp32 --recipe report --views 2".split()
    address = cluster.get_runtime_context().gcs_address
    done = ball(*shlex.split(line), *more, cwd=tmp_path, env={"RAY_ADDRESS": address})
    assert done.returncode == 0, done.stderr
    assert "all.h5: 48 images" in done.stdout
    assert_equal(whole, read_cache(tmp_path / "all.h5"))


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
    """Stands for Ray: runs each task in this process when its result is asked for, as a worker begun in `/` would.

    Task `lost` is lost. `options` are those of the tasks.
    """

    def __init__(self, nodes, lost=None):
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        own = nodes if isinstance(nodes, list) else [{"CPU": 1}] * nodes
        self.own = [{"Alive": True, "Resources": dict(one)} for one in own]
        self.lost, self.tasks, self.options = lost, {}, {}

    def is_initialized(self):
        return True

    def nodes(self):
        return [*self.own, {"Alive": False, "Resources": {}}]

    def put(self, value):
        return value

    def remote(self, **options):
        self.options = options
        return lambda function: SimpleNamespace(remote=lambda *given: self._task(lambda: function(*given)))

    def _task(self, call):
        self.tasks[len(self.tasks)] = call
        return len(self.tasks) - 1

    def wait(self, running, num_returns):
        return running[:num_returns], running[num_returns:]

    def get(self, task):
        if task == self.lost:
            raise RuntimeError("the node is lost")
        here = Path.cwd()
        os.chdir("/")
        try:
            return self.tasks[task]()
        finally:
            os.chdir(here)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["c.h5", "sub/c.h5", "sub/../c.h5"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_no_cache_is_written_into_a_saved_model(tmp_path, smears, monkeypatch, tiny_densenet, place, overwrite):
    """Nor its shards, nor anything else; said before a task is begun."""
    own = Ray(2)
    monkeypatch.setitem(sys.modules, "ray", own)
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    for name in ("bundle.json", "reference.safetensors"):
        (model / name).write_text("{}")
    if overwrite:
        extract(smears, tmp_path / "there.h5", SMALL)
        shutil.copy(tmp_path / "there.h5", model / place)
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    with pytest.raises(DataError, match="model holds a saved model, which further files would damage"):
        extract_with_ray(smears, model / place, SMALL, cluster=Cluster(parts=2), overwrite=overwrite)
    assert not own.tasks
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smears, tiny_densenet):
    return read_cache(extract(smears, tmp_path_factory.mktemp("tiny") / "c.h5", SMALL).cache)


@pytest.fixture
def run(monkeypatch, smears, tiny_densenet):
    def run(out, nodes=1, *, lost=None, parts=0, images=smears, config=SMALL, **how):
        told = []
        ray = Ray(nodes, lost)
        monkeypatch.setitem(sys.modules, "ray", ray)
        cluster = Cluster(parts=parts)
        return extract_with_ray(images, out, config, cluster=cluster, log=told.append, **how), told

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "parts"), [(1, 0), (3, 0), (2, 5)])
def test_with_other_nodes_finished_shards_are_not_computed_again(tmp_path, run, tiny, nodes, parts):
    out, folder = tmp_path / "c.h5", tmp_path / ".c.h5.shards"
    with pytest.raises(CacheError, match=r"4-of-8\.h5 could not be made"):
        run(out, 2, lost=3)
    assert sorted(path.name for path in folder.glob("*.h5")) == [f"{number}-of-8.h5" for number in (1, 2, 3)]
    done, told = run(out, nodes, parts=parts)
    assert (done.images, done.computed, done.reused) == (48, 30, 18)
    assert any(line.startswith(f"Ray: {nodes} worker") and "8 shards of an earlier run" in line for line in told)
    assert_equal(tiny, read_cache(out))
    assert not folder.exists()


@pytest.mark.slow
def test_of_two_earlier_runs_the_one_that_got_further_goes_on(tmp_path, run, smears, tiny):
    out, folder = tmp_path / "c.h5", tmp_path / ".c.h5.shards"
    for number in (1, 2):
        extract(smears, folder / f"{number}-of-8.h5", SMALL, shard=(number, 8))
    extract(smears, folder / "3-of-3.h5", SMALL, shard=(3, 3))
    done, _ = run(out, 1)
    assert (done.computed, done.reused) == (32, 16)
    assert_equal(tiny, read_cache(out))
    assert not folder.exists()


@pytest.mark.slow
def test_what_is_no_shard_is_left_and_is_no_error(tmp_path, run, smears, tiny):
    out, folder = tmp_path / "c.h5", tmp_path / ".c.h5.shards"
    extract(smears, folder / "1-of-2.h5", SMALL, shard=(1, 2))
    extract(smears, folder / "2-of-16.h5", SMALL, shard=(2, 4))  # another shard than its name says
    (folder / "1-of-8.h5").write_text("notes")
    (folder / "1-of-8.h5.lock").write_text("mine")
    (folder / ".1-of-4.h5.elsewhere.1.partial").touch()  # of a node that was lost
    (folder / "notes.txt").touch()
    (folder / "3-of-8.h5").mkdir()
    (folder / "4-of-8.h5").symlink_to(folder / "2-of-16.h5")
    done, told = run(out, 1)
    assert (done.computed, done.reused) == (24, 24)
    assert_equal(tiny, read_cache(out))
    kept = {"1-of-8.h5", "1-of-8.h5.lock", "2-of-16.h5", "2-of-16.h5.lock", "3-of-8.h5", "4-of-8.h5", "notes.txt"}
    assert {path.name for path in folder.iterdir()} == kept
    assert told[-1] == f"{folder} stays: it holds files that are no shards."


@pytest.mark.slow
def test_a_leftover_that_is_no_cache_sets_no_number_of_shards(tmp_path, run, tiny):
    out, folder = tmp_path / "c.h5", tmp_path / ".c.h5.shards"
    folder.mkdir()
    (folder / "1-of-8.h5").write_text("damaged")
    done, told = run(out, 1)
    assert (done.computed, told[-1]) == (48, f"{folder} stays: it holds files that are no shards.")
    assert_equal(tiny, read_cache(out))


def rows_of(cache):
    return [(item.path, item.reason, item.sha256) for item in cache.rejected]


NODE = {"CPU": 16}
GPUS = {"CPU": 64, "GPU": 8}


@pytest.mark.parametrize(
    ("nodes", "device", "cpus", "gpus", "workers"),
    [
        ([NODE, NODE], "auto", 16, 0, 2),
        ([{"CPU": 0}, NODE, NODE], "auto", 16, 0, 2),  # a head that takes no tasks
        ([{"CPU": 4}, NODE], "auto", 4, 0, 5),
        ([GPUS], "auto", 8, 1, 8),
        ([NODE, GPUS, {"CPU": 8, "GPU": 2}], "auto", 4, 1, 10),  # nodes without a GPU have no task
        ([NODE, GPUS], "cuda:1", 8, 1, 8),
        ([NODE, GPUS], "cpu", 16, 0, 5),
        ([{"CPU": 2, "GPU": 4}], "cuda", 0, 1, 4),
    ],
)
def test_a_task_gets_a_gpu_or_the_cores_of_a_node(tmp_path, run, nodes, device, cpus, gpus, workers):
    with pytest.raises(CacheError, match="could not be made"):
        run(tmp_path / "c.h5", nodes, lost=0, config=replace(SMALL, device=device))
    ray = sys.modules["ray"]
    assert (ray.options["num_cpus"], ray.options["num_gpus"]) == (cpus, gpus)
    assert len(ray.tasks) == min(4 * workers, 48)


def test_a_gpu_that_no_node_has_is_said_before_the_work(tmp_path, run):
    with pytest.raises(ConfigError, match="no node of the cluster has a GPU"):
        run(tmp_path / "c.h5", [NODE], config=replace(SMALL, device="cuda"))


@pytest.mark.slow
def test_relative_paths_are_those_of_the_process_that_was_started(tmp_path, run, smears, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(smears)
    done, _ = run(Path("c.h5"), images="images")
    assert str(done.cache) == "c.h5"
    assert_equal(tiny, read_cache("c.h5"))


@pytest.mark.slow
def test_one_shard_is_enough(tmp_path, run, tiny):
    done, told = run(tmp_path / "c.h5", parts=1)
    assert done.images == 48 and any(line.endswith("1 shard.") for line in told)
    assert_equal(tiny, read_cache(tmp_path / "c.h5"))


def test_a_collection_of_one_image_is_refused_as_by_one_process(tmp_path, run, smears):
    (tmp_path / "images" / "Benign").mkdir(parents=True)
    shutil.copy(next((smears / "Benign").glob("*.jpg")), tmp_path / "images" / "Benign")
    with pytest.raises(DataError, match="images of one class") as one:
        extract(tmp_path / "images", tmp_path / "one.h5", SMALL)
    with pytest.raises(DataError) as two:
        run(tmp_path / "c.h5", images=tmp_path / "images")
    assert str(one.value) == str(two.value)


@pytest.mark.slow
def test_bad_files_are_rejected_where_a_shard_holds_nothing_else(tmp_path, run, smears):
    images = tmp_path / "images"
    for name in ("Benign", "Pro"):
        (images / name).mkdir(parents=True)
        for file in sorted((smears / name).glob("*.jpg"))[:2]:
            shutil.copy(file, images / name)
    (images / "Benign" / "broken.jpg").write_text("no image")
    one = read_cache(extract(images, tmp_path / "one.h5", SMALL).cache)
    seen = []
    done, _ = run(tmp_path / "c.h5", 2, images=images, progress=lambda done, total: seen.append((done, total)))
    two = read_cache(tmp_path / "c.h5")
    assert_equal(one, two)
    assert rows_of(one) == rows_of(two) and len(done.rejected) == 1
    assert seen[-1] == (5, 5)


@pytest.mark.slow
def test_shards_of_other_settings_are_named_and_can_be_replaced(tmp_path, run, smears, tiny):
    out = tmp_path / "c.h5"
    other = replace(SMALL, seed=5)
    extract(smears, tmp_path / ".c.h5.shards" / "1-of-4.h5", other, shard=(1, 4))
    with pytest.raises(CacheError, match=r"made with other settings.*seed.*overwrite=True") as refused:
        run(out)
    assert "same command" not in str(refused.value)
    done, _ = run(out, overwrite=True)
    assert done.computed == 48
    assert_equal(tiny, read_cache(out))
    with pytest.raises(CacheError, match=r"exists.*overwrite=True"):
        run(out, config=other)
    run(out, config=other, overwrite=True)
    assert read_cache(out).attributes["seed"] == 5


@pytest.mark.slow
def test_overwriting_goes_on_with_shards_of_these_settings(tmp_path, run, smears, small_cache):
    out = Path(shutil.copy(small_cache, tmp_path / "c.h5"))
    extract(smears, tmp_path / ".c.h5.shards" / "1-of-4.h5", SMALL, shard=(1, 4))
    done, _ = run(out, overwrite=True)
    assert (done.computed, done.reused) == (36, 12)


def test_what_is_no_cache_is_never_replaced(tmp_path, run):
    out = tmp_path / "c.h5"
    out.write_text("notes")
    with pytest.raises(DataError, match="no cache file that ball has written"):
        run(out, overwrite=True)
    (tmp_path / "link.h5").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CacheError, match="exists"):
        run(tmp_path / "link.h5")
    assert out.read_text() == "notes"


@pytest.mark.slow
def test_a_damaged_shard_is_repaired(tmp_path, run, smears, tiny):
    shard = extract(smears, tmp_path / ".c.h5.shards" / "1-of-4.h5", SMALL, shard=(1, 4)).cache
    data, rows = bytearray(shard.read_bytes()), read_cache(shard).embeddings.tobytes()
    data[data.find(rows)] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CacheError, match=r"is damaged.*repair=True"):
        run(tmp_path / "c.h5")
    done, _ = run(tmp_path / "c.h5", repair=True)
    assert done.computed == 1
    assert_equal(tiny, read_cache(tmp_path / "c.h5"))


@pytest.mark.slow
@pytest.mark.parametrize("wait", [30.0, 0.0])
def test_a_shard_that_a_lost_worker_still_holds_is_waited_for(tmp_path, run, tiny, monkeypatch, wait):
    monkeypatch.setattr(ray_tasks, "BUSY_S", wait)
    held = threading.Event()

    def hold():
        with lock_cache(tmp_path / ".c.h5.shards" / "1-of-4.h5"):
            held.set()
            time.sleep(3 if wait else 10)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait()
    if not wait:
        with pytest.raises(CacheError, match="is being written by another process"):
            run(tmp_path / "c.h5")
        return
    run(tmp_path / "c.h5")
    assert_equal(tiny, read_cache(tmp_path / "c.h5"))


def test_the_cause_of_a_failed_task_is_told(tmp_path, run, monkeypatch):
    class TaskError(RuntimeError):
        cause = OSError("no room")

    def fail(*_, **__):
        raise TaskError("ray::_extract_shard() (pid=1)")

    monkeypatch.setattr(ray_tasks, "extract", fail)
    with pytest.raises(CacheError, match=r"1-of-4\.h5 could not be made \(OSError: no room\)"):
        run(tmp_path / "c.h5")


@pytest.mark.slow
def test_a_cache_under_an_address_has_its_shards_there(tmp_path, run, smears, tiny, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "copies"))
    memory, name = fsspec.filesystem("memory"), uuid.uuid4().hex
    address = f"memory://{name}/all.h5"
    with pytest.raises(CacheError, match=r"4-of-8\.h5 could not be made"):
        run(address, 2, lost=3)
    there = memory.ls(f"/{name}/.all.h5.shards", detail=False)
    assert sorted(path.rpartition("/")[2] for path in there) == [f"{number}-of-8.h5" for number in (1, 2, 3)]
    done, _ = run(address, 1)
    assert (done.images, done.computed, done.reused) == (48, 30, 18)
    assert_equal(tiny, read_cache(address))
    assert memory.find(f"/{name}") == [f"/{name}/all.h5"]
    assert {path.name for path in (tmp_path / "copies").rglob("*.h5")} == {"all.h5"}
    with pytest.raises(CacheError, match="exists"):
        run(address)
    run(address, config=replace(SMALL, seed=5), overwrite=True)
    assert read_cache(address).attributes["seed"] == 5


@pytest.mark.slow
def test_a_file_address_is_a_path(tmp_path, run, tiny, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "copies"))
    run(f"file://{tmp_path}/store/all.h5")
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"all.h5", "all.h5.lock"}
    assert_equal(tiny, read_cache(tmp_path / "store" / "all.h5"))
