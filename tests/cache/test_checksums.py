"""Every changed byte of a cache is noticed, and only what is damaged is made again."""

import errno
import os

import h5py
import numpy as np
import pytest

from ball_features.cache import CacheContents, CacheWriter, create_cache, read_cache, verify_cache
from ball_features.errors import CacheError
from tests.commands import ball

SETTINGS = {"backbone": "b", "batch_size": 8, "fingerprint": "f", "precision": "fp32", "recipe": "plain"}
COUNT = 24


def contents(**change):
    rows = range(COUNT)
    own = {
        "paths": [f"{'ab'[row % 2]}/{row}.jpg" for row in rows],
        "labels": ["ab"[row % 2] for row in rows],
        "sha256": [f"{row:064x}" for row in rows],
        "view": ["plain", "v-1"],
        "dim": 96,
        "dtype": "float16",
        "shortcuts": {"colour": 6},
        "attributes": SETTINGS,
    }
    return CacheContents(**own | change)


def numbers(rows):
    draw = np.random.default_rng(0)
    return draw.normal(size=(COUNT, 2, 96)).astype("f2")[rows], {"colour": draw.random((COUNT, 6), "f4")[rows]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.h5"
    create_cache(path, contents(columns={"patient": [f"P{row % 5}" for row in range(COUNT)]}))
    with CacheWriter(path) as writer:
        for start in (0, 10):  # two blocks
            rows = np.arange(start, min(start + 14, COUNT))
            writer.write(rows, *numbers(rows))
        writer.time(COUNT, 2.5)
    return path


def test_a_cache_that_was_written_in_blocks_is_sound(path):
    found = verify_cache(path)
    assert found.sound
    assert found.checked
    assert found.images == COUNT
    read_cache(path)


@pytest.mark.slow
def test_every_flipped_bit_is_found(path):
    """Bits of rows, texts, settings, structure, flags and checksums alike; none is read without a word."""
    data, draw = path.read_bytes(), np.random.default_rng(1)
    with h5py.File(path) as file:
        small = [file[name].id.get_offset() for name in ("committed", "checksums/rows", "checksums/seal", "timing")]
        ours = [*small, file["embeddings"].id.get_offset(), data.find(b"a/0.jpg"), data.find(b"P3")]
    for place in [*ours, *draw.integers(0, len(data), 60).tolist()]:
        changed = bytearray(data)
        changed[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        try:
            found = verify_cache(path)
        except CacheError:
            continue
        assert not found.sound, place


def test_a_changed_row_is_named(path):
    with h5py.File(path, "r+") as file:
        file["embeddings"][5, 1, 7] += 1
    assert verify_cache(path).paths == ("b/5.jpg",)
    assert verify_cache(path).damaged.tolist() == [5]
    with pytest.raises(CacheError, match=r"numbers of 1 images .*\(b/5\.jpg\).*repair=True"):
        read_cache(path)
    assert len(read_cache(path, embeddings=False).path) == COUNT


@pytest.mark.parametrize("name", ["embeddings", "shortcuts/colour", "label", "sha256"])
def test_rows_in_another_order_are_noticed(path, name):
    with h5py.File(path, "r+") as file:
        file[name][...] = file[name][:][::-1]
    assert not verify_cache(path).sound
    with pytest.raises(CacheError, match="damaged"):
        read_cache(path)


def test_a_repair_keeps_what_is_sound(path):
    with h5py.File(path, "r+") as file:
        file["embeddings"][5, 1, 7] += 1
        file["sha256"][9] = "0" * 64
    with pytest.raises(CacheError, match="numbers of 2 images"):
        create_cache(path, contents(), source=path)
    create_cache(path, contents(), source=path, repair=True)
    assert np.flatnonzero(~read_cache(path).committed).tolist() == [5, 9]
    with CacheWriter(path) as writer:
        writer.write(np.array([5, 9]), *numbers(np.array([5, 9])))
    assert verify_cache(path).sound
    assert np.array_equal(read_cache(path).embeddings, numbers(slice(None))[0])


def test_a_killed_writer_leaves_no_false_alarm(path):
    """Numbers are stored before they are marked: those of a killed writer are whole, but not marked."""
    with h5py.File(path, "r+") as file:
        file["committed"][20:] = False
    assert verify_cache(path).unmarked == 4
    assert not verify_cache(path).sound
    read_cache(path)


def test_a_cache_is_read_while_it_is_written(path):
    with CacheWriter(path) as writer:
        assert verify_cache(path).sound
        writer.write(np.arange(3), *numbers(np.arange(3)))
        read_cache(path)
        assert verify_cache(path).sound
        held = path.read_bytes()
    path.write_bytes(held)  # as a killed process leaves it
    assert verify_cache(path).sound


@pytest.mark.slow
def test_a_cache_without_checksums_is_read(path):
    with h5py.File(path, "r+") as file:
        del file["checksums"]
    found = verify_cache(path)
    assert (found.checked, found.sound) == (False, True)
    read_cache(path)
    create_cache(path, contents(), source=path)
    assert verify_cache(path).checked
    assert read_cache(path).complete


@pytest.mark.slow
def test_the_command_says_what_is_damaged(path):
    def run(*options):
        return ball("inspect", path, *options)

    assert run("--verify").returncode == 0
    with h5py.File(path, "r+") as file:
        file["embeddings"][5, 1, 7] += 1
    done = run("--verify")
    assert done.returncode == 1
    assert "damaged  b/5.jpg" in done.stdout
    assert "--repair" in done.stderr


def test_a_disk_without_room_is_told_before_the_cache_is_begun(path, monkeypatch):
    before = path.read_bytes()

    def full(handle, start, size):
        assert size > COUNT * 2 * 96 * 2
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(CacheError, match=r"cannot be written .*No space left.*Free some space"):
        create_cache(path, contents())
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]
