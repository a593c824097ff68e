"""Measures of sites against independent computations and constructed embeddings."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from sklearn.neighbors import NearestNeighbors

from ball_features import ExtractConfig, extract, read_cache
from ball_features.errors import DataError
from ball_features.evaluation.site_measures import measure_sites, robustness_index, site_accuracy
from ball_features.reporting.site_table import measure_cache, render_sites
from tests.commands import ball


def drawn(class_step, site_step, images=240, seed=0):
    """Embeddings with an offset for each of 3 classes and each of 2 sites."""
    rng = np.random.default_rng(seed)
    label, site = rng.integers(0, 3, images), rng.integers(0, 2, images)
    axes = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    X = rng.normal(size=(images, 20)) + class_step * axes[label] + site_step * axes[5 + site]
    return X.astype(np.float32), label, site, np.arange(images)


def test_the_index_agrees_with_scikit_learns_neighbours():
    X, label, site, unit = drawn(2, 2)
    near = NearestNeighbors(n_neighbors=11, metric="cosine").fit(X).kneighbors(X, return_distance=False)[:, 1:]
    of_class = sum((label[row] == label[i]) & (site[row] != site[i]) for i, row in enumerate(near)).sum()
    of_site = sum((label[row] != label[i]) & (site[row] == site[i]) for i, row in enumerate(near)).sum()
    value, low, high = robustness_index(X, label, site, unit, neighbours=10)
    assert value == pytest.approx(of_class / (of_class + of_site))
    assert low < value < high


@pytest.mark.parametrize(("class_step", "site_step", "low", "high"), [(20, 0, 0.99, 1), (0, 20, 0, 0.01)])
def test_the_index_tells_what_neighbours_follow(class_step, site_step, low, high):
    assert low <= robustness_index(*drawn(class_step, site_step))[0] <= high


@pytest.mark.slow
def test_embeddings_that_tell_nothing_have_the_index_of_chance():
    X, label, site, unit = drawn(0, 0, images=600)
    found = measure_sites(X[:, None], ["plain"], label.astype(str), np.where(site, "a", "b"), unit)
    (view,) = found.views
    assert view.index_low <= found.chance_index <= view.index_high
    assert view.site_accuracy == pytest.approx(found.chance_accuracy, abs=0.07)


@pytest.mark.slow
def test_the_offset_of_a_site_is_told_before_and_gone_after_adaptation():
    X, label, site, unit = drawn(3, 8)
    found = measure_sites(np.stack([X, X], 1), ["plain", "again"], label.astype(str), np.where(site, "a", "b"), unit)
    assert found.views[0].index == found.views[1].index
    assert found.views[0].site_accuracy > 0.95
    assert found.views[0].adapted_site_accuracy < 0.65
    assert found.views[0].adapted_index > found.views[0].index + 0.3
    json.dumps(found.to_dict())


@pytest.mark.slow
def test_images_of_a_patient_are_no_neighbours_and_share_a_fold():
    _, label, site, _ = drawn(0, 0, images=60)
    X = np.random.default_rng(1).normal(size=(60, 400)).astype(np.float32)
    X, label, site = (np.concatenate([part, part]) for part in (X, label, site))
    unit = np.tile(np.arange(60), 2)
    copies = robustness_index(X, label, site, np.arange(120), neighbours=1)[0]
    assert np.isnan(copies)  # the nearest is the copy, of the same class and site, which tells nothing
    assert np.isfinite(robustness_index(X, label, site, unit, neighbours=1)[0])
    assert site_accuracy(X, site, unit) < 0.75 < site_accuracy(X, site, np.arange(120))


@pytest.mark.slow
def test_a_site_of_one_class_is_measured_without_adaptation():
    X, label, site, unit = drawn(1, 1)
    label[site == 0] = 1
    found = measure_sites(X[:, None], ["plain"], label.astype(str), np.where(site, "a", "b"), unit)
    assert found.views[0].adapted_index is None
    assert "one class" in found.note


@pytest.mark.parametrize("column", ["site", "label"])
def test_one_site_or_one_class_is_refused(column):
    X, label, site, unit = drawn(1, 1)
    values = {"label": label.astype(str), "site": np.where(site, "a", "b")} | {column: np.full(len(X), "only")}
    with pytest.raises(DataError, match="at least two"):
        measure_sites(X[:, None], ["plain"], values["label"], values["site"], unit)


@pytest.mark.slow
def test_images_without_a_site_are_left_out():
    X, label, site, unit = drawn(1, 1)
    names = np.where(site, "a", "b").astype("<U4")
    names[:40] = ""
    found = measure_sites(X[:, None], ["plain"], label.astype(str), names, unit)
    assert found.images == len(X) - 40
    assert sum(found.sites.values()) == found.images


@pytest.mark.slow
def test_inspect_measures_the_sites_of_a_cache(tmp_path, smears, tiny_densenet):
    names = sorted(str(path.relative_to(smears)) for path in smears.glob("*/*.*"))
    sheet = tmp_path / "sites.csv"
    sheet.write_text("path,site\n" + "".join(f"{name},{'AB'[i % 2]}\n" for i, name in enumerate(names)))
    config = ExtractConfig(backbone=tiny_densenet, weights="random", views=1, precision="fp32", input_px=64)
    cache = extract(smears, tmp_path / "c.h5", config, sheet=sheet).cache
    said = json.loads(ball("inspect", cache, "--sites", "--json").stdout)
    assert said["views"][0]["view"] == "plain"
    assert said["chance_accuracy"] == 0.5
    shown = " ".join(render_text(measure_cache(read_cache(cache))).split())
    assert "2 sites: A 24, B 24" in shown
    assert f"{said['views'][0]['index']:.2f}" in shown


def render_text(measured):
    console = Console(width=120, file=io.StringIO())
    console.print(render_sites(measured))
    return console.file.getvalue()


@pytest.mark.slow
def test_a_cache_without_sites_says_what_to_do(small_cache):
    done = ball("inspect", small_cache, "--sites")
    assert done.returncode == 2
    assert "no column site" in done.stderr
