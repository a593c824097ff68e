import numpy as np
import pytest
from scipy.stats import norm, permutation_test, t
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ball_features.evaluation import auroc, resampling
from ball_features.evaluation.intervals import metric_intervals, share_interval, wilson
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.paired_tests import corrected_best, holm, mcnemar_exact, paired_bootstrap


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (652, 655), (7, 20)])
def test_wilson(hits, count):
    assert wilson(hits / count, count) == pytest.approx(proportion_confint(hits, count, method="wilson"), abs=1e-12)


@pytest.mark.slow
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


def test_single_images_are_near_wilson():
    hits = np.repeat([1.0, 0.0], [900, 100])
    assert share_interval(hits, np.arange(1000)) == pytest.approx(wilson(0.9, 1000), abs=2e-4)
    twice = share_interval(np.tile(hits, 2), np.tile(np.arange(1000), 2), images=1000)
    assert twice == pytest.approx(wilson(0.9, 1000), abs=2e-4)  # an image tested again is no news


def test_groups_widen_the_interval():
    rng = np.random.default_rng(1)
    hits = np.repeat((rng.random(50) < 0.8).astype(float), 20)  # groups are right or wrong as a whole
    low, high = share_interval(hits, np.repeat(np.arange(50), 20))
    assert (low, high) == pytest.approx(wilson(hits.mean(), 49 * (norm.ppf(0.975) / t.ppf(0.975, 49)) ** 2), abs=1e-9)


def test_an_interval_by_hand():
    hits, group = np.array([1, 1, 0, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 2])
    # Shares 2/3, 1/2 and 0 of 3, 2 and 1: residuals 0.5, 0, -0.5, so variance 1.88 * 0.5 / 36 and 9.6 effective images.
    expected = wilson(0.5, 6 * (norm.ppf(0.975) / t.ppf(0.975, 2)) ** 2)
    assert share_interval(hits, group, images=6) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size"), [(8, 40), (200, 3)])
def test_coverage_where_groups_err_together(groups, size):
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(groups), size)
    covered = 0
    for _ in range(600):
        chance = rng.beta(9, 1, groups)  # of each group, 0.9 on average
        low, high = share_interval(rng.random(len(group)) < chance[group], group)
        covered += low <= 0.9 <= high
    assert covered / 600 >= 0.93


