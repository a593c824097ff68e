"""Metrics of many patients at once against each patient by itself."""

import time

import numpy as np
import pytest

from ball_features.evaluation import patient_scores, resampling
from ball_features.evaluation.many_patients import metrics_by_patient
from ball_features.evaluation.metrics import METRICS, evaluate_predictions
from ball_features.evaluation.patient_scores import measure_patients


def drawn(patients, classes, images, seed=0):
    """Predictions in tenths, so that scores tie, of patients of one to many images and of one to all classes."""
    rng = np.random.default_rng(seed)
    code = np.concatenate([np.arange(patients), rng.integers(patients, size=images - patients)])
    truth = rng.integers(classes, size=images)
    truth[code % 5 == 0] = code[code % 5 == 0] % classes
    probability = rng.integers(1, 10, size=(images, classes)).astype(float)
    probability[np.arange(images), truth] += rng.integers(0, 9, size=images)
    return truth, probability / probability.sum(1, keepdims=True), code


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 4])
def test_all_patients_at_once_are_each_by_itself(classes):
    truth, probability, code = drawn(40, classes, 300)
    found = metrics_by_patient(truth, probability, code)
    for patient in range(40):
        own = evaluate_predictions(truth[code == patient], probability[code == patient])
        for name in METRICS:
            assert np.isclose(found.values[name][patient], own.values[name], rtol=1e-12, equal_nan=True), name
        for name in ("recall", "specificity"):
            assert np.allclose(getattr(found, name)[patient], own.per_class[name], rtol=1e-12, equal_nan=True)


@pytest.mark.slow
def test_scores_of_many_patients_are_those_of_few(monkeypatch):
    truth, probability, code = drawn(60, 3, 600)
    names = np.array([f"P{own}" for own in code])
    tests = (names, np.zeros(600, dtype=int), truth, probability, ("a", "b", "c"))
    usual = measure_patients(("m", "head"), *tests)
    monkeypatch.setattr(patient_scores, "_ONE_BY_ONE", 10)
    found = measure_patients(("m", "head"), *tests)
    assert found.basis == usual.basis == "images"
    for name in METRICS:
        assert np.isclose(found.values[name], usual.values[name], equal_nan=True)
        assert np.allclose(found.intervals[name], usual.intervals[name], equal_nan=True)


@pytest.mark.slow
def test_intervals_of_joined_patients_are_as_wide(monkeypatch):
    truth, probability, code = drawn(3000, 3, 9000)
    tests = (code.astype(str), np.zeros(9000, dtype=int), truth, probability, ("a", "b", "c"))
    usual = measure_patients(("m", "head"), *tests)
    monkeypatch.setattr(resampling, "MOST_GROUPS", 1000)
    found = measure_patients(("m", "head"), *tests)
    for name in ("accuracy", "f1", "log_loss"):
        low, high = usual.intervals[name]
        assert np.allclose(found.intervals[name], (low, high), atol=0.15 * (high - low))


@pytest.mark.slow
def test_fifty_thousand_patients_take_seconds():
    truth, probability, code = drawn(50_000, 4, 200_000)
    start = time.process_time()
    metrics_by_patient(truth, probability, code)
    assert time.process_time() - start < 20
