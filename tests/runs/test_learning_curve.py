"""Learning curves: nested subsets, power laws against SciPy, forecasts that say what they know, the whole command."""

import itertools
import json

import numpy as np
import pytest
from scipy.optimize import curve_fit
from typer.testing import CliRunner

from ball_features import FitConfig
from ball_features.cli import app
from ball_features.dataset.nested import nested_splits
from ball_features.dataset.splits import ImageTable
from ball_features.errors import SplitError
from ball_features.evaluation.curve import say_forecast
from ball_features.evaluation.intervals import share_interval
from ball_features.evaluation.power_law import ForecastRow, draw_errors, fit_law, forecast
from ball_features.files import read_csv
from ball_features.reporting.run_list import list_runs
from ball_features.runs.learning_curve import learning_curve
from tests.made import NAMES, clouds, write_cache


def table(count, label, **columns):
    path = np.array([f"{row:05}.png" for row in range(count)])
    return ImageTable(path, np.array(label), path, **{name: np.array(own) for name, own in columns.items()})


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_subsets_are_nested_whole_and_never_of_the_test_set(unit):
    count = 480
    label = [NAMES[row // 3 % 4] for row in range(count)]
    patient = np.array([f"P{row // 3}" for row in range(count)])
    group = np.array([f"G{row // 2}" for row in range(count)]) if unit == "image" else patient
    images = table(count, label, group=group, together=group)
    nested = nested_splits(FitConfig(repeats=3), images, patient if unit == "patient" else None, unit)
    tests = {tuple(split.test) for split in nested.splits}
    assert len(tests) == 1
    test = set(next(iter(tests)))
    by_seed = {}
    for split in nested.splits:
        own = {*split.train, *split.val}
        assert not own & test
        assert not set(split.train) & set(split.val)
        assert len(split.val)
        for rows in (own, test, set(split.train)):  # whole groups and patients
            held = set(group[list(rows)])
            assert set(np.flatnonzero(np.isin(group, list(held)))) == rows
        by_seed.setdefault(split.repeat, []).append(own)
    for chain in by_seed.values():
        for small, large in itertools.pairwise(chain):
            assert small < large
        shares = np.bincount([row // 3 % 4 for row in chain[len(chain) // 2]]) / len(chain[len(chain) // 2])
        assert shares == pytest.approx(0.25, abs=0.08)
    assert by_seed[0][0] != by_seed[1][0]
    assert by_seed[0][-1] == by_seed[1][-1]
    assert nested.sizes[-1].units == (count - len(test)) / (3 if unit == "patient" else 1)
    assert [size.units for size in nested.sizes] == sorted(size.units for size in nested.sizes)


def test_lost_classes_are_said_and_too_few_units_refused():
    label = ["a"] * 150 + ["b"] * 150 + ["c"] * 3
    nested = nested_splits(FitConfig(repeats=2), table(303, label), None, "image")
    assert any("train on no image of c" in note for note in nested.notes)
    assert nested.sizes[0].lost
    with pytest.raises(SplitError, match="too few patients"):
        patient = np.array([f"P{row % 4}" for row in range(80)])
        nested_splits(FitConfig(), table(80, ["a", "b"] * 40, together=patient), patient, "patient")


def test_the_law_is_that_of_scipy():
    n = 50 * 2.0 ** np.arange(6)
    rng = np.random.default_rng(0)
    error = 0.1 * (n / n[-1]) ** -0.45 + 0.04 + rng.normal(0, 0.001, 6)
    weight = 1 / (error * (1 - error))
    law = fit_law(n, error[None], weight)
    (slope, exponent, floor), _ = curve_fit(
        lambda x, a, b, c: a * (x / n[-1]) ** -b + c, n, error, (0.1, 0.5, 0.01), sigma=weight**-0.5
    )
    assert (law.slope[0], law.exponent[0], law.floor[0]) == pytest.approx((slope, exponent, floor), abs=0.03)
    gain = slope * (1 - 2**-exponent)
    assert law.error(law.whole)[0] - law.error(2 * law.whole)[0] == pytest.approx(gain, abs=0.002)
    flat = fit_law(n, np.full((1, 6), 0.1), np.ones(6))
    assert flat.error(10 * n[-1])[0] == pytest.approx(0.1, abs=1e-6)
    without_floor = fit_law(n, (0.2 * (n / n[-1]) ** -0.5)[None] - 0.001, np.ones(6))
    assert without_floor.floor[0] == 0


def correct(error, seeds=5, tests=500, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(len(error), seeds, tests)) >= np.asarray(error)[:, None, None]


@pytest.mark.slow
def test_forecasts_hold_the_truth_or_say_why_there_is_none():
    n = 64 * 2.0 ** np.arange(6)
    error = 0.06 * (n / n[-1]) ** -0.5 + 0.02
    truth = 0.06 * (1 - 2**-0.5)
    held = 0
    for seed in range(12):
        law = forecast(n.tolist(), correct(error, seed=seed), np.arange(500))
        held += law.reason == "" and law.gain_low <= truth <= law.gain_high
    assert held >= 10
    flat = forecast(n.tolist(), correct(np.full(6, 0.2)), np.arange(500))
    assert "does not rise" in flat.reason
    assert flat.last_low <= 0 <= flat.last_high
    few = forecast(n[:3].tolist(), correct(error[:3]), np.arange(500))
    assert "too few" in few.reason
    bent = forecast(n.tolist(), correct([0.5, 0.5, 0.5, 0.5, 0.05, 0.5], tests=5000), np.arange(5000))
    assert bent.reason


def test_draws_scatter_as_the_test_units_do():
    hits = np.repeat(correct([0.3], seeds=1, tests=100), 1, axis=1)
    drawn = draw_errors(hits, np.arange(100), draws=4000)[:, 0]
    assert drawn.std() == pytest.approx(np.sqrt(hits.mean() * (1 - hits.mean()) / 100), rel=0.06)
    whole = draw_errors(hits, np.arange(100) // 50, draws=500)[:, 0]
    assert len(np.unique(whole.round(9))) <= 3
    plain, wider = (share_interval(hits[0, 0], np.arange(100), variance=own) for own in (0.0, 0.01))
    assert wider[0] < plain[0]
    assert wider[1] > plain[1]


def test_sentences():
    row = ForecastRow("mlp", "patient", 71, 9, "", 5, gain=0.021, gain_low=0.004, gain_high=0.05,
                      last_gain=0.03, last_low=-0.00001, last_high=0.06)  # fmt: skip
    assert say_forecast(row) == (
        "mlp: twice the patients (142 instead of 71) would bring about +2.1 (0.4 to 5.0) points of accuracy, if the "
        "power law holds; the last doubling brought +3.0 (0.0 to 6.0) points."
    )
    none = ForecastRow("mlp", "image", 71, 9, "3 sizes are too few for a law of three numbers", 0)
    assert say_forecast(none).startswith("mlp: no forecast, since 3 sizes are too few")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """80 patients of four images, each with an offset of its own."""
    numbers, label = clouds(80, dim=8, distance=0.8)
    patient = np.arange(len(label)) // 4
    numbers = numbers + np.random.default_rng(5).normal(size=(patient.max() + 1, 8))[patient]
    columns = {"patient": [f"P{own}" for own in patient], "site": [f"S{own % 3}" for own in patient]}
    return write_cache(tmp_path_factory.mktemp("made") / "own.h5", numbers, label, columns)


@pytest.mark.slow
def test_the_command(made, tmp_path):
    words = ["fit", str(made), "--protocol", "learning-curve", "--models", "logistic,knn", "--repeats", "3"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path), "--name", "c", "--note", "first try"])
    assert done.exit_code == 0, done.output
    assert "logistic: twice the patients (128 instead of 64)" in done.output or "no forecast" in done.output
    folder = tmp_path / "c"
    assert {"curve.csv", "forecast.csv", "splits.csv", "predictions.csv", "run.json", "report.html"} <= {
        path.name for path in folder.iterdir()
    }
    rows = list(read_csv(folder / "curve.csv"))
    predictions = list(read_csv(folder / "predictions.csv"))
    for row in rows:
        own = [item for item in predictions if (item["model"], item["fold"]) == (row["model"], row["size"])]
        assert float(row["accuracy"]) == pytest.approx(np.mean([item["predicted"] == item["label"] for item in own]))
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
    page = (folder / "report.html").read_text()
    assert "Learning curve" in page
    assert "<svg" in page
    assert "Note: first try" in page
    (folder / "report.html").unlink()
    again = CliRunner().invoke(app, ["report", str(folder)])
    assert again.exit_code == 0, again.output
    assert (folder / "report.html").exists()
    (run,) = list_runs(tmp_path).runs
    assert (run.protocol, run.note) == ("learning-curve", "first try")
    assert run.accuracy == max(float(row["accuracy"]) for row in rows if row["size"] == rows[-1]["size"])
    joint = CliRunner().invoke(app, ["report", str(folder), str(folder), "--out", str(tmp_path / "two.html")])
    assert joint.exit_code == 0, joint.output


@pytest.mark.slow
def test_units_follow_from_the_columns_and_wrong_use_is_refused(made, tmp_path):
    config = FitConfig(models=("logistic",), repeats=2, protocol="learning-curve")
    by_patient = learning_curve(made, config, out_root=tmp_path)
    assert {row.unit for row in by_patient.rows} == {"patient"}
    numbers, label = clouds(60)
    sites = {"site": [f"S{row % 3}" for row in range(240)]}
    other = write_cache(tmp_path / "sites.h5", numbers, label, sites)
    by_image = learning_curve(other, config, out_root=tmp_path)
    assert {row.unit for row in by_image.rows} == {"image"}
    assert any("3 sites are too few" in note for note in by_image.notes)
    many = write_cache(tmp_path / "many.h5", numbers, label, {"site": [f"S{row // 4 % 15}" for row in range(240)]})
    by_site = learning_curve(many, config, out_root=tmp_path)
    assert {row.unit for row in by_site.rows} == {"site"}
    assert by_site.rows[-1].units == 12
    words = ["fit", str(made), "--protocol", "learning-curve", "--out", str(tmp_path)]
    for more in (["--save", "best"], ["--folds", "3"], ["--adapt", "mean"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code != 0
    details = json.loads((by_site.folder / "run.json").read_text())
    assert details["command"].startswith("ball fit")


@pytest.mark.parametrize("seed", [1, 3])
def test_units_of_very_unequal_size_leave_no_part_empty(seed):
    """A subset of one large unit has none to validate on, and the next one is empty: the curve ends before."""
    sizes = [55, 13, 12, 9, 8, 7, 5, 5, 4] + [2] * 32
    unit = np.repeat([f"U{number}" for number in range(len(sizes))], sizes)
    label = np.random.default_rng(seed).integers(0, 4, len(unit)).astype(str)
    nested = nested_splits(FitConfig(repeats=3), table(len(unit), label, together=unit), None, "image")
    assert len(nested.splits) == 3 * len(nested.sizes)
    assert all(len(split.train) and len(split.val) for split in nested.splits)