@pytest.mark.slow
def test_coverage_where_groups_are_of_unequal_size():
    """Groups a few times as large as others leave the coverage near 95 %; by G / (G - 1) alone it is 90 here."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(1500):
        size = np.maximum(3, rng.lognormal(np.log(60), 0.8, 5)).astype(int)
        group = np.repeat(np.arange(5), size)
        low, high = share_interval(rng.random(len(group)) < rng.beta(8, 2, 5)[group], group)
        covered += low <= 0.8 <= high
    assert covered / 1500 >= 0.925


@pytest.mark.parametrize("size", [(5, 5), (300, 1200, 350), (1, 2, 3, 4, 90)])
def test_the_scatter_of_groups_has_no_bias(size):
    weight = np.array(size) / sum(size)
    about = np.eye(len(size)) - weight  # the deviation of each group from the mean
    seen = np.trace(about.T @ np.diag(weight**2) @ about)  # expected, of groups of variance 1
    assert resampling.variance_factor(np.array(size)) == pytest.approx(weight @ weight / seen)
    assert resampling.variance_factor(np.ones(7)) == pytest.approx(7 / 6)


def test_no_error_and_no_hit_still_have_an_interval():
    group = np.repeat(np.arange(20), 3)
    low, high = share_interval(np.ones(60), group)
    assert (low, high) == wilson(1.0, 20 * (norm.ppf(0.975) / t.ppf(0.975, 19)) ** 2)
    assert share_interval(np.zeros(60), group) == pytest.approx((1 - high, 1 - low))
    low, high = share_interval(np.ones(60), np.zeros(60))  # one group tells as much as one image
    assert (low, high) == wilson(1.0, 1)


def test_the_best_of_equals_is_no_better():
    """Forty models that are right on four images of five, whatever the table says of the first."""
    seen, found = [], []
    for seed in range(20):
        share = (np.random.default_rng(seed).random((200, 40)) < 0.8).astype(float)
        seen.append(share.mean(0).max())
        accuracy, low, high = corrected_best(share, np.ones(200), np.arange(200), draws=200)
        assert low < accuracy < high
        found.append(accuracy)
    assert np.mean(seen) > 0.85
    assert np.mean(found) == pytest.approx(0.8, abs=0.01)


def test_the_best_by_far_keeps_its_figure():
    rng = np.random.default_rng(4)
    tests = rng.integers(1, 4, 300)
    right = np.column_stack([rng.binomial(tests, chance) for chance in (0.5, 0.95, 0.6)])
    group = np.repeat(np.arange(100), 3)
    accuracy, low, high = corrected_best(right, tests, group)
    share = right[:, 1].sum() / tests.sum()
    assert accuracy == pytest.approx(share, abs=0.005)
    assert low < share < high
    # The same by loops, for a few draws.
    expected = []
    for times in np.random.default_rng(0).multinomial(100, np.full(100, 0.01), size=5):
        own = np.repeat(times, 3)
        best = max(range(3), key=lambda model: (own * right[:, model]).sum())
        expected.append(right[own == 0, best].sum() / tests[own == 0].sum())
    assert corrected_best(right, tests, group, draws=5)[0] == pytest.approx(np.mean(expected))
    assert np.isnan(corrected_best(right, tests, np.zeros(300))[0])


def test_paired_bootstrap():
    rng = np.random.default_rng(2)
    same = rng.choice([-1.0, 0.0, 1.0], 400)
    low, high, p = paired_bootstrap(same - same.mean(), np.arange(400))
    assert low < 0 < high
    assert p > 0.5
    low, high, p = paired_bootstrap((rng.random(400) < 0.1).astype(float), np.arange(400))
    assert 0 < low < 0.1 < high
    assert p <= 0.001
    assert paired_bootstrap(np.zeros(10), np.arange(10))[2] == 1.0
    assert paired_bootstrap(np.ones(10), np.zeros(10))[2] == 1.0
    assert paired_bootstrap(np.ones(10), np.repeat([0, 1], 5))[2] == 0.5


def test_an_image_tested_twice_counts_twice():
    rng = np.random.default_rng(6)
    tests = rng.integers(1, 4, 400)
    right = np.column_stack([rng.binomial(tests, chance) for chance in (0.95, 0.9)])
    difference, group = right[:, 0] - right[:, 1], np.arange(400) // 2
    low, high, p = paired_bootstrap(difference, group, tests=tests)
    # The same by images of one test each, a test an entry: nothing is averaged before it is pooled.
    place = np.repeat(np.arange(400), tests)
    number = np.arange(len(place)) - np.repeat(np.cumsum(tests) - tests, tests)
    each = (number < right[place, 0]).astype(float) - (number < right[place, 1])
    assert (low, high, p) == pytest.approx(paired_bootstrap(each, group[place]))
    assert low < difference.sum() / tests.sum() < high


def test_drawing_in_blocks_changes_nothing(monkeypatch):
    from ball_features.evaluation import resampling

    rng = np.random.default_rng(8)
    truth, group = rng.integers(0, 3, 120), rng.integers(0, 40, 120)
    probability = rng.dirichlet(np.ones(3), 120)
    difference, right = rng.choice([-1.0, 0.0, 1.0], 120), rng.integers(0, 2, (120, 3))

    def every():
        yield from metric_intervals(truth, probability, group, draws=50).values()
        yield paired_bootstrap(difference, group, draws=50)
        yield corrected_best(right, np.ones(120), group, draws=50)

    whole = list(every())
    monkeypatch.setattr(resampling, "CELLS", 300)
    monkeypatch.setattr(resampling, "_KEPT", 300)
    for one, two in zip(whole, every(), strict=True):
        assert one == pytest.approx(two, nan_ok=True)


@pytest.mark.slow
def test_many_images_are_resampled_in_little_memory():
    import tracemalloc

    tracemalloc.start()
    paired_bootstrap(np.ones(60_000), np.arange(60_000), draws=200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 130e6  # the draws alone would be 96 MB, twice


@pytest.mark.parametrize("groups", [3, 9, 30])
def test_signs_turned_against_scipy(groups):
    rng = np.random.default_rng(groups)
    group = np.repeat(np.arange(groups), 7)
    difference = rng.choice([-1.0, 0.0, 1.0], len(group), p=[0.2, 0.4, 0.4])
    total = np.bincount(group, difference)
    expected = permutation_test((total,), np.sum, permutation_type="samples", n_resamples=9999, rng=0).pvalue
    assert paired_bootstrap(difference, group)[2] == pytest.approx(expected, abs=1e-12 if groups < 12 else 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [3, 5, 9])
def test_few_groups_claim_no_difference_too_often(groups):
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(groups), 20)
    claimed = 0
    for _ in range(400):
        difference = rng.normal(size=groups)[group] + rng.normal(size=len(group))
        claimed += paired_bootstrap(difference, group, draws=50)[2] <= 0.05
    assert claimed / 400 <= 0.07


@pytest.mark.slow
def test_intervals_of_every_metric_against_a_plain_bootstrap():
    """Drawing groups by hand and scoring each sample with the table's own function gives the same intervals."""
    from ball_features.evaluation.metrics import METRICS, evaluate_predictions

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 240)
    probability = rng.dirichlet(np.ones(3), 240) + 0.8 * np.eye(3)[truth]
    probability = np.round(probability / probability.sum(1, keepdims=True), 2)  # with ties
    group = rng.integers(0, 60, 240)
    got = metric_intervals(truth, probability, group, draws=20, seed=5)
    names, code = np.unique(group, return_inverse=True)
    counts = np.random.default_rng(5).multinomial(len(names), np.full(len(names), 1 / len(names)), size=20)
    plain = []
    for draw in counts:
        rows = np.repeat(np.arange(240), draw[code])
        plain.append([evaluate_predictions(truth[rows], probability[rows]).values[name] for name in METRICS])
    weight = np.bincount(code) / 240
    about = np.eye(len(names)) - weight
    factor = weight @ weight / np.trace(about.T @ np.diag(weight**2) @ about)  # Bell and McCaffrey 2002
    tail = norm.cdf(-np.sqrt(factor) * t.ppf(0.975, len(names) - 1))  # Hesterberg 2015
    low, high = np.quantile(np.array(plain), [tail, 1 - tail], axis=0)
    for place, name in enumerate(METRICS):
        near = 0.03 if name == "accuracy" else 1e-9  # a score interval, not the bootstrap's
        assert got[name] == pytest.approx((low[place], high[place]), abs=near), name


