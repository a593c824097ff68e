"""Outputs whose name comes to something else between their check and their write: nothing else is written to."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ball_features import ExtractConfig, extract
from ball_features.cache import CacheWriter, create_cache, lock_cache, read_cache
from ball_features.errors import CacheBusyError, CacheError, DataError
from ball_features.files import partial_of, read_csv, replacement, replacing, write_csv, write_text
from ball_features.outputs import require_own_files, require_writable
from ball_features.runs.new_folder import NewFolder, free_folder
from tests.cache.test_checksums import COUNT, contents, numbers
from tests.test_files import OWN
from tests.tiny import TINY

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="links need rights there"),
    pytest.mark.usefixtures("tiny_densenet"),
]
PAGE = OWN["page"].decode()


@pytest.fixture
def mine(tmp_path):
    """A file of the user's, elsewhere."""
    path = tmp_path / "mine" / "notes.txt"
    path.parent.mkdir()
    path.write_text("mine")
    return path


def as_link(out, mine):
    out.unlink(missing_ok=True)
    out.symlink_to(mine)


def as_link_to_nothing(out, mine):
    out.unlink(missing_ok=True)
    out.symlink_to(mine.with_name("new"))


def as_foreign_file(out, mine):
    out.unlink(missing_ok=True)
    out.write_text("of another program")


def as_pipe(out, mine):
    out.unlink(missing_ok=True)
    os.mkfifo(out)


def as_linked_folder(out, mine):
    out.parent.rename(out.parent.with_name("moved"))
    out.parent.symlink_to(mine.parent, target_is_directory=True)


CHANGES = [as_link, as_link_to_nothing, as_foreign_file, as_pipe, as_linked_folder]


