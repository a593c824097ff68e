"""The flag for unusual images: every view counts, and each class has a threshold of its own."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from ball_features.bundles.calibration import outlier_threshold
from ball_features.bundles.class_gaussians import ClassGaussians, colour_shares, fit_colours, fit_gaussians
from ball_features.bundles.neighbourhood import Neighbourhood, fit_neighbourhood
from ball_features.bundles.novelty import Measures, Novelty, fit_measures
from ball_features.bundles.score_scale import Scale, fit_scale

CLASSES, VIEWS, DIM = 3, 2, 40


def images(count, seed=0, shift=0.0):
    """Embeddings around one mean a class, and their classes; `shift` moves the second view off its subspace."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, CLASSES, count)
    X = 3 + np.eye(CLASSES, DIM)[codes][:, None] + 0.2 * rng.normal(size=(count, VIEWS, DIM))
    X[:, 1, -1] += shift
    return X.astype(np.float32), codes


def test_the_distance_is_that_of_the_full_covariance():
    """With as many directions as dimensions."""
    X, codes = images(600)
    found = fit_gaussians(X, codes).score(X[:5])
    for view in range(VIEWS):
        unit = X[:, view].astype(float) / np.linalg.norm(X[:, view].astype(float), axis=1)[:, None]
        means = [unit[codes == code].mean(0) for code in range(CLASSES)]
        apart = unit - np.array(means)[codes]
        inverse = np.linalg.inv(apart.T @ apart / len(apart))
        for row in range(5):
            expected = min(mahalanobis(unit[row], mean, inverse) ** 2 for mean in means)
            assert found[row, view] == pytest.approx(expected, rel=2e-2)


def novelty():
    X, codes = images(600)
    held, own = images(900, seed=1)
    gaussians = fit_gaussians(X, codes)
    scores = np.column_stack([gaussians.score(held), np.linalg.norm(held.mean(1) - 3, axis=1)])
    return Novelty(Measures(gaussians), fit_scale(scores, own)), own


def test_one_strange_view_is_enough():
    flag, _ = novelty()
    X, codes = images(500, seed=2)
    odd, kinds = images(200, seed=3, shift=2.0)
    usual = flag.scale.flags(
        flag.measures.score(X, distance=np.linalg.norm(X.mean(1) - 3, axis=1)), codes, CLASSES, 0.01
    )
    strange = flag.scale.flags(
        flag.measures.score(odd, distance=np.exp(np.full(200, flag.scale.middle[-1]))), kinds, CLASSES, 0.01
    )
    assert usual.mean() < 0.03
    assert strange.mean() > 0.95


def test_a_score_with_a_long_tail_does_not_hide_the_others():
    """One score of the own images scatters over decades; a foreign image is odd in the other by a little."""
    rng = np.random.default_rng(0)
    calm, wild = 10 + rng.normal(size=2000), np.exp(3 * rng.normal(size=2000))
    scale = fit_scale(np.column_stack([calm, wild]), np.zeros(2000, dtype=int))
    odd = np.column_stack([np.full(50, 15.0), np.ones(50)])
    assert scale.flags(odd, np.zeros(50, dtype=int), 1, 0.01).all()
    new = np.column_stack([10 + rng.normal(size=4000), np.exp(3 * rng.normal(size=4000))])
    assert scale.flags(new, np.zeros(4000, dtype=int), 1, 0.01).mean() < 0.02


@pytest.mark.parametrize(("count", "share"), [(40, 0.0), (400, 3 / 401)])
def test_beyond_all_is_enough_where_that_is_rare(count, share):
    rng = np.random.default_rng(1)
    scores = rng.lognormal(size=(count, 3))
    scale = fit_scale(scores, np.zeros(count, dtype=int))
    assert scale.beyond_share(0.01) == pytest.approx(share)
    found = []
    for seed in range(200):
        own = np.random.default_rng([2, seed])
        one = fit_scale(own.lognormal(size=(count, 3)), np.zeros(count, dtype=int))
        found.append(one.flags(own.lognormal(size=(20, 3)), np.zeros(20, dtype=int), 1, 0.01).mean())
    assert np.mean(found) < max(0.01, 1 / (count + 1)) + share + 0.01


def test_a_view_that_is_one_for_all_images_flags_those_where_it_is_another():
    """As a view of nuclei is where there are none; embeddings are stored with 16 bits, and new ones have 32."""
    rng = np.random.default_rng(0)
    nothing = rng.random(DIM).astype(np.float32)

    def seen(count, seed):
        X, codes = images(count, seed)
        X[:, 1] = nothing
        return X, codes

    X, codes = seen(600, 0)
    gaussians = fit_gaussians(X.astype(np.float16), codes)
    held, own = seen(500, 1)
    scale = fit_scale(Measures(gaussians).score(held.astype(np.float16)), own)
    new, kinds = seen(500, 2)
    assert scale.flags(Measures(gaussians).score(new), kinds, CLASSES, 0.01).mean() < 0.03
    new[:, 1] = rng.random((500, DIM))
    assert scale.flags(Measures(gaussians).score(new), kinds, CLASSES, 0.01).all()


