"""Site adaptation on drawn embeddings whose offsets are known."""

import numpy as np
import pytest

from ball_features.errors import ConfigError
from ball_features.models.adaptation import MIN_IMAGES, SiteAdapter
from ball_features.models.discriminant import BalancedDiscriminant

CLASSES = np.eye(3, 8) * 6
COUNTS = ([80, 20, 20], [20, 80, 20], [30, 30, 30], [40, 40, 40])


def site(offset, counts, rng):
    y = np.repeat(np.arange(3), counts)
    X = CLASSES[y] + offset + rng.normal(size=(len(y), 8))
    return X[:, None].astype(np.float32), y


@pytest.fixture
def trained():
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(4, 8)) * 3
    parts = [site(offset, counts, rng) for offset, counts in zip(offsets, COUNTS, strict=True)]
    X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    sites = np.repeat(["a", "b", "c", "d"], [len(part[1]) for part in parts])

    def adapter(method):
        own = SiteAdapter(method).fit(X, y, sites)
        model = BalancedDiscriminant().fit(own.center(X, sites)[:, 0], y)
        return own, lambda Z: model.predict_proba(Z[:, 0])

    return offsets, adapter, rng


def test_training_offsets_do_not_depend_on_the_shares_of_classes(trained):
    offsets, adapter, _ = trained
    own, _ = adapter("auto")
    apart = own.offsets_[:, 0] - own.offsets_[0, 0]
    np.testing.assert_allclose(apart, offsets - offsets[0], atol=0.7)


@pytest.mark.parametrize("counts", [[40, 40, 40], [70, 15, 15], [20, 8, 4]])
def test_the_balanced_offset_is_right_whatever_the_shares(trained, counts):
    _, adapter, rng = trained
    own, predict = adapter("balanced")
    offset = rng.normal(size=8)
    X, y = site(offset, counts, rng)
    truth = np.mean([X[y == k, 0].mean(0) for k in range(3)], 0)
    shift = own.adapt(X, predict)
    raw = np.linalg.norm(X[:, 0].mean(0) - truth)
    error = np.linalg.norm(shift.offset[0] - truth)
    assert error < 0.6 and (error < 0.5 * raw or raw < 0.6)
    assert shift.adapted and shift.images == len(y)


def test_the_mean_is_that_of_all_images(trained):
    _, adapter, rng = trained
    own, predict = adapter("mean")
    X, _ = site(rng.normal(size=8), [10, 5, 5], rng)
    np.testing.assert_allclose(own.adapt(X, predict).offset, X.mean(0), rtol=1e-5)


def test_few_images_and_one_class_fall_back_to_the_training_sites(trained):
    _, adapter, rng = trained
    own, predict = adapter("auto")
    few, _ = site(0, [1, 1, 1], rng)
    one, _ = site(own.average[0] - CLASSES.mean(0), [50, 0, 0], rng)
    for X, words in ((few, f"at least {MIN_IMAGES}"), (one, "look like one class")):
        shift = own.adapt(X, predict)
        assert words in shift.reason and not shift.adapted
        np.testing.assert_array_equal(shift.offset, own.average)
    mixed, _ = site(own.average[0] - CLASSES.mean(0), [20, 10, 10], rng)
    assert own.adapt(mixed, predict).adapted


def test_sites_that_are_asked_about_together_have_the_offsets_that_each_has_alone(trained):
    _, adapter, rng = trained
    own, predict = adapter("auto")
    parts = [site(rng.normal(size=8), counts, rng)[0] for counts in ([20, 10, 10], [30, 0, 0], [1, 1, 1], [9, 9, 9])]
    calls = []

    def answer(asked):
        calls.append(len(asked))
        return [predict(X) for X in asked.values()]

    together = own.adapt_each(parts, answer)
    assert max(calls) == 3 and len(calls) == 16  # the third has too few images to be asked about
    for X, found in zip(parts, together, strict=True):
        alone = own.adapt(X, predict)
        np.testing.assert_array_equal(found.offset, alone.offset)
        assert (found.images, found.reason) == (alone.images, alone.reason)
    assert own.adapt_each([], answer) == []


def alike(rng, counts, sites):
    """Sites of 30 images with so many of each class, which overlap, so that predictions err."""
    parts = []
    for _ in range(sites):
        X, y = site(rng.normal(size=8) * 0.4, counts, rng)
        parts.append((X - 0.8 * CLASSES[y].astype(np.float32)[:, None], y))
    X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return X, y, np.repeat([f"s{number}" for number in range(sites)], 30)


