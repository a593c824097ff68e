"""The flag for unusual images of site-adapted models: one scale, and thresholds from sites that were left out."""

import numpy as np
import pytest

from ball_features.bundles.bundle import UNUSUAL_SHARE
from ball_features.bundles.known_sites import FAR, Sites
from ball_features.bundles.left_out_sites import LabelledEmbeddings, score_left_out, score_within
from ball_features.bundles.neighbourhood import fit_neighbourhood
from ball_features.bundles.novelty import Novelty, fit_measures
from ball_features.bundles.score_scale import fit_scale
from ball_features.models.adaptation import SiteAdapter

DIM, CLASSES = 24, 3
NAMES = ("a", "b", "c", "d")


def images_of(seed: int, shift: np.ndarray, spread: float = 1.0, count: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Images of a site, (images, 1, DIM), with their classes: the site shifts and widens what classes look like."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % CLASSES
    means = 2 * np.eye(CLASSES, DIM)
    own = spread * rng.normal(size=(count, DIM)) * np.linspace(1, 0.2, DIM)
    return (40 + shift + means[codes] + own).astype(np.float32)[:, None], codes


def shift_of(seed: int) -> np.ndarray:
    return 6 * np.random.default_rng(100 + seed).normal(size=DIM)


@pytest.fixture(scope="module")
def sites():
    """Embeddings, classes and sites of four sites, which differ in spread too."""
    parts = [images_of(n, shift_of(n), 1 + 0.1 * n) for n in range(len(NAMES))]
    X, codes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return X, codes, np.repeat(NAMES, 150)


@pytest.fixture(scope="module")
def train(sites):
    X, codes, site = sites
    adapter = SiteAdapter("auto").fit(X, codes, site)
    length = np.linalg.norm(X, axis=2).mean(0)
    return adapter, LabelledEmbeddings(adapter.center(X, site), codes, site=site, length=length)


def test_scores_of_a_site_come_from_the_other_sites(train):
    _, own = train
    found = score_left_out(own, own)
    assert found is not None
    for name in NAMES:
        rows = own.site == name
        alone = fit_measures(own.X[~rows], own.truth[~rows], None, own.length).score(own.X[rows])
        assert np.allclose(found[rows], alone)


def test_many_sites_share_folds_and_none_scores_itself(train):
    _, own = train
    site = np.array([f"{name}{number % 10}" for number, name in enumerate(own.site.tolist())])
    many = LabelledEmbeddings(own.X, own.truth, site=site, length=own.length)
    found = score_left_out(many, many)
    assert found is not None
    assert found.shape == (600, 2)
    assert np.isfinite(found).all()
    whole = own.measures().score(own.X)
    assert np.median(found[:, 1]) > np.median(whole[:, 1])  # images that are their own neighbours lie closer


def test_nothing_is_left_out_without_sites_or_with_one(train):
    _, own = train
    plain = LabelledEmbeddings(own.X, own.truth)
    assert score_left_out(plain, plain) is None
    single = LabelledEmbeddings(own.X, own.truth, site=np.full(600, "a"), length=own.length)
    assert score_left_out(single, single) is None


def test_units_stay_together_within_sites(train):
    """Two copies of each image: if one scored the other, its distance to the nearest would be nothing."""
    _, own = train
    twice = LabelledEmbeddings(
        np.concatenate([own.X, own.X]), np.tile(own.truth, 2), site=np.tile(own.site, 2), length=own.length
    )
    unit = np.tile(np.arange(600), 2)
    apart = score_within(twice, twice, (unit, unit), 0)
    assert np.array_equal(apart[:600], apart[600:])
    mixed = score_within(twice, twice, (np.arange(1200), np.arange(1200)), 0)
    assert np.median(mixed[:, 1]) < np.median(apart[:, 1])


def test_distances_at_one_scale_are_half_the_squared_euclidean_ones():
    rng = np.random.default_rng(3)
    X, new = (rng.normal(size=(count, 1, DIM)) for count in (50, 7))
    near = fit_neighbourhood(X, np.array([5.0]))
    train = near.train.astype(float)
    half = ((new[:, 0, None] / 5 - train) ** 2).sum(2) / 2
    rows = np.argsort(half, 1)[:, :10]
    expected = np.take_along_axis(half, rows, 1).mean(1) / near.spacing[rows].mean(1)
    assert np.allclose(near.score(new), expected, rtol=1e-4)


def test_an_adapted_site_is_usual_and_foreign_images_are_not(train):
    """A site with an offset of its own: its images pass, foreign ones that have its name do not."""
    adapter, own = train
    rows = np.arange(600)
    called = own.truth
    measures, known = own.measures(), Sites(adapter)
    strict = fit_scale(score_within(own, own, (rows, rows), 0), called, measures.groups)
    elsewhere = score_left_out(own, own)
    assert elsewhere is not None
    wide = fit_scale(elsewhere, called, measures.groups)
    X, codes = images_of(9, shift_of(9), 1.3)

    def share(scale, images, by):
        flags = scale.flags(measures.score(known.to_measure(images, by)), np.zeros(len(images), int), CLASSES, 0.01)
        return float(flags.mean())

    truth = np.mean([X[codes == c].mean(0) for c in range(CLASSES)], 0).astype(np.float32)
    foreign = np.random.default_rng(5).normal(40, 12, size=(60, 1, DIM)).astype(np.float32)
    assert share(wide, X, truth) <= 0.1
    assert share(wide, foreign, truth) >= 0.9
    assert share(strict, X, adapter.average) >= 0.9  # nobody says whose images they are
    assert share(strict, own.X + adapter.offsets_.repeat(150, 0), adapter.average) <= 0.1


def test_which_offsets_are_near(train):
    adapter, _ = train
    known = Sites(adapter)
    assert not known.is_near(adapter.average)
    assert not known.is_near(adapter.offsets_[2])
    apart = adapter.offsets_[np.linalg.norm(adapter.offsets_ - adapter.average, axis=(1, 2)).argmax()] - adapter.average
    assert known.is_near(adapter.average + 1.5 * apart)
    assert not known.is_near(adapter.average + 1.01 * FAR * apart)
    assert adapter.farness(adapter.average + 3 * apart) == pytest.approx(3, rel=1e-3)


def test_both_scales_and_the_lengths_are_stored(train):
    _, own = train
    measures, scores = own.measures(), score_left_out(own, own)
    assert scores is not None
    within = score_within(own, own, (np.arange(600), np.arange(600)), 0)
    kept = Novelty(measures, *(fit_scale(part, own.truth, measures.groups) for part in (within, scores)))
    again = Novelty.from_arrays(kept.to_arrays())
    assert again is not None
    assert again.elsewhere is not None
    assert np.array_equal(again.measures.score(own.X), measures.score(own.X))
    for old, new in ((kept.scale, again.scale), (kept.elsewhere, again.elsewhere)):
        assert old is not None
        assert np.array_equal(old.limits(CLASSES, UNUSUAL_SHARE), new.limits(CLASSES, UNUSUAL_SHARE))
    assert again.measures.near is not None
    assert np.array_equal(again.measures.near.length, own.length.astype(np.float32))