@pytest.mark.slow
@pytest.mark.parametrize("groups", [6, 9, 100])
def test_the_bootstrap_of_few_groups_covers(groups):
    """Differences that scatter by group: 95 % intervals hold the truth about so often, where plain ones do not."""
    rng = np.random.default_rng(7)
    group = np.repeat(np.arange(groups), 10)
    held = plain = 0
    for _ in range(300):
        difference = rng.normal(size=groups)[group] + 0.3 * rng.normal(size=len(group))
        low, high, _ = paired_bootstrap(difference, group, draws=1000)
        held += low <= 0 <= high
        means = np.bincount(group, difference) / 10
        drawn = means[rng.integers(0, groups, (1000, groups))].mean(1)
        plain += np.quantile(drawn, 0.025) <= 0 <= np.quantile(drawn, 0.975)
    assert held / 300 >= 0.925
    if groups < 10:
        assert plain / 300 < 0.92


def test_no_error_leaves_room_for_one():
    truth = np.repeat([0, 1], 50)
    probability = np.eye(2)[truth] * 0.9 + 0.05
    got = metric_intervals(truth, probability, np.arange(100))
    assert got["accuracy"] == share_interval(np.ones(100), np.arange(100))
    assert got["recall"] == share_interval(np.ones(50), np.arange(50))
    wrong = metric_intervals(truth, probability[::-1], np.arange(100))
    assert wrong["recall"] == share_interval(np.zeros(50), np.arange(50))
    assert np.isnan(got["auroc"]).all()
    low, high = got["log_loss"]
    assert low <= high


@pytest.mark.slow
def test_intervals_of_every_metric_lie_in_the_run(small_cache, tmp_path):
    import csv

    from ball_features import FitConfig, fit

    run = fit(small_cache, FitConfig(models=("logistic", "colour"), repeats=2), out_root=tmp_path)
    with (run.folder / "intervals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(own.model, name) for own in run.metrics for name in METRICS]
    assert [(row["model"], row["metric"]) for row in rows] == expected
    for row in rows:
        if row["low"] and row["low"] != "nan":
            assert (
                float(row["low"]) - 1e-9 <= float(row["value"]) <= float(row["high"]) + 1e-9 or row["metric"] == "ece"
            )
    assert "McNemar p" in (run.folder / "table.md").read_text()
    assert "McNemar p" in (run.folder / "report.html").read_text()


@pytest.mark.slow
def test_many_groups_joined_at_random_give_the_intervals_of_all(monkeypatch):
    """5,000 groups of four images, joined into 1,000: the widths agree to some percent, the estimates are untouched."""
    rng = np.random.default_rng(0)
    truth, group = rng.integers(4, size=20_000), rng.integers(5000, size=20_000)
    odds = np.exp(rng.normal(size=(20_000, 4)) + 2 * np.eye(4)[truth] + rng.normal(size=(5000, 4))[group] / 2)
    probability = odds / odds.sum(1, keepdims=True)
    usual = metric_intervals(truth, probability, group)
    hit = probability.argmax(1) == truth
    worse = hit & (rng.random(20_000) < 0.997)
    paired = paired_bootstrap(hit.astype(int) - worse, group)
    monkeypatch.setattr(resampling, "MOST_GROUPS", 1000)
    joined = metric_intervals(truth, probability, group)
    for name, (low, high) in usual.items():
        assert joined[name][1] - joined[name][0] == pytest.approx(high - low, rel=0.2)
        assert sum(joined[name]) == pytest.approx(low + high, abs=(high - low) / 3)
    low, high, p = paired_bootstrap(hit.astype(int) - worse, group)
    assert high - low == pytest.approx(paired[1] - paired[0], rel=0.2)
    assert p < 0.01 and paired[2] < 0.01


def test_the_auroc_of_many_tests_has_the_interval_of_the_weighted_areas(monkeypatch):
    rng = np.random.default_rng(1)
    truth, group = rng.integers(3, size=3000), rng.integers(300, size=3000)
    odds = np.exp(rng.normal(size=(3000, 3)) + np.eye(3)[truth] + rng.normal(size=(300, 3))[group] / 2)
    probability = np.round(odds / odds.sum(1, keepdims=True), 2)  # with ties
    usual = metric_intervals(truth, probability, group)["auroc"]
    monkeypatch.setattr(auroc, "_LINEAR_FROM", 100)
    found = metric_intervals(truth, probability, group)["auroc"]
    assert found == pytest.approx(usual, abs=0.1 * (usual[1] - usual[0]))
