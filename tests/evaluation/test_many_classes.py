"""Many classes: what is computed faster equals the usual way, and what takes too long is left out with a reason."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, _class_cov
from sklearn.pipeline import make_pipeline

from ball_features.bundles.skops_files import scikit_learn_parts
from ball_features.config import FitConfig
from ball_features.evaluation.drawn_areas import areas_by_pairs, areas_by_rank
from ball_features.evaluation.metrics import METRICS, evaluate_predictions
from ball_features.evaluation.pooled import Pooled
from ball_features.evaluation.resampling import Draws
from ball_features.evaluation.results import ModelRow
from ball_features.files import json_text
from ball_features.models import shrunk
from ball_features.models.registry import MODELS
from ball_features.reporting.dots import recalls
from ball_features.reporting.heat import DRAWN_CLASSES, heat
from ball_features.reporting.stored_run import read_stored_run
from ball_features.reporting.words import left_out_note
from ball_features.runs.fit import fit
from tests.made import write_cache


def predictions(classes, tests, seed=0, digits=1):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, tests)
    probability = rng.random((tests, classes)).round(digits) + 0.01  # with ties
    return truth, probability / probability.sum(1, keepdims=True), rng


@pytest.mark.parametrize(("classes", "tests", "groups"), [(2, 30, 30), (3, 50, 7), (40, 60, 20), (100, 90, 90)])
def test_areas_by_pairs_and_by_rank_are_equal_to_the_last_bit(classes, tests, groups):
    truth, probability, rng = predictions(classes, tests)
    draws = Draws.of(Pooled(truth, probability), rng.integers(0, groups, tests), {}, 50, 0)
    weights = draws.weights(50)
    both = [areas(truth, probability, draws.group, weights) for areas in (areas_by_rank, areas_by_pairs)]
    assert (both[0] == both[1]).all()


def test_counts_of_samples_are_those_of_confusion_matrices():
    truth, probability, rng = predictions(5, 40)
    pooled = Pooled(truth, probability)
    draws = Draws.of(pooled, rng.integers(0, 12, 40), {}, 20, 3)
    for row, weight in enumerate(draws.weights(20)):
        matrix = np.zeros((5, 5))
        np.add.at(matrix, (truth, pooled.predicted), weight[draws.group])
        assert (draws.hits[row] == np.diag(matrix)).all()
        assert (draws.support[row] == matrix.sum(1)).all()
        assert (draws.called[row] == matrix.sum(0)).all()
        assert draws.total[row] == matrix.sum()


def clouds(classes, rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    code = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    X = rng.normal(size=(rows, columns)) * rng.random(columns) + rng.normal(size=(classes, columns))[code]
    X[:, 1], X[code == 0, 2] = 1.7, 0.3  # a column that never varies, and one that does not within a class
    return X, code


@pytest.mark.filterwarnings("ignore:Only one sample")  # as the class of one row is meant
@pytest.mark.parametrize(("classes", "rows", "columns"), [(2, 40, 8), (9, 30, 40), (20, 30, 12)])
def test_covariance_of_all_classes_at_once(classes, rows, columns):
    X, code = clouds(classes, rows, columns)
    priors = np.bincount(code) / rows
    assert np.allclose(shrunk.class_covariance(X, code, priors), _class_cov(X, code, priors, "auto"), atol=1e-12)


@pytest.mark.parametrize("priors", [None, np.full(9, 1 / 9)])
def test_discriminant_of_many_classes_is_that_of_scikit_learn(monkeypatch, priors):
    X, code = clouds(9, 60, 12)
    names = np.array([f"class {number}" for number in range(9)])[code]
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=priors).fit(X, names)
    few = shrunk.ShrunkDiscriminant(priors).fit(X, names)
    assert (few.coef_ == expected.coef_).all()
    monkeypatch.setattr(shrunk, "CLASSES_ONE_BY_ONE", 4)
    many = shrunk.ShrunkDiscriminant(priors).fit(X, names)
    assert np.allclose(many.predict_proba(X), expected.predict_proba(X), atol=1e-9)
    stored = scikit_learn_parts(make_pipeline(many))
    assert type(stored[-1]) is LinearDiscriminantAnalysis
    assert (stored.predict_proba(X) == many.predict_proba(X)).all()


@pytest.mark.parametrize(("classes", "trees"), [(2, 200), (100, 200), (400, 50), (1000, 20), (5000, 20)])
def test_forests_of_many_classes_have_fewer_trees(classes, trees):
    model = MODELS["colour"]
    estimator = model.build(0, FitConfig().head)
    model.fewer_trees(estimator, classes)
    assert estimator.n_estimators == trees


def test_models_that_take_long_are_fitted_by_name():
    counts = {f"class {number}": 5 for number in range(31)}
    for name in ("xgboost", "hist-gradient-boosting"):
        reason = MODELS[name].obstacle(counts, named=False)
        assert reason.startswith(f"{name} grows a tree for each class in each of its rounds, which takes long for 31")
        assert not MODELS[name].obstacle(counts)
    assert MODELS["linear-svm"].obstacle(counts, named=False) == ""
    assert left_out_note({"xgboost": reason, "knn": "ValueError: no"}).endswith("fitted. knn: ValueError: no")
    assert left_out_note({}) == ""


@pytest.mark.parametrize("classes", [3, 101])
def test_confusion_matrices_are_stored_briefly(classes):
    truth, probability, _ = predictions(classes, 300)
    scores = evaluate_predictions(truth, probability)
    row = ModelRow("knn", "baseline", scores.values, {}, 0.0, 0.0, confusion=scores.confusion.tolist())
    text = json_text(row)
    assert ModelRow.from_dict(json.loads(text), len(row.confusion)).confusion == row.confusion
    assert len(text) < 40_000


def test_figures_of_many_classes_show_the_worst():
    rng = np.random.default_rng(0)
    counts = np.diag(rng.integers(1, 9, 150))
    counts[3, 7] = 5
    names = [f"class {number}" for number in range(150)]
    drawn = heat(counts, names, "knn")
    assert len(drawn.rows) == len(drawn.names) == DRAWN_CLASSES
    assert {"class 3", "class 7"} <= set(drawn.names)
    assert "100 of 150 classes with the most errors" in drawn.title
    assert drawn.frequent is not None
    assert [cell.text for cell in drawn.frequent.rows[0].cells[:3]] == ["class 3", "class 7", "5"]
    shares = [(name, number / 150, 0.0, 1.0) for number, name in enumerate(reversed(names))]
    chart = recalls(shares, "recall")
    assert len(chart.marks) == 100
    assert max(mark.x for mark in chart.marks) == pytest.approx(100 * 99 / 150)
    assert "100 lowest of 150" in chart.title


@pytest.mark.slow  # several files of 301 classes
def test_a_run_of_many_classes(tmp_path):
    """Each file is written and read back; models that take too long are named below the table."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(301), 4)
    centre = rng.normal(size=(301, 24)) * 3
    path = write_cache(tmp_path / "c.h5", centre[code] + rng.normal(size=(len(code), 24)), [f"k{own}" for own in code])
    config = replace(FitConfig(), models=("knn", "lda", "colour", "linear-svm"), repeats=1)
    run = fit(path, config, out_root=tmp_path, name="r")
    assert [row["model"] for row in run.metrics] == ["lda", "knn", "colour"]
    read_stored_run(run.folder)  # refused where the predictions do not give the table
    text = (run.folder / "table.md").read_text()
    assert "Not in the table: linear-svm compares each pair of classes, and takes at most 300 classes, got 301." in text
    assert "and 289 more" in text
    assert len((run.folder / "verdict.json").read_text()) < 8_000
    assert (run.folder / "report.html").stat().st_size < 3_000_000
    assert (run.folder / "metrics.json").stat().st_size < 1_500_000
    assert set(METRICS) <= set((run.folder / "metrics.csv").read_text().split("\n")[0].split(","))
