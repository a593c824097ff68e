"""Caches from strangers: nothing leads to other files, nothing is allocated that a file cannot fill."""

import os
import re
import resource
import struct
from typing import Any

import h5py
import numpy as np
import pytest

from ball_features.cache import create_cache, read_cache, verify_cache
from ball_features.errors import CacheError
from tests.cache.test_checksums import COUNT, contents
from tests.hostile import zeros
from tests.made import clouds, write_cache

TEXT = h5py.string_dtype()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.h5"
    create_cache(path, contents())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones((COUNT, 2, 96), "f2")
    (tmp_path / "secret").write_bytes(bytes(COUNT * 2 * 96 * 2))
    return path


def put(name, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


def link(name, target):
    def change(file):
        del file[name]
        file[name] = target

    return change


def attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def virtual(file):
    del file["embeddings"]
    layout = h5py.VirtualLayout((COUNT, 2, 96), "f2")
    layout[:] = h5py.VirtualSource("other.h5", "x", (COUNT, 2, 96))
    file.create_virtual_dataset("embeddings", layout)


def raw(file):
    secret = file.filename.replace("a.h5", "secret")
    put("embeddings", shape=(COUNT, 2, 96), dtype="f2", external=[(secret, 0, COUNT * 384)])(file)


def huge(file):
    rows = 10**12
    put("embeddings", shape=(rows, 2, 96), dtype="f2", chunks=(512, 2, 96))(file)
    put("committed", shape=(rows,), dtype="bool", chunks=(100_000,))(file)
    for name in ("path", "label", "sha256"):
        put(name, shape=(rows,), dtype=TEXT, chunks=(100_000,))(file)


def squeezed(file):
    put("embeddings", shape=(200_000, 2, 960), dtype="f2", chunks=(4096, 2, 960), compression="gzip")(file)
    file["embeddings"][:4096] = 0


def wide(file):
    """One chunk of 4 GB, of which a corner is used."""
    put("embeddings", shape=(COUNT, 2, 96), dtype="f2", chunks=(1 << 23, 2, 128), maxshape=(None,) * 3)(file)


def bomb(file):
    """A chunk whose gzip stream unpacks to 200 MB in place of 9 kB; HDF5 would follow it to its end."""
    put("embeddings", shape=(COUNT, 2, 96), dtype="f2", chunks=(COUNT, 2, 96), compression="gzip")(file)
    file["embeddings"].id.write_direct_chunk((0, 0, 0), zeros(200))


def packed_twice(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((COUNT, 2, 96))
    plist.set_deflate(9)
    plist.set_deflate(9)
    del file["embeddings"]
    space = h5py.h5s.create_simple((COUNT, 2, 96))
    h5py.h5d.create(file.id, b"embeddings", h5py.h5t.NATIVE_FLOAT, space, plist)
    file["embeddings"][:] = 1


REFUSED = {
    "a chunk larger than its array": wide,
    "gzip without an end": bomb,
    "gzip of gzip": packed_twice,
    "another packing": put("embeddings", data=np.ones((COUNT, 2, 96), "f2"), chunks=(COUNT, 2, 96), compression="lzf"),
    "an empty path": lambda file: file["path"].__setitem__(0, ""),
    "settings of megabytes": lambda file: file.attrs.create("recipe", "v" * (5 << 20), dtype=TEXT),
    "external link": link("embeddings", h5py.ExternalLink("other.h5", "x")),
    "external link in a group": lambda file: file["shortcuts"].__setitem__("x", h5py.ExternalLink("other.h5", "x")),
    "soft link": link("label", h5py.SoftLink("/path")),
    "virtual data set": virtual,
    "external raw storage": raw,
    "a terabyte unallocated": huge,
    "compressed zeros": squeezed,
    "circle of groups": lambda file: file["shortcuts"].__setitem__("own", file["shortcuts"]),
    "group for a data set": lambda file: (file.__delitem__("label"), file.create_group("label")),
    "integers": put("embeddings", data=np.ones((COUNT, 2, 96), "i4")),
    "complex numbers": put("embeddings", data=np.ones((COUNT, 2, 96), "c8")),
    "two dimensions": put("embeddings", data=np.ones((COUNT, 96), "f2")),
    "no numbers": put("embeddings", data=np.ones((COUNT, 2, 0), "f2")),
    "no rows": put("embeddings", data=np.ones((0, 2, 96), "f2")),
    "numbers for labels": put("label", data=np.arange(COUNT)),
    "one label": put("label", data="a"),
    "labels in a table": put("label", data=np.full((COUNT, 2), "a", object), dtype=TEXT),
    "flags that are numbers": put("committed", data=np.ones(COUNT)),
    "bytes that are no text": put("label", data=np.array([b"\xff"] * COUNT, object), dtype=TEXT),
    "a path upwards": lambda file: file["path"].__setitem__(0, "../../secret"),
    "an absolute path": lambda file: file["path"].__setitem__(0, "/etc/passwd"),
    "a path twice": lambda file: file["path"].__setitem__(0, "b/1.jpg"),
    "timing of three": put("timing", data=np.zeros(3)),
    "checksums of three": put("checksums/rows", data=np.zeros(3, "u4")),
    "future schema": attribute("schema_version", 2),
    "schema in words": attribute("schema_version", "one"),
    "many views": attribute("views", 10**9),
    "negative batch": attribute("batch_size", -1),
    "half a batch": attribute("batch_size", 1.5),
    "a number for a name": attribute("backbone", 4),
    "an array for a name": attribute("recipe", ["a", "b"]),
    "strange channels": attribute("channels", 'json:["a"]'),
    "versions that are none": attribute("versions", "json:3"),
    "flags of eight bytes": put("committed", data=np.ones(COUNT, "i8")),
    "one channel of three": attribute("channels", 'json:["original", "segmented", "original"]'),
    "no channel": attribute("channels", "json:[]"),
    "a mask of a terabyte": attribute("overlay_mask", "99999:AAAA"),
    "half a character": attribute("more", 'json:["\\ud800"]'),
    "a number of two parts": attribute("more", 1j),
    "broken json": attribute("versions", "json:{"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_cache_holds_is_refused(path, kind):
    with h5py.File(path, "r+") as file:
        REFUSED[kind](file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for embeddings in (True, False):
        with pytest.raises(CacheError) as caught:
            read_cache(path, embeddings=embeddings)
        assert str(path) in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize("verify", [read_cache, verify_cache])
def test_a_pipe_is_not_waited_for(tmp_path, verify):
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(CacheError, match="it is a pipe or a device"):
        verify(tmp_path / "a.h5")
    with pytest.raises(CacheError, match="it is a pipe or a device"):
        verify("/dev/zero")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(path, value):
    with h5py.File(path, "r+") as opened:
        file: Any = opened
        del file["checksums"]
        file["committed"][:] = True
        file["embeddings"][3, 1, 5] = value
    with pytest.raises(CacheError, match=r"numbers of 1 images .*b/3\.jpg"):
        read_cache(path)


def test_heaps_that_hdf5_would_read_for_ever_are_refused(tmp_path):
    """An object without a size, which HDF5 takes for the next one again and again."""
    sound = write_cache(tmp_path / "a.h5", *clouds(2, dim=4)).read_bytes()
    read_cache(tmp_path / "a.h5")
    heaps = [found.start() for found in re.finditer(b"GCOL\x01", sound)]
    assert heaps
    for heap in heaps:
        length, place, objects = struct.unpack_from("<Q", sound, heap + 8)[0], heap + 16, []
        while place + 16 <= heap + length:
            objects.append(place)
            index, size = struct.unpack_from("<H6xQ", sound, place)
            place += 16 + (size + 7) // 8 * 8 if index else size
        for place in (objects[0], objects[-1]):
            for index, size in ((0, 0), (1, 2**64 - 16)):
                data = bytearray(sound)
                struct.pack_into("<H6xQ", data, place, index, size)
                (tmp_path / "b.h5").write_bytes(data)
                for read in (read_cache, verify_cache):
                    with pytest.raises(CacheError, match="a heap of its texts has an object without a size"):
                        read(tmp_path / "b.h5")


@pytest.mark.slow
@pytest.mark.parametrize("stored", [{}, {"chunks": (50,)}])
def test_a_heap_among_the_numbers_is_found(tmp_path, stored):
    """An object without a size in a heap that is part of the embeddings, of texts or of attributes."""
    path = write_cache(tmp_path / "a.h5", *clouds(100, dim=64))
    with h5py.File(path, "r+") as opened:
        file: Any = opened
        for name in ("path", "label", "sha256"):
            kept = file[name][:]
            del file[name]
            file.create_dataset(name, data=kept, dtype=TEXT, **stored)
        del file["checksums"]
        place = file["embeddings"].id.get_offset()
    sound, refused = path.read_bytes(), 0
    read_cache(path)
    for heap in [found.start() for found in re.finditer(b"GCOL\x01", sound)]:
        data, name = bytearray(sound), struct.pack("<Q", heap)
        length = struct.unpack_from("<Q", data, heap + 8)[0]
        if name not in data or place <= heap < place + 102400 or length > 102400:
            continue
        data[place : place + length] = data[heap : heap + length]
        struct.pack_into("<H6xQ", data, place + 16, 0, 0)
        path.write_bytes(data.replace(name, struct.pack("<Q", place)))
        for read in (read_cache, verify_cache):
            try:
                read(path)  # of a heap that only what was deleted names
            except CacheError as error:
                assert "a heap of its texts has an object without a size" in str(error)
                refused += 1
    assert refused >= 4


def test_names_that_look_like_a_heap_are_read(tmp_path):
    embeddings, label = clouds(2, dim=4)
    path = write_cache(tmp_path / "a.h5", embeddings, [f"GCOL\x01{name}" for name in label])
    assert all(name.startswith("GCOL\x01") for name in read_cache(path).label)
