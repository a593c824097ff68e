"""The user's note on a run: `ball runs` and the run's page show it, whichever command made the run."""

import json

import pytest
from typer.testing import CliRunner

from ball_features.cli import app
from ball_features.cli.options import told
from ball_features.reporting.run_list import list_runs
from tests.made import clouds, write_cache

NOTE = "stain <b>of May</b>"
COMMANDS = {
    "fit": ["--models", "logistic", "--repeats", "1"],
    "fit ladder": ["--protocol", "ladder", "--models", "logistic,majority", "--repeats", "1"],
    "tune": ["--trials", "2", "--epochs", "1", "--jobs", "1"],
    "compare": ["--models", "logistic", "--repeats", "1"],
}


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    numbers, label = clouds(20, distance=0.5)
    groups = {"group": [f"g{row // 2}" for row in range(len(label))]}
    scales = {"a": 1, "b": 2}
    return [str(write_cache(folder / f"{name}.h5", numbers * by, label, groups)) for name, by in scales.items()]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_note_is_kept_and_shown(caches, tmp_path, command):
    given = caches if command == "compare" else caches[:1]
    words = [command.split()[0], *given, *COMMANDS[command], "--out", str(tmp_path), "--name", "n", "--note", NOTE]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (run,) = list_runs(tmp_path).runs
    assert (run.name, run.note) == ("n", NOTE)
    page = (tmp_path / "n" / "report.html").read_text(encoding="utf-8")
    assert "Note: stain &lt;b&gt;of May&lt;/b&gt;" in page
    listed = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert "of May" in listed.output


def test_no_note_is_no_line():
    assert told("") == []


def test_paths_in_a_note_stay_as_they_were_written(caches, tmp_path):
    note = f"cut from {tmp_path}/slides"
    words = ["fit", caches[0], "--models", "majority", "--repeats", "1", "--out", str(tmp_path), "--name", "n"]
    done = CliRunner().invoke(app, [*words, "--note", note])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "n" / "run.json").read_text(encoding="utf-8"))["notes"][0] == f"Note: {note}"
