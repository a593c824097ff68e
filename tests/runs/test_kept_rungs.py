"""Kept steps of a ladder: read back as they were, or, from a file that is damaged or another one, not at all."""

import io
import json
import os
import resource
import zipfile

import numpy as np
import pytest

from ball_features import FitConfig
from ball_features.dataset.splits import Split
from ball_features.evaluation.fit_split import Fitted
from ball_features.evaluation.protocols import ModelResult
from ball_features.models.registry import select
from ball_features.runs.kept_rungs import KeptRungs
from ball_features.runs.rungs import Rung

MODELS = select(("logistic", "majority"))
UNITS = np.arange(8)
RUNG = Rung("random", FitConfig(), "", [Split(0, 0, UNITS[:3], UNITS[3:4], UNITS[4:])], UNITS, UNITS, {})
PROBABILITY = np.asfortranarray([[0.25, 0.75], [0.5, 0.5], [1, 0], [0, 1]])


@pytest.fixture
def kept(tmp_path):
    """A step with a model that was fitted and one that failed, and its file."""
    steps = KeptRungs(tmp_path / "rungs", "a", 2)
    fitted = Fitted(RUNG.splits[0], PROBABILITY, {}, -1, 1.5, 0.5, flips=np.array([True, False, False, True]))
    steps.save(RUNG, MODELS, [ModelResult(MODELS[0], [fitted]), ModelResult(MODELS[1], [], "no", "trace")])
    (file,) = (tmp_path / "rungs").iterdir()
    return steps, file


def told(results):
    """What was read, to compare; None where nothing was."""
    return results and [
        (one.spec.name, one.failure, one.traceback, *((item.probability.tolist(), item.flips.tolist(), item.fit_s,
         item.predict_s, item.converged, item.refitted) for item in one.fitted)) for one in results
    ]  # fmt: skip


GOOD = [
    ("logistic", "", "", (PROBABILITY.tolist(), [True, False, False, True], 1.5, 0.5, True, False)),
    ("majority", "no", "trace"),
]


def test_a_step_is_read_back(kept):
    steps, file = kept
    assert told(steps.load(RUNG, MODELS)) == GOOD
    file.rename(file.with_suffix(""))
    assert steps.load(RUNG, MODELS) is None


def test_a_step_of_another_number_of_classes_is_none(kept):
    steps, _ = kept
    assert KeptRungs(steps.folder, "a", 3).load(RUNG, MODELS) is None


@pytest.mark.slow
def test_no_damage_is_an_error(kept):
    """A bit of each byte changed, and the file cut: what is read is what was written, or nothing."""
    steps, file = kept
    data = file.read_bytes()
    good = 0
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        found = told(steps.load(RUNG, MODELS))
        assert found in (None, GOOD)
        good += found is not None
    assert good < len(data)
    for size in range(0, len(data), 7):
        file.write_bytes(data[:size])
        assert steps.load(RUNG, MODELS) is None


