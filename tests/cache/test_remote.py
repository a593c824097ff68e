"""Caches under addresses: fetched once, written whole, and nothing of an interrupted command is lost."""

import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ball_features import ExtractConfig, extract, read_cache
from ball_features.cache import local_copy, merge, verify_cache, written
from ball_features.cache.lock import lock_cache
from ball_features.cache.remote import forget
from ball_features.cli import app
from ball_features.config.paths import shareable
from ball_features.errors import BallError, CacheBusyError, CacheError, DataError
from ball_features.outputs import require_folder

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def own_copies(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "copies"))


@pytest.fixture
def memory():
    return fsspec.filesystem("memory")


@pytest.fixture
def address():
    return f"memory://{uuid.uuid4().hex}/deep/all.h5"


def path_of(address):
    return address.removeprefix("memory:/")


def put(memory, address, content):
    memory.pipe_file(path_of(address), content)


@pytest.mark.parametrize(
    "mark", [None, "Size", "Last-Modified", "modify", "last_write_time", "modificationTime", "sha"]
)
def test_a_file_of_one_size_is_fetched_again_where_it_may_be_another(memory, mark):
    """Stores have names of their own for the time of a change; some tell none."""
    times = iter(range(100))

    class Bare(type(memory)):
        protocol = "bare"
        fetched = 0

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).removeprefix("bare://"))

        def info(self, path, **more):
            own = {"name": path, "size": super().info(path, **more)["size"], "type": "file"}
            value = own["size"] if mark == "Size" else self.store[path].modified
            return own | ({mark: value} if mark else {})

        def get_file(self, *given, **more):
            type(self).fetched += 1
            return super().get_file(*given, **more)

    fsspec.register_implementation("bare", Bare, clobber=True)
    name = uuid.uuid4().hex
    for number, content in enumerate((b"one", b"one", b"two")):
        if number != 1:
            memory.pipe_file(f"/{name}/all.h5", content)
            memory.store[f"/{name}/all.h5"].modified = next(times)
        assert local_copy(f"bare://{name}/all.h5").read_bytes() == content
    assert Bare.fetched == (3 if mark in (None, "Size") else 2)


def test_what_is_written_is_stored_whole_and_read_back(memory, address):
    with written(address) as path:
        assert not path.exists()
        path.write_bytes(b"one")
        assert not memory.exists(path_of(address))
    assert memory.cat_file(path_of(address)) == b"one"
    assert local_copy(address).read_bytes() == b"one"
    assert len(memory.find(path_of(address).rsplit("/", 1)[0])) == 1  # no temporary name is left
    with written(address) as path:
        path.write_bytes(path.read_bytes() + b" two")
    assert memory.cat_file(path_of(address)) == b"one two"


def test_a_copy_is_fetched_once_for_each_version(memory, address, monkeypatch):
    put(memory, address, b"one")
    local_copy(address)
    fetch, fetched = type(memory).get_file, []
    monkeypatch.setattr(type(memory), "get_file", lambda self, *more: fetched.append(more) or fetch(self, *more))
    assert local_copy(address).read_bytes() == b"one"
    assert not fetched
    put(memory, address, b"another")
    assert local_copy(address).read_bytes() == b"another"
    assert len(fetched) == 1


def test_an_interrupted_command_goes_on_with_its_working_copy(memory, address):
    put(memory, address, b"one")
    with pytest.raises(KeyboardInterrupt), written(address) as path:
        path.write_bytes(b"one and a half")
        raise KeyboardInterrupt
    assert memory.cat_file(path_of(address)) == b"one"
    assert local_copy(address).read_bytes() == b"one"
    with written(address) as path:
        assert path.read_bytes() == b"one and a half"
    assert memory.cat_file(path_of(address)) == b"one and a half"


def test_what_another_program_has_stored_is_never_replaced(memory, address):
    put(memory, address, b"one")
    with pytest.raises(CacheError, match="changed by another program"), written(address) as path:
        path.write_bytes(b"mine")
        put(memory, address, b"theirs")
    assert memory.cat_file(path_of(address)) == b"theirs"
    with written(address) as path:
        assert path.read_bytes() == b"theirs"


