import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ball_features import FitConfig, fit
from ball_features.cache import CacheContents, CacheWriter, create_cache, lock_cache, read_cache
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.manifest import Rejected
from ball_features.dataset.splits import Split
from ball_features.errors import CacheBusyError, CacheError
from tests.made import clouds, write_cache

ROWS = {"paths": ["a/1", "a/2", "b/1"], "labels": ["a", "a", "b"], "sha256": ["x", "y", "z"]}


def create(path, **change):
    options = {"view": ["plain", "v-1"], "dim": 5, "dtype": "float16", "shortcuts": {"colour": 6}}
    settings = {"backbone": "b", "batch_size": 8, "fingerprint": "f", "precision": "fp32", "recipe": "plain"}
    source = change.pop("source", None)
    contents = CacheContents(**ROWS | options | {"attributes": settings | {"versions": {"a": "1"}}} | change)
    create_cache(path, contents, source=source)


def test_round_trip(tmp_path):
    path = tmp_path / "a.h5"
    create(path, rejected=[Rejected("a/3", "is empty")])
    assert not read_cache(path).complete
    values = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float16)
    numbers = np.ones((2, 6), dtype=np.float32)
    with CacheWriter(path) as writer:
        writer.write(np.array([0, 2]), values, {"colour": numbers})
    cache = read_cache(path)
    assert cache.committed.tolist() == [True, False, True]
    assert np.array_equal(cache.embeddings[[0, 2]], values)
    assert cache.label.tolist() == ["a", "a", "b"]
    assert cache.view == ("plain", "v-1")
    assert cache.attributes["versions"] == {"a": "1"}
    assert cache.rejected == (Rejected("a/3", "is empty"),)


