"""One writer of a cache, also on file systems without locks and without memory maps."""

import errno
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from ball_features.cache import CacheWriter, create_cache, lock_cache, read_cache
from ball_features.errors import CacheBusyError
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
            own = rf"being written by another process \(process {os.getpid()} on {socket.gethostname()}\)"
            with pytest.raises(CacheBusyError, match=own), lock_cache(path):
                pass


def test_a_lock_whose_process_is_gone_is_stale(monkeypatch, tmp_path):
    monkeypatch.setattr("fcntl.flock", lambda handle, operation: (_ for _ in ()).throw(OSError(errno.ENOSYS, "none")))
    marker, host = tmp_path / "a.h5.writer", socket.gethostname()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    marker.write_text(f"process {gone.pid} on {host}")
    with lock_cache(tmp_path / "a.h5"):
        assert marker.read_text() == f"process {os.getpid()} on {host}"
    assert not marker.exists()
    marker.write_text(f"process {gone.pid} on elsewhere")
    with pytest.raises(CacheBusyError, match=r"on elsewhere.*delete"), lock_cache(tmp_path / "a.h5"):
        pass


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
