"""Temperatures, sets and thresholds, by hand and against what they promise."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ball_features.bundles.calibration import (
    conformal_threshold,
    fit_temperature,
    neighbour_distance,
    outlier_threshold,
    set_note,
    tempered,
    unit_mean,
    unusual_note,
)
from ball_features.bundles.prediction import describe
from ball_features.evaluation.metrics import log_losses


def test_conformal_threshold_by_hand():
    scores = np.arange(1, 20) / 20  # 19 scores: (19 + 1) * 0.9 = 18th
    assert conformal_threshold(scores, 0.9) == pytest.approx(18 / 20)
    assert conformal_threshold(scores[:5], 0.9) == float("inf")
    # 100 * 0.55 is a little more than 55 in binary, and still the 55th.
    assert conformal_threshold(np.arange(1, 100), 0.55) == 55


def test_an_outlier_threshold_is_finite_and_states_its_share():
    """The share holds on images alike, above and below the 99 that 1 % takes."""
    rng = np.random.default_rng(2)
    assert outlier_threshold(np.arange(99.0), 0.01) == (98, pytest.approx(0.01))
    assert outlier_threshold(np.arange(521.0), 0.01) == (516, pytest.approx(5 / 522))
    assert outlier_threshold(np.array([2.0, 7.0, 5.0]), 0.01) == (7, pytest.approx(1 / 4))
    for count in (1, 14, 50, 98, 150):
        beyond = []
        for _ in range(4000):
            limit, share = outlier_threshold(rng.random(count), 0.01)
            beyond.append(1 - limit)  # the share of a uniform variable beyond it
        assert np.mean(beyond) == pytest.approx(share, rel=0.1)
    assert "one image in 51" in unusual_note(rng.random(50), 0.01)
    assert "needs 99" in unusual_note(rng.random(98), 0.01)
    assert not unusual_note(rng.random(99), 0.01)


def test_sets_of_one_class_say_so():
    """519 of 521 sure of the truth: up to 519 / 522 a set cannot hold two, as no two classes have more than half."""
    scores = np.r_[np.full(519, 1e-5), 0.6, 0.9]
    note = set_note(scores, 0.95)
    assert "contains one class, however uncertain" in note
    assert "519 of 521" in note
    assert "99.43 %" in note
    assert conformal_threshold(scores, 0.9942) < 0.5 <= conformal_threshold(scores, 0.9943) < 1
    assert not set_note(scores, 0.9943)
    assert "contain every class" in set_note(scores, 0.999)
    assert "needs 999." in set_note(scores, 0.999)
    assert "needs 19." in set_note(np.full(18, 0.1), 0.95)
    assert "contains one class" in set_note(np.full(19, 0.1), 0.95)
    assert "or more every set contains all classes" in set_note(np.full(19, 0.1), 0.95)


def test_coverage_holds_on_exchangeable_scores():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        scores = rng.random(100)
        covered.append((rng.random(200) <= conformal_threshold(scores, 0.9)).mean())
    assert 0.89 < np.mean(covered) < 0.915


@pytest.mark.slow
def test_temperature_recovers_a_known_one():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20000, 4)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(4, p=row) for row in p])
    sharp = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)
    assert fit_temperature(sharp, truth) == pytest.approx(3, rel=0.05)


def test_validation_without_an_error_sharpens_no_further_than_it_can_show():
    """Laplace's rule: 50 of 50 right is 51 in 52, not certainty; a model that is sure already is left as it is."""
    truth = np.arange(50) % 4
    hit = np.eye(4)[truth]
    doubting, sure = hit * 0.6 + (1 - hit) * 0.4 / 3, hit * 0.999 + (1 - hit) * 0.001 / 3
    temperature = fit_temperature(doubting, truth)
    assert tempered(doubting, temperature)[0, 0] == pytest.approx(51 / 52, abs=1e-3)
    assert fit_temperature(sure, truth) == 1
    # Many more show more, and few next to nothing.
    assert fit_temperature(np.tile(doubting, (40, 1)), np.tile(truth, 40)) < temperature
    assert fit_temperature(doubting[:2], truth[:2]) > 0.6


def test_a_small_validation_set_costs_no_log_loss_on_average():
    """Drawn models that are calibrated: after a temperature from 25 images they are hardly worse on others."""
    rng = np.random.default_rng(3)
    raw, after = [], []
    for _ in range(40):
        logits = rng.normal(size=(2025, 4)) * 6
        p = tempered(np.exp(logits - logits.max(1, keepdims=True)), 1.0)
        truth = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
        temperature = fit_temperature(p[:25], truth[:25])
        raw.append(log_losses(truth[25:], p[25:]).mean())
        after.append(log_losses(truth[25:], tempered(p[25:], temperature)).mean())
    assert np.mean(after) < 1.05 * np.mean(raw)


def test_of_equally_probable_classes_the_first_is_predicted():
    """As everywhere else, and also of many classes, where a sort that is not stable mixes equals."""
    many = 40
    made = SimpleNamespace(
        classes=tuple(f"c{number:02}" for number in range(many)),
        train_path=("t",),
        train_class=np.empty(0, dtype=int),
        probability=lambda X: np.full((len(X), many), 1 / many),
        sets=lambda probability, coverage: np.ones(probability.shape, dtype=bool),
        distance=lambda X: (np.zeros(len(X)), np.zeros((len(X), 1), dtype=int)),
        unusual=lambda X, probability, histogram: np.zeros(len(X), dtype=bool),
    )
    bundle: Any = made
    (found,) = describe(bundle, ["a.png"], np.zeros((1, 1, 2)), 0.9)
    assert found.predicted == "c00"
    assert found.set == made.classes


def test_distances_are_found_in_parts(monkeypatch):
    """A million images against as many would take terabytes at once."""
    rng = np.random.default_rng(0)
    X, train = rng.normal(size=(101, 2, 8)), unit_mean(rng.normal(size=(60, 2, 8)))
    whole = neighbour_distance(X, train)
    monkeypatch.setattr("ball_features.bundles.calibration._CELLS", 60 * 10)
    parts = neighbour_distance(X, train)
    assert np.allclose(whole[0], parts[0], rtol=0, atol=1e-6)
    assert np.array_equal(whole[1], parts[1])
    assert [part.shape for part in neighbour_distance(X[:0], train)] == [(0,), (0, 5)]