@pytest.mark.parametrize(("most", "rows"), [(10_000, 3), (1_200_000, 40_000)])  # at the beginning, and when it closes
def test_a_full_disk_is_said_and_leaves_no_part_of_a_file(tmp_path, most, rows):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.h5"
    create(path)
    before = path.read_bytes()
    names = [f"a/{row}" for row in range(rows)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(CacheError, match=r"cannot be written \(File too large\). Free some space"):
            create(path, paths=names, labels=names, sha256=names)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [item.name for item in tmp_path.iterdir()] == ["a.h5"]
    assert path.read_bytes() == before


def test_a_name_that_is_too_long_is_no_damaged_cache(tmp_path):
    with pytest.raises(CacheError, match="cannot be read"):
        read_cache(tmp_path / ("x" * 300))


def test_caches_and_splits_compare_by_identity(tmp_path):
    create(tmp_path / "a.h5")
    cache, again = (read_cache(tmp_path / "a.h5") for _ in range(2))
    rows = np.arange(3)
    split = Split(0, 0, rows, rows, rows)
    assert cache == cache != again
    assert split != Split(0, 0, rows, rows, rows)
    assert len({cache, again, split, Grouping("group", rows, rows, rows, None, "")}) == 4


def test_rows_are_carried_over_by_content(tmp_path):
    path = tmp_path / "a.h5"
    create(path)
    values = np.arange(30, dtype=np.float16).reshape(3, 2, 5)
    with CacheWriter(path) as writer:
        writer.write(np.arange(3), values, {"colour": np.arange(18, dtype=np.float32).reshape(3, 6)})
    create(path, paths=["b/9", "a/2", "new", "copy"], labels=list("babb"), sha256=["z", "y", "n", "z"], source=path)
    cache = read_cache(path)
    assert cache.committed.tolist() == [True, True, False, True]
    assert np.array_equal(cache.embeddings[[0, 1, 3]], values[[2, 1, 2]])
    assert cache.shortcuts["colour"][1].tolist() == [6, 7, 8, 9, 10, 11]


def test_writing_rows_moves_nothing_else_in_the_file(tmp_path):
    """Space is allocated at creation: a kill while writing can only harm rows that are not committed."""
    path = tmp_path / "a.h5"
    create(path)
    size = path.stat().st_size
    with h5py.File(path) as file:
        stored = file["embeddings"].id.get_offset(), file["committed"].id.get_offset()
    with CacheWriter(path) as writer:
        writer.write(np.arange(3), np.ones((3, 2, 5), np.float16), {"colour": np.ones((3, 6), np.float32)})
    assert path.stat().st_size == size
    with h5py.File(path) as file:
        assert (file["embeddings"].id.get_offset(), file["committed"].id.get_offset()) == stored


def test_one_writer(tmp_path):
    with lock_cache(tmp_path / "a.h5"):
        with pytest.raises(CacheBusyError), lock_cache(tmp_path / "a.h5"):
            pass
    with lock_cache(tmp_path / "a.h5"):
        pass


def test_what_is_no_cache(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(CacheError, match="Make one"):
        read_cache(path)
    path.write_bytes(b"\x89HDF nothing")
    with pytest.raises(CacheError, match="not a cache"):
        read_cache(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(CacheError, match="schema version None"):
        read_cache(path)
    create(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(CacheError, match=r"schema version 99, expected 1\. Read it with the version .* another file"):
        read_cache(path)
    with pytest.raises(CacheError, match=r"^Got the folder .*, expected a cache"):
        read_cache(tmp_path)


def _without(name):
    def change(file):
        del file[name]

    return change


def _shorter(name):
    def change(file):
        values = file[name][:-1]
        del file[name]
        file[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.__delitem__("recipe"), "it lacks the attribute recipe"),
        (lambda file: file.attrs.__delitem__("fingerprint"), "it lacks the attribute fingerprint"),
        (_without("embeddings"), "it lacks embeddings"),
        (_without("shortcuts"), "it lacks shortcuts"),
        (_shorter("label"), r"label has 2 rows, expected 3 for embeddings of \(3, 2, 5\)"),
        (_shorter("committed"), "committed has 2 rows, expected 3"),
        (_shorter("shortcuts/colour"), "shortcuts/colour has 2 rows, expected 3"),
        (_shorter("view"), "view has 1 rows, expected 2"),
        (_shorter("rejected/path"), "is damaged"),
        (lambda file: file.attrs.__setitem__("versions", "json:{"), "is damaged"),
    ],
)
def test_what_other_hands_changed(tmp_path, change, message):
    path = tmp_path / "a.h5"
    create(path, rejected=[Rejected("a/3", "is empty")])
    with h5py.File(path, "r+") as file:
        change(file)
    for embeddings in (True, False):
        with pytest.raises(CacheError, match=f"{message}.*Extract the images again"):
            read_cache(path, embeddings=embeddings)


def test_a_cache_that_was_cut_short(tmp_path):
    path = tmp_path / "a.h5"
    create(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CacheError, match=r"is damaged, or was not closed .*Extract the images again"):
        read_cache(path)


@pytest.mark.slow
def test_a_large_cache_is_mapped_and_not_read(tmp_path):
    """More chunks than a node of their index holds: they still lie one behind the other."""
    path, count, dim = tmp_path / "a.h5", 101, 1 << 19
    own = {name: [f"{name}{row}" for row in range(count)] for name in ("paths", "labels", "sha256")}
    create(path, **own, view=["plain"], dim=dim)
    row = np.arange(dim, dtype=np.float16)
    with CacheWriter(path) as writer:
        writer.write(np.array([3, 100]), np.stack([row, -row])[:, None], {"colour": np.zeros((2, 6), np.float32)})
    cache = read_cache(path)
    assert isinstance(cache.embeddings, np.memmap)
    assert cache.embeddings.shape == (count, 1, dim)
    assert np.array_equal(cache.embeddings[3, 0], row)
    assert np.array_equal(cache.embeddings[100, 0], -row)
    assert not cache.embeddings[4:100].any()
    with pytest.raises(ValueError, match="read-only"):
        cache.embeddings[0] = 1
    cache.require_unchanged()
    create(path, source=path)
    with pytest.raises(CacheError, match="was replaced or changed while it was in use"):
        cache.require_unchanged()
    assert np.array_equal(cache.embeddings[3, 0], row)  # the old file, as long as it is held


def test_a_large_cache_that_is_written_to_while_it_is_in_use_is_noticed(tmp_path):
    """Its inode stays, so that nothing but its size and the time of its change tells."""
    embeddings, label = clouds(400, dim=400)
    path, other = tmp_path / "a.h5", tmp_path / "b.h5"
    for place, numbers in ((path, embeddings), (other, embeddings[::-1])):
        write_cache(place, numbers, label)
    cache = read_cache(path)
    assert cache.mapped is not None

    def overwritten(done, total, name):
        path.write_bytes(other.read_bytes())

    config = FitConfig(models=("colour", "lda"), repeats=1, jobs=1)
    with pytest.raises(CacheError, match="was replaced or changed while it was in use"):
        fit(path, config, out_root=tmp_path / "runs", progress=overwritten)
    assert not (tmp_path / "runs").exists() or not [*(tmp_path / "runs").glob("[!.]*")]


@pytest.mark.skipif(os.name == "nt", reason="a mapped file cannot be cut there")
def test_a_mapped_file_that_is_cut_is_told_in_words(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    code = (
        "import numpy as np; from ball_features.cli.lost_maps import tell_of_lost_maps; tell_of_lost_maps()\n"
        "data = np.memmap('a', np.uint8, 'r'); open('a', 'w').close(); data.sum()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("Error: A file that was in use") and not done.stdout


@pytest.mark.parametrize("change", [{}, {"compression": "gzip"}, {"chunks": (1, 1, 5)}, {"dtype": ">f2"}], ids=str)
def test_other_layouts_are_read(tmp_path, monkeypatch, change):
    path = tmp_path / "a.h5"
    create(path)
    values = np.arange(30, dtype=np.float16).reshape(3, 2, 5)
    with h5py.File(path, "r+") as file:
        del file["checksums"]
        if change:
            del file["embeddings"]
            file.create_dataset(
                "embeddings", data=values.astype(change.pop("dtype", "f2")), **{"chunks": (2, 2, 5)} | change
            )
        else:
            file["embeddings"][:] = values
    monkeypatch.setattr("ball_features.cache.read.MAPPED_FROM", 0)
    cache = read_cache(path)
    assert np.array_equal(cache.embeddings, values)
    assert not cache.committed.any()


@pytest.mark.slow
def test_a_mapped_cache_gives_the_same_table(small_cache, tmp_path, monkeypatch):
    from ball_features import FitConfig, fit

    config = FitConfig(models=("logistic", "knn"), repeats=2, jobs=2)
    read = fit(small_cache, config, out_root=tmp_path / "read")
    monkeypatch.setattr("ball_features.cache.read.MAPPED_FROM", 0)
    monkeypatch.setattr("ball_features.evaluation.protocols.PARALLEL_FROM", 0)
    assert isinstance(read_cache(small_cache).embeddings, np.memmap)
    mapped = fit(small_cache, config, out_root=tmp_path / "mapped")
    first, second = ((run.folder / "predictions.csv").read_text() for run in (read, mapped))
    assert first == second
