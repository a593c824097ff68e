import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ball_features.evaluation.uncertainty import group_bootstrap, holm, mcnemar_exact, paired_bootstrap, wilson


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (652, 655), (7, 20)])
def test_wilson(hits, count):
    assert wilson(hits / count, count) == pytest.approx(proportion_confint(hits, count, method="wilson"), abs=1e-12)


def test_holm():
    p = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([]).size == 0


def test_mcnemar():
    rng = np.random.default_rng(0)
    first, second = rng.random(200) < 0.9, rng.random(200) < 0.8
    table = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]
    assert mcnemar_exact(first, second) == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert mcnemar_exact(first, first) == 1.0


def test_bootstrap_of_single_images_is_near_wilson():
    hits = np.repeat([1.0, 0.0], [900, 100])
    low, high = group_bootstrap(hits, np.arange(1000))
    assert (low, high) == pytest.approx(wilson(0.9, 1000), abs=4e-3)


def test_groups_widen_the_interval():
    rng = np.random.default_rng(1)
    hits = np.repeat((rng.random(50) < 0.8).astype(float), 20)  # groups are right or wrong as a whole
    low, high = group_bootstrap(hits, np.repeat(np.arange(50), 20))
    # The exact standard error of a mean of 50 groups.
    assert high - low == pytest.approx(2 * 1.96 * hits.std() / np.sqrt(50), rel=0.15)


def test_no_error_still_has_an_interval():
    low, high = group_bootstrap(np.ones(60), np.repeat(np.arange(20), 3))
    assert (low, high) == wilson(1.0, 20)


def test_paired_bootstrap():
    rng = np.random.default_rng(2)
    same = rng.choice([-1.0, 0.0, 1.0], 400)
    low, high, p = paired_bootstrap(same - same.mean(), np.arange(400))
    assert low < 0 < high
    assert p > 0.5
    low, high, p = paired_bootstrap((rng.random(400) < 0.1).astype(float), np.arange(400))
    assert 0 < low < 0.1 < high
    assert p < 0.01
    assert paired_bootstrap(np.zeros(10), np.arange(10))[2] == 1.0


def test_intervals_of_every_metric_against_a_plain_bootstrap():
    """Drawing groups by hand and scoring each sample with the table's own function gives the same intervals."""
    from ball_features.evaluation.metrics import METRICS, evaluate_predictions
    from ball_features.evaluation.uncertainty import metric_intervals

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 240)
    probability = rng.dirichlet(np.ones(3), 240) + 0.8 * np.eye(3)[truth]
    probability = np.round(probability / probability.sum(1, keepdims=True), 2)  # with ties
    group = rng.integers(0, 60, 240)
    got = metric_intervals(truth, probability, group, draws=300, seed=5)
    names, code = np.unique(group, return_inverse=True)
    counts = np.random.default_rng(5).multinomial(len(names), np.full(len(names), 1 / len(names)), size=300)
    plain = []
    for draw in counts:
        rows = np.repeat(np.arange(240), draw[code])
        plain.append([evaluate_predictions(truth[rows], probability[rows])[name] for name in METRICS])
    low, high = np.quantile(np.array(plain), [0.025, 0.975], axis=0)
    for place, name in enumerate(METRICS):
        assert got[name] == pytest.approx((low[place], high[place]), abs=1e-9), name


def test_no_error_leaves_room_for_one():
    from ball_features.evaluation.uncertainty import metric_intervals

    truth = np.repeat([0, 1], 50)
    probability = np.eye(2)[truth] * 0.9 + 0.05
    got = metric_intervals(truth, probability, np.arange(100))
    assert got["accuracy"] == pytest.approx(wilson(1.0, 100))
    assert got["recall"] == pytest.approx(wilson(1.0, 50))
    assert np.isnan(got["auroc"]).all()
    low, high = got["log_loss"]
    assert low <= high


def test_intervals_of_every_metric_lie_in_the_run(small_cache, tmp_path):
    import csv

    from ball_features import FitConfig, fit

    run = fit(small_cache, FitConfig(models=("logistic", "colour"), repeats=2), out_root=tmp_path)
    with (run.folder / "intervals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    for row in rows:
        if row["low"] and row["low"] != "nan":
            assert (
                float(row["low"]) - 1e-9 <= float(row["value"]) <= float(row["high"]) + 1e-9 or row["metric"] == "ece"
            )
    assert "McNemar p" in (run.folder / "table.md").read_text()
    assert "McNemar p" in (run.folder / "report.html").read_text()