def member(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def claim(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


OTHERS = {
    "shape": ("logistic/0/probability.npy", member(np.full((4, 3), 0.5))),
    "one number": ("logistic/0/probability.npy", member(np.array(0.5))),
    "flat": ("logistic/0/probability.npy", member(np.full(8, 0.5))),
    "type": ("logistic/0/probability.npy", member(np.full((4, 2), "a"))),
    "not finite": ("logistic/0/probability.npy", member(np.full((4, 2), np.nan))),
    "objects": ("logistic/0/probability.npy", b"\x93NUMPY\x01\x00" + member(np.zeros(1))[8:]),
    "3 TB": ("logistic/0/probability.npy", claim((200_000_000_000, 2))),
    "no header": ("logistic/0/seconds.npy", b""),
    "a number of flips": ("logistic/0/flips.npy", member(np.zeros(3, bool))),
    "a bool that is 7": ("logistic/0/flips.npy", member(np.zeros(4, bool))[:-1] + b"\x07"),
    "list": ("failures.json", b"[]"),
    "failure of a number": ("failures.json", b'{"majority": 3}'),
    "failure of numbers": ("failures.json", b'{"majority": [1, 2]}'),
    "failure of three": ("failures.json", b'{"majority": ["a", "b", "c"]}'),
    "failure without a reason": ("failures.json", b'{"majority": ["", ""]}'),
    "nested": ("failures.json", b"[" * 200_000),
    "digits": ("failures.json", b"1" * 10_000),
    "no JSON": ("failures.json", b"{"),
}


@pytest.mark.parametrize("name, data", OTHERS.values(), ids=OTHERS)
def test_another_content_is_none(kept, name, data):
    steps, file = kept
    with zipfile.ZipFile(file) as archive:
        members = {own: archive.read(own) for own in archive.namelist()} | {name: data}
    with zipfile.ZipFile(file, "w") as archive:
        for own, content in members.items():
            archive.writestr(own, content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert steps.load(RUNG, MODELS) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.slow
def test_a_bomb_is_not_unpacked(kept):
    steps, file = kept
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("failures.json", b" " * 50_000_000 + json.dumps({}).encode())
    assert steps.load(RUNG, MODELS) is None


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "holes", "npy", "pickle"])
def test_what_is_no_such_file_is_none_and_not_waited_for(kept, kind):
    steps, file = kept
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "holes":
        with file.open("wb") as own:
            own.truncate(1 << 40)
    elif kind == "npy":
        file.write_bytes(member(np.zeros(3)))
    else:
        file.write_bytes(b"\x80\x04N.")
    assert steps.load(RUNG, MODELS) is None


def others():
    """Contents that are no kept step, by what they are."""
    arrays, plain = io.BytesIO(), io.BytesIO()
    np.savez(arrays, failures=np.arange(3))
    np.savez_compressed(plain, probability=np.zeros(3), seconds=np.zeros(2))
    made = {"text": b"mine", "empty": b"", "arrays": plain.getvalue(), "an array of failures": arrays.getvalue()}
    made |= {"zip": b"PK\x05\x06" + bytes(18), "holes": None, "a start of a zip": b"PK\x03\x04" + bytes(60)}
    return made


@pytest.mark.parametrize("kind", [*others(), "folder", "pipe", "link"])
def test_a_file_of_others_with_the_name_of_a_step_stays(kept, kind):
    """It is neither replaced nor removed, and the ladder goes on without its copy."""
    steps, file = kept
    results, own = steps.load(RUNG, MODELS), file.read_bytes()
    file.unlink()
    aside = file.parent.parent / "aside"
    aside.write_bytes(own)
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to(aside)
    elif kind == "holes":
        with file.open("wb") as hollow:
            hollow.truncate(1 << 40)
    else:
        file.write_bytes(others()[kind])
    before = os.lstat(file)
    steps.save(RUNG, MODELS, results)
    steps.keep_only((), MODELS)
    steps.clear()
    after = os.lstat(file)
    assert (after.st_ino, after.st_size, after.st_mode) == (before.st_ino, before.st_size, before.st_mode)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert aside.read_bytes() == own
    if kind in others() and kind != "holes":
        assert file.read_bytes() == others()[kind]


@pytest.mark.parametrize("size", [46, 60, 200, 0.5, 0.9])
def test_a_step_that_is_cut_is_removed_and_made_anew(kept, size):
    steps, file = kept
    results, data = steps.load(RUNG, MODELS), file.read_bytes()
    cut = size if size > 1 else int(size * len(data))
    file.write_bytes(data[:cut])
    steps.save(RUNG, MODELS, results)
    assert told(steps.load(RUNG, MODELS)) == GOOD
    file.write_bytes(data[:cut])
    steps.clear()
    assert not file.parent.exists()


@pytest.mark.parametrize("failures", ["failures.json", "failures.npy"])
def test_steps_of_earlier_versions_are_removed(kept, failures):
    steps, file = kept
    file.unlink()
    with zipfile.ZipFile(file, "w") as archive:  # without the mark of today's
        archive.writestr("logistic/0/probability.npy", member(np.zeros((4, 2))))
        archive.writestr("hist-gradient-boosting/11/seconds.npy", member(np.zeros(2)))
        archive.writestr(failures, b"{}" if failures.endswith("json") else member(np.array("{}")))
    steps.clear()
    assert not file.parent.exists()


def test_what_comes_to_the_name_while_a_step_is_written_stays(kept, monkeypatch):
    from ball_features.runs import kept_rungs

    steps, file = kept
    results = steps.load(RUNG, MODELS)
    own = kept_rungs.npy.write_array

    def meanwhile(*given, **named):
        file.unlink(missing_ok=True)
        file.write_text("mine")
        own(*given, **named)

    monkeypatch.setattr(kept_rungs.npy, "write_array", meanwhile)
    steps.save(RUNG, MODELS, results)
    assert file.read_text() == "mine"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
