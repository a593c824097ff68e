"""Verdict and page of a run that cannot be written: the run stands, and the command says so and fails, also with -q."""

import json

import pytest

from ball_features import read_cache
from ball_features.files import write_csv
from tests.commands import ball
from tests.conftest import with_columns

FULL = """
def full(*arguments, **options):
    raise OSError(28, "No space left on device")

import importlib
pages = {"store": "write_report", "ladder": "write_ladder_report", "learning_curve": "write_curve_report"}
for room, name in pages.items():
    setattr(importlib.import_module(f"ball_features.runs.{room}"), name, full)
"""
VERDICT = """
import importlib
from ball_features.errors import DataError

def full(*arguments, **options):
    raise DataError("No space left on device")

store = importlib.import_module("ball_features.runs.store")
store.write_report = store.write_json = full
"""


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["holdout", "ladder", "learning-curve"])
@pytest.mark.parametrize("flag", ["-q", "--json"])
def test_a_page_that_cannot_be_written_is_an_error(small_cache, tmp_path, protocol, flag):
    path = read_cache(small_cache).path.tolist()
    write_csv(tmp_path / "groups.csv", ("path", "group"), [(own, number // 2) for number, own in enumerate(path)])
    words = ("fit", small_cache, "--models", "knn", "--repeats", 1, "--protocol", protocol, "--out", tmp_path)
    words += ("--groups", tmp_path / "groups.csv")
    done = ball(*words, "--name", "r", flag, before=FULL)
    assert done.returncode == 2
    reason = "report.html could not be written (OSError: [Errno 28] No space left on device)"
    assert done.stderr.startswith(f"Error: {reason}")
    assert str(tmp_path / "r") in (json.loads(done.stdout)["run"] if flag == "--json" else done.stdout)
    assert (tmp_path / "r" / "run.json").is_file()


@pytest.mark.slow
def test_all_files_that_are_missing_are_named(small_cache, tmp_path):
    other = with_columns(small_cache, tmp_path / "other.h5", stain=lambda row: row % 2)
    words = ("compare", small_cache, other, "--models", "knn", "--repeats", 1, "--out", tmp_path, "--name", "r")
    done = ball(*words, before=VERDICT)
    assert done.returncode == 2
    told = "verdict.json could not be written"
    assert told in done.stderr
    assert "report.html could not be written" in done.stderr
    assert told not in done.stdout  # said once
