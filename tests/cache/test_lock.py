"""One writer of a cache, also on file systems without locks and without memory maps."""

import errno
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from ball_features.cache import CacheWriter, create_cache, lock_cache, read_cache
from ball_features.errors import CacheBusyError, CacheError
from ball_features.files import this_host
from tests.cache.test_checksums import contents

fcntl = pytest.importorskip("fcntl")


@pytest.fixture(params=["locks", errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK], ids=str)
def system(request, monkeypatch):
    if request.param != "locks":

        def refuse(handle, operation):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr("fcntl.flock", refuse)


def test_one_writer_whose_process_is_told(system, tmp_path):
    path = tmp_path / "a.h5"
    for _ in range(2):
        with lock_cache(path):
            own = (
                rf"being written by another process \(process {os.getpid()} on {socket.gethostname()}, {this_host()}\)"
            )
            with pytest.raises(CacheBusyError, match=own), lock_cache(path):
                pass


def test_a_lock_whose_process_is_gone_is_stale(monkeypatch, tmp_path):
    monkeypatch.setattr("fcntl.flock", lambda handle, operation: (_ for _ in ()).throw(OSError(errno.ENOSYS, "none")))
    marker, host = tmp_path / "a.h5.writer", f"{socket.gethostname()}, {this_host()}"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    marker.write_text(f"process {gone.pid} on {host}")
    with lock_cache(tmp_path / "a.h5"):
        assert marker.read_text() == f"process {os.getpid()} on {host}"
    assert not marker.exists()
    for other in ("elsewhere", f"{socket.gethostname()}, 01234567", socket.gethostname()):  # such as another container
        marker.write_text(f"process {gone.pid} on {other}")
        with pytest.raises(CacheBusyError, match=rf"on {other}.*delete"), lock_cache(tmp_path / "a.h5"):
            pass


@pytest.mark.parametrize("end", ["lock", "writer"])
def test_what_has_the_name_of_a_lock_is_not_waited_for_nor_read_whole_nor_removed(monkeypatch, tmp_path, end):
    if end == "writer":
        monkeypatch.setattr("fcntl.flock", lambda *given: (_ for _ in ()).throw(OSError(errno.ENOSYS, "none")))
    path, other = tmp_path / "a.h5", tmp_path / f"a.h5.{end}"

    def refused():
        with pytest.raises(CacheError, match=f"{end} is no lock of"), lock_cache(path):
            pass

    os.mkfifo(other)
    refused()
    other.unlink()
    other.mkdir()
    refused()
    other.rmdir()
    with other.open("wb") as file:
        file.truncate(30 << 30)
    refused()
    other.write_text("my notes")
    os.utime(other, (0, 0))
    refused()
    assert other.read_text() == "my notes"


def test_an_error_of_the_work_keeps_its_kind(tmp_path):
    with pytest.raises(FileNotFoundError), lock_cache(tmp_path / "a.h5"):
        raise FileNotFoundError


def test_a_cache_is_read_where_files_cannot_be_mapped(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise OSError(errno.ENODEV, "No such device")

    path = tmp_path / "a.h5"
    create_cache(path, contents())
    values = np.ones((24, 2, 96), "f2")
    with CacheWriter(path) as writer:
        writer.write(np.arange(24), values, {"colour": np.ones((24, 6), "f4")})
    monkeypatch.setattr("ball_features.cache.read.MAPPED_FROM", 0)
    monkeypatch.setattr("numpy.memmap", refuse)
    cache = read_cache(path)
    assert cache.mapped is None
    assert np.array_equal(cache.embeddings, values)