@pytest.mark.slow
def test_shares_that_training_sites_agree_on_are_expected_of_a_new_site():
    rng = np.random.default_rng(5)
    X, y, sites = alike(rng, [10, 10, 10], 20)
    error = {"auto": [], "balanced": []}
    adapters = {method: SiteAdapter(method).fit(X, y, sites) for method in error}
    assert adapters["auto"].concentration_ > 100
    for _ in range(10):
        new, code, _ = alike(rng, [10, 10, 10], 1)
        truth = np.mean([new[code == k, 0].mean(0) for k in range(3)], 0)
        for method, own in adapters.items():
            model = BalancedDiscriminant().fit(own.center(X, sites)[:, 0], y)
            shift = own.adapt(new, lambda Z, model=model: model.predict_proba(Z[:, 0]))
            assert shift.adapted
            error[method].append(np.linalg.norm(shift.offset[0] - truth))
    assert np.mean(error["auto"]) < np.mean(error["balanced"])


def test_shares_are_not_expected_where_sites_differ_or_are_few():
    rng = np.random.default_rng(6)
    X, y, sites = alike(rng, [10, 10, 10], 4)
    assert SiteAdapter().fit(X, y, sites).concentration_ == 0
    parts = [site(0, counts, rng) for counts in ([28, 1, 1], [1, 28, 1], [1, 1, 28], [10, 10, 10], [2, 20, 8])]
    X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert SiteAdapter().fit(X, y, np.repeat(list("abcde"), 30)).concentration_ < 5


@pytest.mark.parametrize(("distance", "counts"), [(0, [40, 10, 5]), (40, [40, 10, 5]), (0, [22, 18, 15])])
def test_a_batch_of_other_shares_than_training_sites_agree_on_is_adapted_only_from_afar(distance, counts):
    rng = np.random.default_rng(7)
    parts = [site(rng.normal(size=8) * 0.5, [20, 20, 20], rng) for _ in range(6)]
    X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    sites = np.repeat(list("abcdef"), 60)
    new, _ = site(rng.normal(size=8) * 0.5 + distance * np.eye(8)[5], counts, rng)
    found = []
    for method in ("auto", "balanced"):
        own = SiteAdapter(method).fit(X, y, sites)
        model = BalancedDiscriminant().fit(own.center(X, sites)[:, 0], y)
        found.append(own.adapt(new, lambda Z, model=model: model.predict_proba(Z[:, 0])))
    auto, balanced = found
    assert balanced.adapted
    if counts[0] < 40:
        assert auto.adapted
    elif distance:  # its predicted shares prove little, so its offset is told by its classes
        assert auto.adapted
        np.testing.assert_array_equal(auto.offset, balanced.offset)
    else:
        assert "shares of classes" in auto.reason
        np.testing.assert_array_equal(auto.offset, own.average)


def test_the_answer_does_not_depend_on_the_order_of_the_images(trained):
    _, adapter, rng = trained
    own, predict = adapter("auto")
    X, _ = site(rng.normal(size=8), [20, 20, 20], rng)
    order = rng.permutation(len(X))
    np.testing.assert_allclose(own.adapt(X, predict).offset, own.adapt(X[order], predict).offset, atol=1e-4)


def test_a_site_that_lacks_a_class_is_compared_by_the_others():
    rng = np.random.default_rng(1)
    full, lacking = site(0, [40] * 3, rng), site(2.0, [40, 40, 0], rng)
    X, y = np.concatenate([full[0], lacking[0]]), np.concatenate([full[1], lacking[1]])
    own = SiteAdapter().fit(X, y, np.repeat(["a", "b"], [120, 80]))
    np.testing.assert_allclose(own.offsets_[1, 0] - own.offsets_[0, 0], 2.0, atol=0.6)


def test_one_class_a_site_and_unknown_methods_are_refused():
    rng = np.random.default_rng(2)
    X, y = site(0, [10, 10, 10], rng)
    with pytest.raises(ConfigError, match="holds one class"):
        SiteAdapter().fit(X, y, np.array(["a", "b", "c"])[y])
    with pytest.raises(ConfigError, match="Valid: none, auto, balanced, mean"):
        SiteAdapter("combat").fit(X, y, np.zeros(30))


def test_predictions_that_the_model_is_not_sure_of_do_not_move_the_offset():
    rng = np.random.default_rng(8)
    X, y = site(0, [40, 40, 40], rng)
    own = SiteAdapter("balanced").fit(X, y, np.repeat(["a", "b"], 60)[rng.permutation(120)])
    new, code = site(1.0, [20, 20, 20], rng)
    sure = np.eye(3)[code] * 0.94 + 0.02
    strange = np.concatenate([new, new[:30] + 50])
    unsure = np.full((30, 3), 1 / 3)
    answers = np.concatenate([sure, unsure])
    offset = own.adapt(strange, lambda Z: answers).offset
    truth = np.mean([new[code == k, 0].mean(0) for k in range(3)], 0)
    assert np.abs(offset[0] - truth).max() < 0.7
    assert (
        np.abs(own.adapt(strange, lambda Z: answers * 0 + 1 / 3).offset[0] - truth).max() > 5
    )  # none is sure: all count
