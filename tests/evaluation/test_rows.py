"""Records of results: what is written is what is read, and one entry makes a metric."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ball_features import FitConfig, fit, read_run
from ball_features.errors import DataError
from ball_features.evaluation.intervals import metric_intervals
from ball_features.evaluation.metrics import METRICS, Metric, evaluate_predictions
from ball_features.evaluation.results import Measurement, ModelRow
from ball_features.evaluation.rows import GroupRow, TrialRow, read_rows, write_rows
from ball_features.evaluation.stored_results import read_measurement
from ball_features.files import json_text, read_csv, write_csv

GROUP = GroupRow("mlp", "a, b\r\nc", 12, 0.25, 0.1, 1 / 3, 'Pre "12"', None, 0.5)


def test_rows_survive_a_file(tmp_path):
    rows = [GROUP, replace(GROUP, group="", benign_malignant=0.1, flip_rate=None), replace(GROUP, recall=math.nan)]
    write_rows(tmp_path / "a.csv", rows)
    found = read_rows(tmp_path / "a.csv", GroupRow)
    assert found[:2] == rows[:2]
    assert math.isnan(found[2].recall)
    assert read_rows(tmp_path / "none.csv", GroupRow) == []
    trial = TrialRow(1, 0.1, 0.9, 40, 12, "64,64", 1e-4, 1e-5, 0.2, 16, None, "none", "all", "plain")
    write_rows(tmp_path / "b.csv", [trial])
    assert read_rows(tmp_path / "b.csv", TrialRow) == [trial]


def test_older_tables_lack_columns_and_newer_ones_have_more(tmp_path):
    (tmp_path / "a.csv").write_text(
        "model,group,images,recall,recall_low,recall_high,taken_for,later\nm,g,3,1,0,1,,x\n"
    )
    assert read_rows(tmp_path / "a.csv", GroupRow) == [GroupRow("m", "g", 3, 1.0, 0.0, 1.0, "")]
    (tmp_path / "a.csv").write_text("model,group\nm,g\n")
    with pytest.raises(KeyError, match="images"):
        read_rows(tmp_path / "a.csv", GroupRow)


@pytest.mark.parametrize("cell", ["x\ry", "x\ny", "x\r\ny", 'a"b', "a,b", "", " x ", "\r"])
def test_any_text_survives_a_csv_file(tmp_path, cell):
    write_csv(tmp_path / "a.csv", ("path", "number"), [(cell, 1), ("next", 2.5)])
    assert [list(row.values()) for row in read_csv(tmp_path / "a.csv")] == [[cell, "1"], ["next", "2.5"]]


def drawn(images=200, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    probability = rng.dirichlet(np.ones(classes), images) + 0.5 * np.eye(classes)[truth]
    return truth, probability / probability.sum(1, keepdims=True)


def test_texts_of_metrics():
    assert METRICS["accuracy"].text(0.98765) == "98.77"
    assert METRICS["recall"].text(0.98765) == "98.8"
    assert METRICS["recall"].text(0.98765, 2) == "98.77"
    assert METRICS["log_loss"].text(0.12345) == "0.123"
    assert METRICS["log_loss"].text(None) == METRICS["log_loss"].text(math.nan) == "n/a"
    assert METRICS["accuracy"].interval_text((0.9, 0.99), 1) == "90.0 - 99.0"
    assert METRICS["auroc"].interval_text((0.9, math.nan)) == "n/a"
    assert {name for name, metric in METRICS.items() if not metric.higher_is_better} == {"log_loss", "ece"}


@pytest.mark.slow
def test_a_new_metric_is_one_entry(small_cache, tmp_path, monkeypatch):
    """Its column, its interval, its details, and the page follow."""
    accuracy_of_worst = Metric(
        name="worst_recall", heading="worst", digits=1, percent=True, higher_is_better=True, rank=0,
        pooled=lambda own: float(np.nanmin(own.rates["recall"])),
        drawn=lambda draws: np.nanmin(draws.hits / np.maximum(draws.support, 1), axis=1),
    )  # fmt: skip
    monkeypatch.setitem(METRICS, "worst_recall", accuracy_of_worst)
    truth, probability = drawn()
    scores = evaluate_predictions(truth, probability)
    expected = min((probability.argmax(1) == truth)[truth == code].mean() for code in range(3))
    assert scores.values["worst_recall"] == pytest.approx(expected)
    low, high = metric_intervals(truth, probability, np.arange(200))["worst_recall"]
    assert low < expected < high
    run = fit(small_cache, FitConfig(models=("logistic", "colour"), repeats=1), out_root=tmp_path)
    value = run.metrics[0]["worst_recall"]
    with (run.folder / "metrics.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["worst_recall"]) == value
    with (run.folder / "intervals.csv").open(newline="") as file:
        assert {row["metric"] for row in csv.DictReader(file)} == set(METRICS)
    assert "| worst |" in (run.folder / "table.md").read_text(encoding="utf-8")
    assert read_run(run.folder).metrics == run.metrics
    assert "worst" in "".join(str(column.header) for column in run.table(120).renderables[0].columns)


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=("mlp", "colour", "majority"), repeats=2, head={"epochs": 2})
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"))


def test_a_measurement_survives_its_file(run):
    found = read_measurement(run.folder)
    # NaN is not equal to itself, so that the texts are compared.
    assert json_text(found.models) == json_text(run.metrics)
    assert json.loads((run.folder / "metrics.json").read_text()) == json.loads(json_text(found))
    assert math.isnan(next(row for row in found.models if row.model == "majority").values["mcc"])


def test_any_column_of_a_row_can_be_read(run):
    row = run.metrics[0]
    assert row["model"] == row.model
    assert row["log_loss"] == row.values["log_loss"]
    assert (row["accuracy_low"], row["accuracy_high"]) == row.intervals["accuracy"]
    assert set(ModelRow.columns()) < set(row.to_dict())
    with pytest.raises(KeyError, match="expected one of: model, kind, accuracy"):
        row["acuracy"]


def test_a_run_of_an_older_version_is_read(run, tmp_path):
    """Version 0.1.0 began without intervals, units, tests against the best and the corrected best."""
    values = json.loads((run.folder / "metrics.json").read_text())
    for name in ("units", "best_of"):
        values.pop(name, None)
    for row in values["models"]:
        for name in ("intervals", "behind_best", "behind_low", "behind_high", "mcnemar_p_against_best"):
            row.pop(name, None)
        del row["ece"]  # as if that metric had been added since
    found = Measurement.from_dict(values)
    assert [row["accuracy_low"] for row in found.models] == [row["accuracy_low"] for row in run.metrics]
    assert (found.units, found.best_of) == (0, None)
    assert all(math.isnan(row.values["ece"]) for row in found.models)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"classes": [], "models": [{}]}', '{"classes": 3, "models": 3}']
)
def test_a_damaged_file_is_no_run(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(DataError, match="holds no run"):
        read_measurement(tmp_path)