def shares(count, seed=0, shift=0):
    """Histograms of pictures that are all alike; `shift` moves their colours by that many bins."""
    rng = np.random.default_rng(seed)
    centre = np.array([20, 14, 18])[:, None] + shift + rng.normal(0, 0.5, (count, 3, 1))
    found = np.exp(-((np.arange(32) - centre) ** 2) / 8)
    return (found / found.sum(2, keepdims=True)).reshape(count, 96).astype(np.float32)


def test_colours_count_where_they_are_known():
    X, codes = images(600)
    held, own = images(400, seed=1)
    gaussians, colours = fit_gaussians(X, codes), fit_colours(shares(600), codes)
    measures = Measures(gaussians, colours)
    flag = Novelty(measures, fit_scale(measures.score(held, shares(400, 1), np.ones(400)), own))
    new, kinds = images(100, seed=2)

    def flagged(histogram):
        return flag.scale.flags(flag.measures.score(new, histogram, np.ones(100)), kinds, CLASSES, 0.01).mean()

    assert flagged(shares(100, 2)) < 0.06
    assert flagged(shares(100, 2, shift=4)) == 1
    assert flagged(None) < 0.06  # a cache of an earlier version has none
    again = Novelty.from_arrays(flag.to_arrays())
    assert again is not None
    new = (new, shares(100), np.ones(100))
    assert np.array_equal(again.measures.score(*new), flag.measures.score(*new))


def test_shares_of_colours_are_smoothed_by_hand():
    one = np.zeros((1, 96), dtype=np.float32)
    one[0, [5, 32, 95]] = 1
    found = colour_shares(one)[0, 0] ** 2
    assert np.allclose(found[3:8], np.array([1, 2, 3, 2, 1]) / 9)
    assert np.allclose(found[32:35], np.array([3, 2, 1]) / 9)  # nothing spills into the channel before
    assert found[31] == 0
    assert np.allclose(found[93:96], np.array([1, 2, 3]) / 9)


def test_a_scale_of_an_earlier_version_is_read_as_it_was():
    scale = Scale(np.zeros(2), np.ones(2), np.arange(200) / 100, np.zeros(200, dtype=int))
    assert np.array_equal(scale(np.array([[0.5, 3.0], [-1.0, 0.25]])), [3.0, 0.25])
    assert scale.beyond_share(0.5) == 0
    assert scale.flags(np.array([[0.0, 1.98], [0.0, 1.999]]), np.zeros(2, dtype=int), 1, 0.01).tolist() == [False, True]


def test_thresholds_are_the_classes_own_where_images_suffice():
    flag, own = novelty()
    limits = flag.scale.limits(CLASSES + 1, 0.01)
    for code in range(CLASSES):
        assert limits[code] == outlier_threshold(flag.scale.values[own == code], 0.01)[0]
    assert limits[CLASSES] == outlier_threshold(flag.scale.values, 0.01)[0]
    few = fit_scale(np.random.default_rng(0).random((50, 3)), np.zeros(50, dtype=int))
    assert (few.limits(2, 0.01) == few.values.max()).all()


def test_arrays_are_read_back():
    flag, _ = novelty()
    arrays = flag.to_arrays()
    again = Novelty.from_arrays(arrays)
    assert again is not None
    X, _ = images(4, seed=5)
    assert np.array_equal(again.measures.score(X, distance=np.zeros(4)), flag.measures.score(X, distance=np.zeros(4)))
    assert again.measures.colours is None
    assert again.measures.near is None
    assert Novelty.from_arrays({"train": np.zeros(1)}) is None
    assert isinstance(again.measures.gaussians, ClassGaussians)


def test_the_spacing_of_the_neighbours_is_the_unit():
    """Against distances one by one."""
    X, _ = images(120)
    near = fit_neighbourhood(X)
    new, _ = images(4, seed=8)
    train = near.train.astype(float)
    count = 24  # a fifth of 120

    def nearest(one, others):
        distances = 1 - others @ one / np.linalg.norm(one)
        return np.argsort(distances)[:count], np.sort(distances)[:count].mean()

    for row, found in enumerate(near.score(new)):
        rows, distance = nearest(new[row, 0].astype(float), train)
        spacing = [nearest(train[own], np.delete(train, own, 0))[1] for own in rows]
        assert found == pytest.approx(distance / np.mean(spacing), rel=2e-3)


def pooled(count, seed, gap=0.0):
    """Images of a tight site and a wide one; `gap` moves those of the tight site apart."""
    rng = np.random.default_rng(seed)
    wide = rng.random(count) < 0.5
    X = 3 + np.where(wide, 3.0, 0.0)[:, None] * (np.arange(DIM) < 20)
    X = X + np.where(wide, 0.6, 0.05)[:, None] * rng.normal(size=(count, DIM))
    X[~wide] += gap * (np.arange(DIM) % 2)
    return X[:, None].astype(np.float32), wide