def test_a_copy_of_another_version_is_kept_under_another_name(memory, address):
    said = []
    with pytest.raises(KeyboardInterrupt), written(address) as path:
        path.write_bytes(b"rows")
        raise KeyboardInterrupt
    put(memory, address, b"theirs")
    with lock_cache(path), pytest.raises(CacheBusyError), written(address, log=said.append):
        pytest.fail("began")
    assert path.read_bytes() == b"rows" and not said
    with written(address, log=said.append) as path:
        assert path.read_bytes() == b"theirs"
    assert path.with_name("all.h5.1").read_bytes() == b"rows"
    assert "all.h5.1" in said[0]


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_a_file_of_this_disk_is_no_copy(tmp_path, small_cache, scheme):
    address = f"{scheme}://{tmp_path}/all.h5"
    shutil.copyfile(small_cache, tmp_path / "all.h5")
    assert local_copy(address) == local_copy(Path(address)) == tmp_path / "all.h5"
    forget(address)
    with written(address) as path:
        assert path == tmp_path / "all.h5" and path.exists()
    with pytest.raises(CacheError, match="exists"):
        merge([small_cache, small_cache], address)


@pytest.mark.parametrize("sound", [True, False])
def test_a_merge_leaves_the_copy_of_an_interrupted_command(tmp_path, small_cache, sound):
    address = f"memory://{uuid.uuid4().hex}/all.h5"
    with pytest.raises(KeyboardInterrupt), written(address) as path:
        shutil.copyfile(small_cache, path)
        raise KeyboardInterrupt
    rows = path.read_bytes()
    shards = [str(small_cache), str(small_cache if sound else tmp_path / "no.h5")]
    done = CliRunner().invoke(app, ["merge", *shards, "-o", address])
    assert done.exit_code, done.output
    words = " ".join(f"{done.output} {done.exception}".split())
    assert "interrupted command" in words and "ball extract" in words and "remove that file" in words, words
    assert path.read_bytes() == rows
    with written(address) as path:  # the interrupted command goes on with it
        assert path.read_bytes() == rows


@pytest.mark.slow
def test_a_merge_that_fails_leaves_nothing_in_the_way_of_the_next(memory, address, small_cache, tmp_path, monkeypatch):
    with pytest.raises(CacheError, match=r"no\.h5"):
        merge([small_cache, tmp_path / "no.h5"], address)
    monkeypatch.setattr(type(memory), "put_file", lambda *more, **also: (_ for _ in ()).throw(RuntimeError()))
    with pytest.raises(CacheError, match="RuntimeError") as refused:
        merge([small_cache, small_cache], address)
    assert "goes on with it" not in str(refused.value)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "copies"))
    assert merge([small_cache, small_cache], address).images


def test_a_merge_waits_for_no_other_writer_and_removes_nothing_of_it(address, small_cache):
    with written(address) as path, lock_cache(path):
        with pytest.raises(CacheBusyError):
            merge([small_cache, small_cache], address)
        path.write_bytes(b"rows")
    assert local_copy(address).read_bytes() == b"rows"


def test_a_fault_of_a_cache_is_told_with_its_address(memory, address, small_cache):
    put(memory, address, small_cache.read_bytes()[:-1000])
    with pytest.raises(CacheError) as said:
        read_cache(address)
    assert str(said.value).startswith(f"{address} is") and "copies" not in str(said.value)


def during_upload(memory, monkeypatch, do):
    store = type(memory).put_file

    def put_file(self, *given, **more):
        store(self, *given, **more)
        do()

    monkeypatch.setattr(type(memory), "put_file", put_file)


def test_an_address_is_one_writers_until_its_file_is_stored(memory, address, monkeypatch):
    seen = []

    def second():
        with pytest.raises(CacheBusyError, match=address), written(address):
            pytest.fail("began")
        seen.append(1)

    during_upload(memory, monkeypatch, second)
    with written(address) as path:
        path.write_bytes(b"one")
        second()
    assert len(seen) == 2 and memory.cat_file(path_of(address)) == b"one"


@pytest.mark.parametrize("before", [b"", b"first"])
def test_what_another_machine_stores_during_the_upload_stays(memory, address, monkeypatch, before):
    if before:
        put(memory, address, before)

    def theirs():
        if memory.exists(path_of(address)):
            memory.rm(path_of(address))
        memory.store[path_of(address)] = type(memory.open("/x", "wb"))(memory, path_of(address), b"theirs")

    during_upload(memory, monkeypatch, theirs)
    with pytest.raises(CacheError, match="was changed by another program meanwhile") as said, written(address) as path:
        path.write_bytes(b"ours")
    assert memory.cat_file(path_of(address)) == b"theirs"
    assert path.read_bytes() == b"ours" and str(path) in str(said.value)
    assert not [name for name in memory.find(path_of(address).rpartition("/")[0]) if name.endswith(".partial")]


def test_nothing_is_stored_where_nothing_changed(memory, address, monkeypatch):
    put(memory, address, b"one")
    with written(address):
        pass
    monkeypatch.setattr(type(memory), "put_file", lambda *more: pytest.fail("stored"))
    with written(address) as path:
        assert path.read_bytes() == b"one"


