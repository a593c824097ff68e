"""The flag for unusual images: every view counts, and each class has a threshold of its own."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from ball_features.bundles.calibration import outlier_threshold
from ball_features.bundles.novelty import ClassGaussians, Novelty, fit_gaussians, fit_scale

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
    return Novelty(gaussians, fit_scale(scores, own)), own


def test_one_strange_view_is_enough():
    flag, _ = novelty()
    limits = flag.scale.limits(CLASSES, 0.01)
    X, codes = images(500, seed=2)
    odd, kinds = images(200, seed=3, shift=2.0)
    usual = flag.values(X, np.linalg.norm(X.mean(1) - 3, axis=1)) > limits[codes]
    strange = flag.values(odd, np.full(200, flag.scale.middle[-1])) > limits[kinds]
    assert usual.mean() < 0.03
    assert strange.mean() > 0.95


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
    assert np.array_equal(again.values(X, np.zeros(4)), flag.values(X, np.zeros(4)))
    assert Novelty.from_arrays({"train": np.zeros(1)}) is None
    assert isinstance(again.gaussians, ClassGaussians)


def test_few_images_and_equal_ones_are_taken():
    X = np.ones((4, 1, 8), dtype=np.float32)
    assert np.isfinite(fit_gaussians(X, np.array([0, 0, 1, 1])).score(X)).all()


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
    assert np.allclose(bundle.novelty.gaussians.score(X), own.score(X), rtol=1e-3)