def test_what_is_far_from_a_tight_site_is_unusual_beside_a_wide_one():
    X, _ = pooled(600, 0)
    near = fit_neighbourhood(X)
    limit = np.quantile(near.score(pooled(600, 1)[0]), 0.99)
    new, wide = pooled(400, 2)
    assert (near.score(new) > limit).mean() < 0.03
    foreign, wide = pooled(400, 3, gap=0.3)
    assert (near.score(foreign)[~wide] > limit).all()
    plain = Neighbourhood(near.train, np.ones_like(near.spacing))  # distances as they are tell nothing
    assert (plain.score(foreign)[~wide] < np.quantile(plain.score(new), 0.99)).all()


def test_copies_do_not_make_all_else_unusual():
    X, _ = images(200)
    copies = np.concatenate([X, np.repeat(X[:2], 60, 0)])
    scores = fit_neighbourhood(copies).score(images(200, seed=4)[0])
    assert scores.max() < 30
    assert np.isfinite(fit_neighbourhood(np.ones((1, 1, 8))).score(np.ones((2, 1, 8)))).all()


def test_scores_that_are_all_somewhat_high_add_up():
    rng = np.random.default_rng(0)
    zero = np.zeros(2000, dtype=int)
    scale = fit_scale(rng.lognormal(size=(2000, 6)), zero)
    assert scale.flags(np.full((5, 6), np.exp(1.8)), np.zeros(5, dtype=int), 1, 0.01).all()
    assert scale.flags(rng.lognormal(size=(4000, 6)), np.zeros(4000, dtype=int), 1, 0.01).mean() < 0.02
    z = (np.log([[2.0, 3.0, 0.5, 1.0, 1.0, 4.0]]) - scale.middle) / (scale.high - scale.middle)
    assert scale(np.array([[2.0, 3.0, 0.5, 1.0, 1.0, 4.0]]))[0] == pytest.approx((z.clip(0) ** 1.5).sum() ** (2 / 3))
    unknown = np.array([[np.nan, 3.0, 0.5, 1.0, 1.0, 4.0]])
    assert scale(unknown)[0] == pytest.approx((z[:, 1:].clip(0) ** 1.5).sum() ** (2 / 3))


def test_views_of_the_model_count_as_one():
    rng = np.random.default_rng(1)
    scores, groups = rng.lognormal(size=(2000, 5)), np.array([0, 1, 1, 1, 3])
    scale = fit_scale(scores, np.zeros(2000, dtype=int), groups)
    z = ((np.log(scores) - scale.middle) / (scale.high - scale.middle)).clip(0)
    joined = np.column_stack([z[:, 0], z[:, 1:4].max(1), z[:, 4]])
    assert np.allclose(scale(scores), (joined**1.5).sum(1) ** (2 / 3))
    X, codes = images(90)
    assert fit_measures(X, codes, shares(90)).groups.tolist() == [0, 1, 2, 3]


def test_measures_are_read_back_with_the_neighbours():
    X, codes = images(90)
    measures = fit_measures(X, codes)
    flag = Novelty(measures, fit_scale(measures.score(images(300, seed=1)[0]), np.zeros(300, dtype=int)))
    again = Novelty.from_arrays(flag.to_arrays())
    assert again is not None
    new, _ = images(5, seed=2)
    assert np.array_equal(again.measures.score(new), measures.score(new))
    assert measures.score(new).shape == (5, VIEWS + 1)
    assert np.array_equal(again.scale(measures.score(new)), flag.scale(measures.score(new)))


def test_few_images_and_equal_ones_are_taken():
    X = np.ones((4, 1, 8), dtype=np.float32)
    assert np.isfinite(fit_gaussians(X, np.array([0, 0, 1, 1])).score(X)).all()


@pytest.mark.slow
def test_a_bundle_of_one_view_is_read_as_it_was_saved(small_cache, tmp_path):
    """Directions come out of the decomposition in column order, which safetensors would write as it stands."""
    from ball_features import FitConfig, fit, read_bundle, read_cache

    config = FitConfig(models=("logistic",), repeats=1, jobs=1, train_views="plain", test_views="plain")
    run = fit(small_cache, config, out_root=tmp_path / "runs", save="logistic")
    bundle, cache = read_bundle(run.bundles[0]), read_cache(small_cache)
    assert bundle.facts.preprocessing.plan.indices == [0]
    train = np.isin(cache.path, list(bundle.train_path))
    X = np.asarray(cache.embeddings[:, :1], dtype=np.float32)[train]
    own = fit_gaussians(X, np.unique(cache.label, return_inverse=True)[1][train])
    assert np.allclose(bundle.novelty.measures.gaussians.score(X), own.score(X), rtol=1e-3)
