"""What a run says of sites and of distance, in its files and on its page."""

from itertools import pairwise

import numpy as np
import pytest

from ball_features import fit
from ball_features.config import FitConfig
from ball_features.evaluation.elsewhere_rows import DistanceRow, SiteRow
from ball_features.evaluation.rows import read_rows
from tests.made import clouds, write_cache

CONFIG = FitConfig(protocol="leave-site-out", models=("logistic", "lda"), repeats=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    X, label = clouds(78, distance=2.0)
    site = np.arange(len(label)) % 3
    X = X + 3 * np.random.default_rng(1).normal(size=(3, X.shape[1]))[site]
    cache = write_cache(folder / "c.h5", X, label, {"site": [f"s{own}" for own in site]})
    return fit(cache, CONFIG, out_root=folder, name="run"), cache


def test_the_run_measures_what_views_tell_of_the_site(run):
    (row,) = read_rows(run[0].folder / "sites.csv", SiteRow)
    assert (row.view, row.images, row.sites) == ("plain", 312, 3)
    assert row.site_accuracy > 0.9 > row.adapted_site_accuracy
    assert row.adapted_index > row.index
    assert row.chance_accuracy == pytest.approx(1 / 3)


def test_accuracy_by_distance_counts_every_prediction_once(run):
    rows = read_rows(run[0].folder / "distances.csv", DistanceRow)
    assert {row.model for row in rows} == {"logistic", "lda"}
    for model in ("logistic", "lda"):
        own = [row for row in rows if row.model == model]
        assert sum(row.images for row in own) == 312
        assert all(one.high <= other.low for one, other in pairwise(own))
        pooled = sum(row.images * row.accuracy for row in own) / 312
        assert pooled == pytest.approx(next(row.accuracy for row in run[0].metrics if row.model == model))


def test_the_page_shows_both(run):
    page = (run[0].folder / "report.html").read_text(encoding="utf-8")
    assert "What the embeddings tell of the site" in page
    assert "Accuracy by distance to the training images" in page


@pytest.mark.slow
def test_a_random_split_without_sites_has_neither(tmp_path):
    X, label = clouds(20)
    run = fit(write_cache(tmp_path / "c.h5", X, label), FitConfig(models=("logistic",), repeats=1), out_root=tmp_path)
    assert not (run.folder / "sites.csv").exists() and not (run.folder / "distances.csv").exists()
    assert "What the embeddings tell of the site" not in (run.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_many_sites_are_not_named_by_a_linear_model(tmp_path):
    X, label = clouds(30)
    sites = [f"s{own % 24}" for own in range(len(label))]
    cache = write_cache(tmp_path / "c.h5", X, label, {"site": sites})
    run = fit(cache, FitConfig(models=("logistic",), repeats=1), out_root=tmp_path)
    (row,) = read_rows(run.folder / "sites.csv", SiteRow)
    assert np.isnan(row.site_accuracy) and 0 <= row.index <= 1
