"""Every number against scikit-learn or a case worked by hand."""

import numpy as np
import pytest
from sklearn import metrics as reference

from ball_features.evaluation.batch_average import batch_averaged
from ball_features.evaluation.metrics import calibration_error, evaluate_predictions


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 400)
    probability = rng.dirichlet(np.ones(4), 400)
    probability[np.arange(400), truth] += 0.6
    probability = np.round(probability, 2)  # ties
    return truth, probability / probability.sum(1, keepdims=True)


def test_against_scikit_learn(predictions):
    truth, probability = predictions
    predicted = probability.argmax(1)
    got = evaluate_predictions(truth, probability)
    expected = {
        "accuracy": reference.accuracy_score(truth, predicted),
        "precision": reference.precision_score(truth, predicted, average="macro"),
        "recall": reference.recall_score(truth, predicted, average="macro"),
        "f1": reference.f1_score(truth, predicted, average="macro"),
        "auroc": reference.roc_auc_score(truth, probability, multi_class="ovr", average="macro"),
        "mcc": reference.matthews_corrcoef(truth, predicted),
        "log_loss": reference.log_loss(truth, probability),
        "specificity": np.mean([reference.recall_score(truth != k, predicted != k) for k in range(4)]),
    }
    for name, value in expected.items():
        assert got.values[name] == pytest.approx(value, abs=1e-12), name
    assert np.array_equal(got.confusion, reference.confusion_matrix(truth, predicted))
    assert got.per_class["recall"] == pytest.approx(reference.recall_score(truth, predicted, average=None))


def test_an_absent_class_is_not_zero():
    truth = np.array([0, 0, 1, 1])
    probability = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    got = evaluate_predictions(truth, probability)
    assert np.isnan(got.per_class["recall"][2])
    assert np.isnan(got.per_class["precision"][2])
    assert np.isnan(got.per_class["auroc"][2])
    assert got.values["recall"] == pytest.approx(0.75)
    assert got.values["precision"] == pytest.approx((2 / 3 + 1) / 2)
    one = evaluate_predictions(np.zeros(3, dtype=int), np.tile([1.0, 0.0], (3, 1)))
    assert np.isnan(one.values["mcc"])
    assert np.isnan(one.values["auroc"])


def test_calibration_error_by_hand():
    # Two bins in use: 0.9 (right, wrong) and 0.6 (right): |0.5 - 0.9| * 2/3 + |1 - 0.6| * 1/3.
    probability = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    assert calibration_error(np.array([0, 1, 1]), probability) == pytest.approx(0.4)


@pytest.mark.slow
def test_the_reports_arithmetic():
    """Three errors in 655: 99.5 % pooled, about 97.5 % averaged over batches in which absent classes count as 0."""
    rng = np.random.default_rng(0)
    averaged = []
    for _ in range(50):
        truth = rng.permutation(np.repeat([0, 1, 2, 3], [101, 197, 193, 164]))
        predicted = truth.copy()
        wrong = rng.choice(655, 3, replace=False)
        predicted[wrong] = (predicted[wrong] + 1) % 4
        averaged.append(batch_averaged(truth, predicted, 4)["recall"])
        assert (predicted == truth).mean() == pytest.approx(652 / 655)
    assert np.mean(averaged) == pytest.approx(0.975, abs=0.012)
