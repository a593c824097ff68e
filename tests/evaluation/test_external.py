"""Figures on images of elsewhere, against scikit-learn, statsmodels and plain loops."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from ball_features.bundles.recalibration import recalibrate
from ball_features.evaluation.external import ExternalTests, Share, difference_interval, measure_external
from ball_features.evaluation.intervals import wilson
from ball_features.files import json_text

CLASSES = ("a", "b", "c")


def constructed(images=400, *, seed=0, patients=40, sites=3, sharp=3.0, accuracy=0.7):
    """Predictions of a model that is right in a share of the images and too sure."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, images)
    said = np.where(rng.random(images) < accuracy, truth, rng.integers(0, 3, images))
    logits = rng.normal(size=(images, 3)) + sharp * np.eye(3)[said]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    distance = rng.random(images) + 0.5 * (said != truth)
    patient = np.array([f"P{row % patients}" for row in range(images)])
    return ExternalTests(
        classes=CLASSES,
        truth=truth,
        probability=probability,
        sets={0.95: probability >= 0.2, 0.9: probability >= 0.3},
        distance=distance,
        unusual=distance > 0.9,
        unit=np.unique(patient, return_inverse=True)[1],
        patient=patient,
        site=np.array([f"S{row % sites}" for row in range(images)]),
    )


@pytest.mark.slow
def test_figures_are_those_of_other_libraries():
    tests = constructed()
    found = measure_external(tests)
    predicted = tests.probability.argmax(1)
    assert found.values["accuracy"] == pytest.approx(accuracy_score(tests.truth, predicted))
    assert found.values["recall"] == pytest.approx(balanced_accuracy_score(tests.truth, predicted))
    assert found.confusion == confusion_matrix(tests.truth, predicted).tolist()
    assert found.units == 40
    assert found.confidence == pytest.approx(tests.probability.max(1).mean())
    assert [row.coverage for row in found.sets] == [0.9, 0.95]
    for row in found.sets:
        inside = tests.sets[row.coverage]
        covered = [own[code] for own, code in zip(inside, tests.truth, strict=True)]
        assert row.covered.value == pytest.approx(np.mean(covered))
        assert row.size == pytest.approx(inside.sum(1).mean())
        assert row.covered.low < row.covered.value < row.covered.high
    hit = predicted == tests.truth
    assert found.flagged.value == pytest.approx(tests.unusual.mean())
    assert found.accuracy_flagged.value == pytest.approx(hit[tests.unusual].mean())
    assert found.accuracy_others.value == pytest.approx(hit[~tests.unusual].mean())
    assert found.accuracy_flagged.images + found.accuracy_others.images == 400
    for row in found.sites:
        own = tests.site == row.site
        assert row.accuracy == pytest.approx(hit[own].mean())
    assert found.site_means is not None
    assert found.site_means.values["accuracy"] == pytest.approx(np.mean([row.accuracy for row in found.sites]))
    assert found.patients is not None
    assert found.patients.basis == "images"  # a patient has images of several classes


@pytest.mark.slow
def test_bins_hold_every_image_once_and_fall_with_distance():
    found = measure_external(constructed())
    assert [row.accuracy.images for row in found.bins] == [80] * 5
    assert all(one.high <= other.low for one, other in zip(found.bins, found.bins[1:], strict=False))
    assert found.bins[0].accuracy.value > found.bins[-1].accuracy.value
    assert measure_external(constructed(30)).bins == []


def test_what_is_absent_is_no_number():
    tests = constructed()
    keep = np.flatnonzero(tests.truth < 2)
    cut = ExternalTests(
        CLASSES, tests.truth[keep], tests.probability[keep], {0.95: tests.sets[0.95][keep]}, tests.distance[keep],
        np.zeros(len(keep), dtype=bool), np.arange(len(keep)),
    )  # fmt: skip
    found = measure_external(cut)
    assert math.isnan(found.per_class["c"]["recall"])
    assert math.isnan(found.accuracy_flagged.value)
    assert found.accuracy_flagged.images == 0
    assert found.patients is None and found.sites == [] and found.site_means is None
    values = json.loads(json_text(found))  # strict
    assert values["per_class"]["c"]["recall"] is None
    one = ExternalTests(
        CLASSES, tests.truth[:1], tests.probability[:1], {0.95: tests.sets[0.95][:1]}, tests.distance[:1],
        np.zeros(1, dtype=bool), np.zeros(1, dtype=int),
    )  # fmt: skip
    assert measure_external(one).images == 1


@pytest.mark.parametrize(
    ("hits", "count", "other_hits", "other_count"), [(95, 100, 60, 299), (10, 10, 0, 20), (5, 9, 4, 8)]
)
def test_the_interval_of_a_difference_is_newcombes(hits, count, other_hits, other_count):
    from statsmodels.stats.proportion import confint_proportions_2indep

    one, other = (Share(h / n, *wilson(h / n, n), n) for h, n in ((hits, count), (other_hits, other_count)))
    expected = confint_proportions_2indep(hits, count, other_hits, other_count, method="newcomb")
    assert difference_interval(one, other) == pytest.approx(expected, abs=1e-9)


def test_recalibration_never_tests_on_what_it_fits():
    tests = constructed(600, sharp=6.0)
    found = recalibrate(tests.truth, tests.probability, tests.sets[0.95], tests.unit, coverage=0.95, share=0.25, seed=0)
    assert found is not None
    assert 0.15 < found.fitted.mean() < 0.35
    assert not set(tests.unit[found.fitted]) & set(tests.unit[~found.fitted])  # no patient on both sides
    assert found.after.ece < found.before.ece
    assert found.temperature > 1
    assert abs(found.after.covered - 0.95) < 0.05
    rest = ~found.fitted
    assert found.accuracy == pytest.approx((tests.probability.argmax(1) == tests.truth)[rest].mean())
    # The images that test change nothing of the fit.
    other = np.where(found.fitted[:, None], tests.probability, np.roll(tests.probability, 1, axis=1))
    changed = recalibrate(tests.truth, other, tests.sets[0.95], tests.unit, coverage=0.95, share=0.25, seed=0)
    assert changed is not None
    assert (changed.fitted == found.fitted).all()
    assert (changed.temperature, changed.threshold) == (found.temperature, found.threshold)
    assert changed.after.log_loss != found.after.log_loss


def test_too_few_images_or_units_are_not_recalibrated():
    tests = constructed(60)
    values = (tests.truth, tests.probability, tests.sets[0.95])
    assert recalibrate(*values, tests.unit, coverage=0.95, share=0.25, seed=0) is None
    assert recalibrate(*values, np.zeros(60, dtype=int), coverage=0.95, share=0.5, seed=0) is None
    assert recalibrate(*values, np.arange(60), coverage=0.95, share=0.0, seed=0) is None
    assert recalibrate(*values, np.arange(60), coverage=0.95, share=0.5, seed=0) is not None