@pytest.mark.parametrize("before", ["", PAGE], ids=["new", "own"])
@pytest.mark.parametrize("late", [False, True], ids=["before the write", "during the write"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_comes_to_a_checked_name_stays(tmp_path, mine, change, late, before):
    out = tmp_path / "out" / "a.html"
    if before:
        write_text(out, before)
    require_writable(out, kind="page")
    if not late:
        change(out, mine)
    with pytest.raises(DataError, match="was changed by another program while the command ran") as caught:
        with replacing(out) as partial:
            partial.write_text("result")
            if late:
                change(out, mine)
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]
    assert mine.read_text() == "mine"
    if change is as_foreign_file:
        assert out.read_text() == "of another program"
    if late or change is not as_linked_folder:
        kept = Path(str(caught.value).rpartition("is in ")[2].rstrip("."))
        assert kept.read_text() == "result"
    if change is not as_linked_folder:
        assert sorted(path.name for path in out.parent.iterdir()) == ["a-2.html", "a.html"]


@pytest.mark.parametrize("before", ["", PAGE])
def test_another_output_of_its_kind_stays_too(tmp_path, before):
    """As two of the same command at once write; neither loses its result."""
    out = tmp_path / "a.html"
    if before:
        out.write_text(before)
    require_writable(out, kind="page")
    out.write_text(f"{PAGE} of the first")
    with pytest.raises(DataError, match=r"it holds another result by now. What was to be written is in .*a-2.html"):
        write_text(out, "second")
    assert out.read_text() == f"{PAGE} of the first"
    assert (tmp_path / "a-2.html").read_text() == "second"


def test_an_output_goes_where_its_link_leads(tmp_path):
    (tmp_path / "real").write_text(PAGE)
    (tmp_path / "link").symlink_to("real")
    require_writable(tmp_path / "link", kind="page")
    write_text(tmp_path / "link", "third")
    assert (tmp_path / "real").read_text() == "third"


def test_what_comes_to_a_name_in_a_folder_stays(tmp_path, mine):
    folder, names = tmp_path / "out", ["predictions.csv", "page.html"]
    folder.mkdir()
    require_own_files(folder, names, "evaluation.json", "evaluation")
    (folder / "page.html").symlink_to(mine)
    (folder / "predictions.csv").write_text("of another program")
    for name in names:
        with pytest.raises(DataError, match="was changed by another program"):
            write_text(folder / name, "result")
    assert mine.read_text() == "mine"
    assert (folder / "predictions.csv").read_text() == "of another program"
    (folder / "evaluation.json").write_bytes(OWN["evaluation"])
    require_own_files(folder, names[:1], "evaluation.json", "evaluation")
    (folder / "predictions.csv").unlink()
    (folder / "predictions.csv").write_text("of a second process")
    with pytest.raises(DataError, match=r"was changed by another program.*predictions-3\.csv"):
        write_text(folder / "predictions.csv", "result")  # though this process may have written the marker by then
    assert (folder / "predictions.csv").read_text() == "of a second process"


def test_a_check_leaves_what_another_program_makes_at_the_name(tmp_path, monkeypatch):
    """A name that is tried must not be opened, made or removed: it may belong to somebody else by then."""
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "elsewhere.csv")
    require_writable(link, kind="predictions")
    assert link.is_symlink()
    assert not (tmp_path / "elsewhere.csv").exists()
    make = os.open

    def meanwhile(path, *args, **kwargs):
        (tmp_path / "new.csv").write_text("of another program")
        return make(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", meanwhile)
    require_writable(tmp_path / "new.csv", kind="predictions")
    monkeypatch.undo()
    assert (tmp_path / "new.csv").read_text() == "of another program"


HOSTILE = """
import os, sys
out, mine, partial = sys.argv[1:]
print(1, flush=True)
number = 0
while True:
    for name in (out, partial):
        try:
            os.symlink(mine, f"{name}.link{number}")
            os.replace(f"{name}.link{number}", name)
            number += 1
            if number % 2: os.unlink(name)
        except OSError:
            pass
"""


@pytest.mark.slow
def test_a_race_against_a_program_that_puts_links_there(tmp_path, mine):
    """Another process makes the final and the temporary name links to the user's file, again and again."""
    out = tmp_path / "out" / "a.csv"
    out.parent.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", HOSTILE, out, mine, partial_of(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    try:
        child.stdout.readline()
        told = 0
        for _ in range(400):
            try:
                out.unlink(missing_ok=True)
                require_writable(out, kind="predictions")
                write_csv(out, ("path", "predicted"), [("a.jpg", "b")] * 500)
            except (DataError, OSError) as error:
                told += "Traceback" not in str(error)
            assert mine.read_text() == "mine"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert told, "the race was never won"


def test_a_device_of_blocks_is_no_output(tmp_path):
    try:
        os.mknod(tmp_path / "disk", 0o060600, os.makedev(7, 250))
    except OSError:
        pytest.skip("devices cannot be made here")
    with pytest.raises(DataError, match="is no file"):
        require_writable(tmp_path / "disk", kind="predictions")


def test_a_name_of_any_length_that_the_disk_takes_can_be_written(tmp_path):
    for name in ("a" * 251 + ".csv", "é" * 125 + ".csv"):
        require_writable(tmp_path / name, kind="predictions")
        write_csv(tmp_path / name, ("path",), [("a",)])
        assert list(read_csv(tmp_path / name)) == [{"path": "a"}]
    with NewFolder(tmp_path, "r" * 250) as new:
        pass
    assert new.path.name == "r" * 250
    left = partial_of(tmp_path / ("a" * 251 + ".csv"))
    dead = left.with_name(left.name.replace(f".{os.getpid()}.", ".99999999."))
    dead.touch()
    write_csv(tmp_path / ("a" * 251 + ".csv"), ("path",), [("a",)])
    assert not dead.exists()


def test_what_another_machine_is_writing_is_left_to_it(tmp_path):
    own = partial_of(tmp_path / "a")
    host = own.name.split(".")[2]
    other = own.with_name(f".a.{'0' * 8 if host != '0' * 8 else '1' * 8}.99999999.partial")
    for path in (other, own.with_name(f".a.{host}.99999999.partial")):
        path.write_text("half")
    write_text(tmp_path / "a", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a", other.name}


def test_a_run_finds_a_free_name_whatever_is_there(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "nothing")
    assert free_folder(tmp_path, "run").name == "run-2"
    with NewFolder(tmp_path, "run") as new:
        (new.path / "a").touch()
        (tmp_path / "run-2").mkdir()
        (tmp_path / "run-2" / "of another process").touch()
    assert new.path.name == "run-3"
    assert (tmp_path / "run").is_symlink()


_CHOOSES = """
import sys
from pathlib import Path
from ball_features.runs.new_folder import NewFolder, reserved_folder

with reserved_folder(Path(sys.argv[1]), "run") as folder:
    print(folder.name, flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "writes":
        with NewFolder(folder.parent, folder.name) as new:
            (new.path / "a.txt").write_text(folder.name)
"""


@pytest.mark.slow
def test_a_run_knows_its_name_before_it_is_written(tmp_path):
    """Each of several processes that are told one name has a name of its own from the start, and keeps it."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CHOOSES, tmp_path, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for what in ("writes", "fails", "writes")
    ]
    with contextlib.ExitStack() as opened:
        names = [opened.enter_context(process).stdout.readline().strip() for process in processes]
        assert len(set(names)) == 3
        for process in processes:
            process.communicate("\n")
    assert {item.name for item in tmp_path.iterdir()} == {names[0], names[2]}
    assert all((tmp_path / name / "a.txt").read_text() == name for name in (names[0], names[2]))


def test_a_folder_that_is_taken_at_the_last_moment(tmp_path, monkeypatch):
    from ball_features.runs import new_folder

    def free(root, name):
        found = choose(root, name)
        if not (root / "run" / "other").exists():
            (root / "run").mkdir()
            (root / "run" / "other").touch()
        return found

    choose = new_folder.free_folder
    monkeypatch.setattr(new_folder, "free_folder", free)
    with NewFolder(tmp_path, "run") as new:
        (new.path / "a").touch()
    assert new.path.name == "run-2"
    assert (tmp_path / "run" / "other").exists()


@pytest.fixture
def cache(tmp_path):
    path = tmp_path / "a.h5"
    create_cache(path, contents())
    return path


def test_rows_are_written_to_the_cache_that_was_read(tmp_path, cache):
    expected = read_cache(cache).content.tolist()
    other = tmp_path / "other.h5"
    create_cache(other, contents())
    before = other.read_bytes()
    cache.unlink()
    cache.symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"):
        CacheWriter(cache, expected)
    cache.unlink()
    create_cache(cache, contents(sha256=[f"{row + 1:064x}" for row in range(COUNT)]))
    with pytest.raises(CacheError, match="was replaced by another program"):
        CacheWriter(cache, expected)
    assert other.read_bytes() == before


@pytest.mark.parametrize("change", ["removed", "replaced", "linked"])
def test_a_cache_that_loses_its_name_is_told_at_once(tmp_path, cache, change):
    other = tmp_path / "other.h5"
    create_cache(other, contents())
    before = other.read_bytes()
    with pytest.raises(OSError, match="moved, removed or replaced"), CacheWriter(cache) as writer:
        writer.write(np.arange(0, 10), *numbers(np.arange(0, 10)))
        cache.unlink()
        if change == "replaced":
            cache.write_bytes(before)
        elif change == "linked":
            cache.symlink_to(other)
        writer.write(np.arange(10, COUNT), *numbers(np.arange(10, COUNT)))
    assert other.read_bytes() == before


def test_a_lock_writes_to_no_file_but_its_own(tmp_path, mine):
    path = tmp_path / "a.h5"
    lock = Path(f"{path}.lock")
    with lock_cache(path):
        lock.unlink()
        lock.symlink_to(mine)
    assert mine.read_text() == "mine"
    lock.unlink()
    with lock_cache(path):
        lock.unlink()
        lock.write_text("of another program")
    assert lock.read_text() == "of another program"


SMALL = ExtractConfig(backbone=TINY, weights="random", precision="fp32", input_px=64, limit=12)


@pytest.mark.slow
def test_a_cache_behind_a_link_is_written_where_it_leads(tmp_path, smears):
    (tmp_path / "share").mkdir()
    link = tmp_path / "a.h5"
    link.symlink_to(tmp_path / "share" / "real.h5")
    done = extract(smears, link, SMALL)
    assert done.cache == link
    assert link.is_symlink()
    assert len(read_cache(tmp_path / "share" / "real.h5").path) == 12
    assert (tmp_path / "share" / "real.h5.lock").exists()
    with lock_cache(tmp_path / "share" / "real.h5"), pytest.raises(CacheBusyError):
        extract(smears, link, replace(SMALL, limit=0))
    assert extract(smears, link, SMALL).computed == 0


@pytest.mark.slow
@pytest.mark.parametrize("change", ["replaced", "linked", "removed"])
def test_an_extraction_whose_cache_is_taken_away_ends_and_writes_nowhere(tmp_path, smears, change):
    out, other = tmp_path / "a.h5", tmp_path / "other.h5"
    create_cache(other, contents())
    before = other.read_bytes()

    def progress(done, total):
        if out.exists() and not done:
            out.rename(tmp_path / "moved.h5")
            if change == "replaced":
                out.write_bytes(before)
            elif change == "linked":
                out.symlink_to(other)

    with pytest.raises(CacheError, match=r"by another program|another program moved|No such file|symbolic link"):
        extract(smears, out, SMALL, progress=progress)
    assert other.read_bytes() == before
    if change == "replaced":
        assert out.read_bytes() == before


def test_no_moment_lies_between_the_last_look_and_the_name(tmp_path, monkeypatch):
    out = tmp_path / "a.html"
    require_writable(out, kind="page")
    look = replacement._require_same

    def late(*arguments):
        look(*arguments)
        if not out.exists():
            out.write_text("mine")

    monkeypatch.setattr(replacement, "_require_same", late)
    with pytest.raises(DataError, match=r"was to be written is in .*a-2.html"):
        write_text(out, "ours")
    assert (out.read_text(), (tmp_path / "a-2.html").read_text()) == ("mine", "ours")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a-2.html", "a.html"]


@pytest.mark.parametrize("refused", [OSError(1, "Operation not permitted"), OSError(95, "Operation not supported")])
def test_a_file_system_without_links_takes_outputs(tmp_path, monkeypatch, refused):
    def link(*arguments, **more):
        raise refused

    monkeypatch.setattr(os, "link", link)
    out = tmp_path / "a.html"
    require_writable(out, kind="page")
    write_text(out, "ours")
    assert [item.name for item in tmp_path.iterdir()] == ["a.html"]
