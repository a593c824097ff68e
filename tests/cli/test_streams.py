"""Standard streams that are closed, full or left by their reader end no command, and no file takes their place."""

import subprocess
import sys

import pytest

from tests.made import clouds, write_cache

INSPECT = f"{sys.executable} -m ball_features inspect c.h5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    embeddings, label = clouds(10)
    write_cache(folder / "c.h5", embeddings, label)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"{INSPECT} >&-", 0, ""),
        (f"{INSPECT} 2>&- <&-", 0, ""),
        (f"{INSPECT} --json > /dev/full", 2, "could not be written to standard output (No space left on device)"),
        (f"{INSPECT} > /dev/full", 2, "could not be written to standard output (No space left on device)"),
        (f"({INSPECT}; echo $? > code) | true; exit $(cat code)", 0, ""),
        (f"({INSPECT} --json; echo $? > code) | true; exit $(cat code)", 0, ""),
        (f"{sys.executable} -m ball_features predict none - <&-", 2, "no names on standard input"),
        (f"{sys.executable} -m ball_features inspect none.h5 2> /dev/full", 2, ""),
    ],
)
def test_commands_end_as_they_would(folder, command, code, said):
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Internal error" not in done.stderr
    assert done.stderr.strip() == "" if not said else done.stderr.count("Error:") == 1


@pytest.mark.slow
def test_what_is_read_is_not_written_to(folder):
    """Files that are opened take the lowest free descriptor, to which a closed stream would then be written."""
    before = (folder / "c.h5").read_bytes()
    for streams in (">&-", "2>&-", "<&- >&- 2>&-"):
        subprocess.run(["sh", "-c", f"{INSPECT} {streams}"], cwd=folder, capture_output=True, check=True)
    assert (folder / "c.h5").read_bytes() == before
