"""The verdict stands on top of `ball compare`, in its JSON and in the run."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from ball_features.cli import app


@pytest.mark.slow
def test_compare_shows_its_verdict(small_cache, tmp_path):
    shutil.copy(small_cache, tmp_path / "other.h5")
    command = ["compare", str(small_cache), str(tmp_path / "other.h5"), "--models", "logistic,colour"]
    command += ["--repeats", "1", "--out", str(tmp_path / "runs"), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    (folder,) = (tmp_path / "runs").iterdir()
    assert values["verdict"] == json.loads((folder / "verdict.json").read_text())
    assert {"random-weights", "not-tested"} <= {item["code"] for item in values["verdict"]}
