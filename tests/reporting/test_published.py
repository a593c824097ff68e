"""Published figures stand beside a run of the same configuration, and beside no other."""

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_score

from ball_features.config import FitConfig
from ball_features.evaluation.stored_results import read_measurement
from ball_features.reporting.page import write_report
from ball_features.reporting.paper import write_paper
from ball_features.reporting.published import PUBLICATIONS, published_sections
from ball_features.reporting.stored_run import read_stored_run
from ball_features.runs.fit import fit

ZERO: Any = 0


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    """A run on drawn smears that says of itself to be on the public set."""
    folder = fit(
        small_cache, FitConfig(models=("mlp", "colour"), repeats=2), out_root=tmp_path_factory.mktemp("r")
    ).folder
    details = json.loads((folder / "run.json").read_text())
    details["images"] = 3256
    details["cache_attributes"] |= {"backbone": "densenet201", "weights": "imagenet"}
    (folder / "run.json").write_text(json.dumps(details))
    return read_stored_run(folder)


def changed(run, **change):
    details = json.loads(json.dumps(run.details))
    for name, value in change.items():
        part, _, key = name.partition("__")
        if key:
            details[part][key] = value
        else:
            details[part] = value
    return replace(run, details=details)


def test_the_report_stands_beside_its_configuration(run):
    (section,) = published_sections(run)
    assert section.name == "report"
    row = next(row for row in run.models if row.model == "mlp")
    figures = PUBLICATIONS["report"].figures
    found = run.predictions["mlp"]
    order = np.random.default_rng(0).permutation(len(found.truth))
    truth, predicted = found.truth[order], found.probability.argmax(1)[order]
    averages = [
        precision_score(truth[start : start + 16], predicted[start : start + 16], labels=range(4), average="macro",
                        zero_division=ZERO)
        for start in range(0, len(truth), 16)
    ]  # fmt: skip
    for cells, name in zip((own.cells for own in section.table.rows), figures, strict=True):
        assert cells[1].value == figures[name]
        assert cells[2].value == row.values[name]
        assert cells[4].value == pytest.approx(row.values[name] - figures[name])
        low, high = row.intervals[name]
        assert cells[5].text == ("yes" if low <= figures[name] <= high else "no")
        if name == "precision":
            assert cells[6].value == pytest.approx(np.mean(averages))
    assert "batches of 16" in section.note


def test_no_difference_has_no_minus(run):
    figures = PUBLICATIONS["report"].figures
    values = {"accuracy": figures["accuracy"] - 1e-6, "f1": figures["f1"] - 1e-3}
    models = [replace(row, values=row.values | values) for row in run.models]
    (section,) = published_sections(replace(run, measurement=replace(run.measurement, models=models)))
    texts = {name: own.cells[4].text for name, own in zip(figures, section.table.rows, strict=True)}
    assert (texts["accuracy"], texts["f1"]) == ("+0.00", "-0.10")


@pytest.mark.parametrize(("weights", "said"), [("imagenet", False), ("/home/me/mine.pth", True)])
def test_weights_of_a_file_are_named(run, weights, said):
    (section,) = published_sections(changed(run, cache_attributes__weights=weights))
    assert ("its weights are those of the file mine.pth, " in section.note) is said
    assert "/home/me" not in section.note


def test_the_paper_stands_beside_two_channels(run):
    (section,) = published_sections(changed(run, cache_attributes__channels_used=["original", "segmented"]))
    assert section.name == "paper"
    assert [row.cells[1].text for row in section.table.rows] == ["99.85", "99.52", "99.89"]


@pytest.mark.parametrize(
    "change",
    [
        {"images": 800},
        {"classes": ["a", "b", "c", "d"]},
        {"config__protocol": "cv"},
        {"config__test_size": 0.3},
        {"config__head": {"hidden": [32]}},
        {"cache_attributes__backbone": "densenet121"},
        {"cache_attributes__weights": "random"},
        {"cache_attributes__channels_used": ["segmented"]},
    ],
)
def test_other_runs_are_not_compared(run, change):
    assert published_sections(changed(run, **change)) == []


@pytest.mark.slow
def test_page_and_paper_show_it(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    assert "The student report: published figures beside this run" in write_report(folder).read_text(encoding="utf-8")
    files = write_paper(folder, tmp_path / "paper", ("svg",))
    lines = (tmp_path / "paper" / "published-report.csv").read_text(encoding="utf-8").splitlines()
    assert tmp_path / "paper" / "published-report.csv" in files
    assert lines[1].startswith("accuracy,99.60,")
    assert "averages its figures over batches" in (tmp_path / "paper" / "captions.md").read_text(encoding="utf-8")
    assert read_measurement(folder).models