def test_a_failed_upload_keeps_the_work_and_shows_no_key(memory, address, monkeypatch):
    def fail(*more, **also):
        raise RuntimeError("https://KEY:SECRET@store refused")

    monkeypatch.setattr(type(memory), "put_file", fail)
    with pytest.raises(CacheError, match="RuntimeError") as refused, written(address) as path:
        path.write_bytes(b"one")
    assert "SECRET" not in str(refused.value) and str(path) in str(refused.value)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parents[4]))
    with written(address):
        pass
    assert memory.cat_file(path_of(address)) == b"one"


def test_a_store_that_takes_no_file_is_named_before_the_work(memory, address, monkeypatch):
    monkeypatch.setattr(type(memory), "pipe_file", lambda *more, **also: (_ for _ in ()).throw(PermissionError()))
    with pytest.raises(CacheError, match="PermissionError"), written(address):
        pytest.fail("began")


@pytest.mark.parametrize(
    ("name", "words"),
    [("memory://none/all.h5", "No cache at memory://none/all.h5"), ("nosuch://KEY:SECRET@a/b.h5", "nosuch://a/b.h5")],
)
def test_what_cannot_be_read_says_so(name, words):
    with pytest.raises(BallError, match=words) as refused:
        read_cache(name)
    assert "SECRET" not in str(refused.value)


def test_runs_and_pages_are_written_to_this_machine(tmp_path):
    with pytest.raises(DataError, match="address s3://bucket/runs, expected a path"):
        require_folder("s3://KEY:SECRET@bucket/runs")


def test_files_of_a_run_hold_no_key():
    kept = shareable({"cache": "s3://KEY:SECRET@bucket/all.h5?token=SECRET", "cluster": "tcp://scheduler:8786"})
    assert kept == {"cache": "s3://bucket/all.h5", "cluster": "tcp://scheduler:8786"}


@pytest.mark.slow
def test_a_cache_under_an_address_is_read_like_any(memory, address, small_cache, tmp_path):
    memory.put_file(str(small_cache), path_of(address))
    assert np.array_equal(read_cache(address).embeddings, read_cache(small_cache).embeddings)
    assert verify_cache(address).sound
    shown = CliRunner().invoke(app, ["inspect", address, "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["cache"] == address
    done = CliRunner().invoke(
        app,
        ["fit", address, "--models", "logistic", "--repeats", "1", "--out", str(tmp_path / "runs"), "--name", "one"],
    )
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "runs" / "one" / "run.json").read_text())["cache"] == address
    page = CliRunner().invoke(app, ["report", str(tmp_path / "runs" / "one")])
    assert page.exit_code == 0 and "opened only if you give it" in " ".join(page.output.split()), page.output
    page = CliRunner().invoke(app, ["report", str(tmp_path / "runs" / "one"), "--cache", address])
    assert page.exit_code == 0 and "no map" not in page.output, page.output


@pytest.mark.slow
def test_extraction_brings_a_cache_under_an_address_up_to_date(memory, address, smears, tmp_path, small_cache):
    config = ExtractConfig("densenet121", views=2, weights="random", input_px=96, precision="fp32")
    images = tmp_path / "images"
    shutil.copytree(smears, images)
    memory.put_file(str(small_cache), path_of(address))
    before = memory.cat_file(path_of(address))
    assert extract(images, address, config).computed == 0
    assert memory.cat_file(path_of(address)) == before
    (first, *_) = sorted(images.rglob("*.jpg"))
    Image.open(sorted(images.rglob("*.jpg"))[1]).save(first, quality=70)
    done = extract(images, address, config)
    assert (done.computed, str(done.cache)) == (1, address.replace("://", ":/"))
    assert read_cache(address).complete


def test_shards_under_addresses_are_merged_into_another(memory, address, small_cache):
    for number in (1, 2):
        memory.put_file(str(small_cache), path_of(f"{address}-{number}.h5"))
    done = merge([f"{address}-1.h5", f"{address}-2.h5"], address)
    assert done.repeated == done.images == len(read_cache(address).path)
    with pytest.raises(CacheError, match="exists"):
        merge([f"{address}-1.h5", f"{address}-2.h5"], address)


def test_an_object_store_keeps_a_cache(small_cache, object_store):
    object_store.mkdir("caches")
    with written("s3://caches/deep/all.h5") as path:
        shutil.copyfile(small_cache, path)
    assert object_store.find("caches") == ["caches/deep/all.h5"]
    assert np.array_equal(read_cache("s3://caches/deep/all.h5").embeddings, read_cache(small_cache).embeddings)
    with written("s3://caches/deep/all.h5") as path:
        path.write_bytes(b"two")
    assert local_copy("s3://caches/deep/all.h5").read_bytes() == b"two"
