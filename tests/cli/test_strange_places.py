"""Places that the system refuses to look up: each command says which, and is no internal error."""

import sys

import pytest

from tests.commands import ball

LONG = "l" * 300
# Root that gives up its capabilities is refused like any user, and can still read the files that belong to it.
WITHOUT_CAPABILITIES = """
import ctypes
version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert ctypes.CDLL(None).capset(version_3, (ctypes.c_uint32 * 6)()) == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "sheet SMEARS --out LONG/s.csv",
        "labels CACHE --out LONG/l.csv",
        "fit CACHE --groups LONG/g.csv",
        "runs LONG",
        "report LONG",
        "extract SMEARS --out x.h5 --weights LONG/w.pth",
        "extract SMEARS --out x.h5 --backbone file:LONG/n.onnx",
    ],
)
def test_names_that_are_too_long(small_cache, smears, tmp_path, words):
    named = {"SMEARS": str(smears), "CACHE": str(small_cache)}
    done = ball(*(named.get(word, word.replace("LONG", LONG)) for word in words.split()), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "File name too long" in done.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="capset is a call of Linux")
@pytest.mark.parametrize("command", ["runs", "report"])
def test_folders_that_may_not_be_entered(tmp_path, command):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    done = ball(command, closed / "run", before=WITHOUT_CAPABILITIES)
    assert done.returncode == 2, done.stderr
    assert f"{closed / 'run'}" in done.stderr.replace("\n", "")
    assert "Permission denied" in done.stderr
