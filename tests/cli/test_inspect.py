"""`ball inspect` of a saved model, and of folders that are none."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ball_features.bundles.sums import write_checksums
from ball_features.cli import app

OLD = Path(__file__).parent.parent / "data" / "v0.1.0"


@pytest.fixture
def bundle(tmp_path):
    folder = Path(shutil.copytree(OLD / "bundles" / "mlp", tmp_path / "run" / "models" / "mlp"))
    write_checksums(folder)
    return folder


def ball(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_a_saved_model_says_what_it_is(bundle):
    shown = ball(bundle)
    assert shown.exit_code == 0, shown.output
    own = json.loads((bundle / "bundle.json").read_text())
    words = " ".join(shown.stdout.split())
    assert "saved model mlp" in words
    assert "its files match their checksums" in words
    for text in (*own["classes"], own["backbone"], own["weights_sha256"][:20]):
        assert text in words
    values = json.loads(ball(bundle, "--json").stdout)
    assert values["classes"] == own["classes"]
    assert values["preprocessing"]["backbone"] == own["backbone"]
    assert values["preprocessing"]["input_px"] == 224


def test_a_damaged_model_is_told(bundle):
    (bundle / "bundle.json").write_text((bundle / "bundle.json").read_text() + " ")
    assert ball(bundle).exit_code != 0


@pytest.mark.parametrize("flag", ["--settings", "--sites"])
def test_what_only_a_cache_has(bundle, flag):
    done = ball(bundle, flag)
    assert done.exit_code != 0
    assert f"expected a cache for {flag}" in str(done.exception)


def test_other_folders_name_the_right_command(bundle, tmp_path):
    run = bundle.parent.parent
    said = str(ball(run).exception)
    assert "Got the run" in said
    assert "models/mlp` shows a saved model" in said
    assert "ball report" in said
    assert "`ball extract` makes a cache" in str(ball(tmp_path, "--verify").exception)
