"""A disk that fails at any write, read or sync of a cache: HDF5 does not crash, and the reason is told."""

import errno
import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ball_features.cache import CacheWriter, create_cache, raw_file, read_cache, verify_cache
from ball_features.errors import CacheError
from tests.cache.test_checksums import COUNT, contents, numbers


class Faulty:
    """An unbuffered file of which some calls fail."""

    calls: dict[str, int]  # name of a call -> number of its calls that are still sound
    lasting = False  # whether all that follow fail too

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        left = Faulty.calls.get(name)
        if left is not None:
            Faulty.calls[name] = left - 1
            if left == 0 or (left < 0 and Faulty.lasting):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return getattr(self.file, name)


@pytest.fixture
def faulty(monkeypatch):
    begin = raw_file.RawFile.__init__

    def on_a_faulty_disk(self, path, mode):
        begin(self, path, mode)
        self._file = Faulty(self._file)

    def let(name, sound, lasting):
        Faulty.calls, Faulty.lasting = {name: sound}, lasting
        monkeypatch.setattr(raw_file.RawFile, "__init__", on_a_faulty_disk)

    yield let
    monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("call", ["write", "truncate", "readinto", "fileno"])
def test_a_cache_on_a_disk_that_fails_anywhere(tmp_path, monkeypatch, faulty, call, lasting):
    path, wide = tmp_path / "a.h5", contents(dim=40_000)  # some megabytes: several writes for one array
    create_cache(path, contents())
    with CacheWriter(path) as writer:
        writer.write(np.arange(COUNT), *numbers(np.arange(COUNT)))
    before, told = path.read_bytes(), 0
    for sound in range(0, 60, 7 if call == "readinto" else 1):
        faulty(call, sound, lasting)
        try:
            create_cache(tmp_path / "b.h5", wide)
            create_cache(path, contents(), source=path)
        except CacheError as error:
            assert "cannot be written (Input/output error)" in str(error)
            told += 1
        else:
            assert Faulty.calls[call] >= 0, "the fault was not told"
            break
        finally:
            monkeypatch.undo()
        assert path.read_bytes() == before
        assert not list(tmp_path.glob(".*.partial"))
    assert told or call == "fileno"


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("call", ["write", "readinto", "fileno"])
def test_rows_on_a_disk_that_fails_anywhere(tmp_path, monkeypatch, faulty, call, lasting):
    path, told = tmp_path / "a.h5", 0
    for sound in range(0, 60, 7 if call == "readinto" else 1):
        create_cache(path, contents())
        faulty(call, sound, lasting)
        try:
            with CacheWriter(path) as writer:
                writer.write(np.arange(0, 10), *numbers(np.arange(0, 10)))
                writer.write(np.arange(10, COUNT), *numbers(np.arange(10, COUNT)))
                writer.time(COUNT, 1.0)
        except OSError as error:
            assert error.errno == errno.EIO
            told += 1
        else:
            assert Faulty.calls[call] >= 0, "the fault was not told"
            break
        finally:
            monkeypatch.undo()
        found = verify_cache(path)
        assert not len(found.damaged)
        assert found.index
        kept = np.flatnonzero(read_cache(path).committed)
        assert np.array_equal(read_cache(path).embeddings[kept], numbers(kept)[0])
    assert told


def test_rows_are_on_disk_before_they_are_marked(tmp_path, monkeypatch):
    """Whatever a power cut leaves of the writes since the last sync, no row is marked that is not there."""
    path, done = tmp_path / "a.h5", []
    create_cache(path, contents())
    with h5py.File(path) as file:
        marks, sums = (file[name].id.get_offset() for name in ("committed", "checksums/rows"))
        rows = file["embeddings"].id.get_offset(), file["embeddings"].nbytes
    write, sync = raw_file.RawFile.write, os.fsync

    def written(self, data):
        place = self.tell()
        what = "marks" if marks <= place < marks + COUNT else "rows" if 0 <= place - rows[0] < rows[1] else "other"
        done.append("sums" if sums <= place < sums + 4 * COUNT else what)
        return write(self, data)

    monkeypatch.setattr(raw_file.RawFile, "write", written)
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("sync"), sync(handle)))
    with CacheWriter(path) as writer:
        writer.write(np.arange(10), *numbers(np.arange(10)))
        writer.write(np.arange(10, COUNT, 2), *numbers(np.arange(10, COUNT, 2)))
    text = " ".join(one for number, one in enumerate(done) if one != "other" and done[number - 1 : number] != [one])
    assert text == "rows sums sync marks sync rows sums sync marks sync"


def test_ctrl_c_within_a_call_of_hdf5_is_raised_after_it(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    write = raw_file.RawFile.write
    for place in range(1, 30, 3):
        calls = 0

        def interrupted(self, data, place=place):
            nonlocal calls
            calls += 1
            if calls == place:
                signal.raise_signal(signal.SIGINT)
            return write(self, data)

        monkeypatch.setattr(raw_file.RawFile, "write", interrupted)
        try:
            create_cache(path, contents())
        except KeyboardInterrupt:
            assert calls >= place
        else:
            assert calls < place
        monkeypatch.undo()
        assert not path.exists() or calls < place
        assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.slow
def test_a_process_that_ends_while_a_thread_writes(tmp_path):
    create_cache(tmp_path / "a.h5", contents())
    code = (
        "import sys, threading, time, numpy as np; from pathlib import Path\n"
        "from ball_features.cache import CacheWriter\n"
        "from tests.cache.test_checksums import numbers\n"
        "def work():\n"
        "    with CacheWriter(Path(sys.argv[1])) as writer:\n"
        "        while True: writer.write(np.arange(9), *numbers(np.arange(9)))\n"
        "threading.Thread(target=work, daemon=True).start(); time.sleep(0.5)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.h5")], capture_output=True)
    assert done.returncode == 0
    assert verify_cache(tmp_path / "a.h5").index


@pytest.mark.slow
@pytest.mark.parametrize("sound", [0, 3, 6])
def test_a_process_that_ends_after_a_cache_could_not_be_opened(tmp_path, sound):
    """HDF5 frees what it has kept after Python has ended, and must not call it then."""
    create_cache(tmp_path / "a.h5", contents())
    code = (
        "import sys; from pathlib import Path; from ball_features.cache import CacheWriter, raw_file\n"
        "from tests.cache.test_faulty_disk import Faulty\n"
        "begin = raw_file.RawFile.__init__\n"
        "def faulty(self, path, mode): begin(self, path, mode); self._file = Faulty(self._file)\n"
        f"raw_file.RawFile.__init__ = faulty; Faulty.calls = {{'readinto': {sound}}}; Faulty.lasting = True\n"
        "try: CacheWriter(Path(sys.argv[1]))\n"
        "except OSError as error: held = error; print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.h5")], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Input/output error" in done.stdout
