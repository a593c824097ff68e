"""External evaluations, found again by `ball runs`."""

import json

import pytest
from typer.testing import CliRunner

from ball_features.cli import app
from ball_features.reporting.evaluation_list import list_evaluations


def content(**more):
    """What `ball runs` reads of an `evaluation.json`."""
    own = {
        "format": 1, "source": "north", "created": "2026-01-02 03:04:05", "n": 40, "accuracy": 0.6, "accuracy_low": 0.5,
        "accuracy_high": 0.7, "balanced_recall": 0.6, "metrics": {"ece": {"value": 0.1}}, "coverage": 0.95,
        "sets": [{"coverage": 0.95, "covered": {"value": 0.9}}], "unusual": {"flagged": {"value": 0.2}},
        "published": {"difference": 0.3, "low": 0.2, "high": 0.4}, "verdict": [],
        "bundle": {"sha256": "ab", "model": "logistic", "name": "try1/logistic"},
    }  # fmt: skip
    return own | more


@pytest.fixture
def folder(tmp_path):
    for name, more in {
        "north2": {"note": "new stain"},
        "north10": {"accuracy": 0.8, "published": None},
        "deep/er/south": {"source": "south", "bundle": {"sha256": "", "model": "mlp"}, "accuracy": 0.7},
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "evaluation.json").write_text(json.dumps(content(**more)))
    return tmp_path


def test_evaluations_are_listed(folder):
    found = list_evaluations(folder).evaluations
    assert [item.name for item in found] == ["deep/er/south", "north2", "north10"]
    assert [item.summary.bundle for item in found] == ["mlp", "try1/logistic", "try1/logistic"]
    by = {sort: [item.name for item in list_evaluations(folder, sort).evaluations] for sort in ("accuracy", "note")}
    assert by["accuracy"] == ["north10", "deep/er/south", "north2"]
    assert by["note"][0] == "north2"


def test_the_command_lists_them_and_names_damaged_ones(folder):
    (folder / "bad").mkdir()
    (folder / "bad" / "evaluation.json").write_text('{"format": 1}')
    shown = CliRunner().invoke(app, ["runs", str(folder)], env={"COLUMNS": "140"}).output
    for text in ("External evaluations", "north10", "try1/logistic", "60.00", "new stain", "30.0", "Damaged: bad"):
        assert text in shown, text
    assert "No run in" not in shown
    values = json.loads(CliRunner().invoke(app, ["runs", str(folder), "--json"]).stdout)
    assert values["evaluations"][1]["accuracy"] == 0.6
    assert values["runs"] == []
    assert [own["name"] for own in values["damaged"]] == ["bad"]
