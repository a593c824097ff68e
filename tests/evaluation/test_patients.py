"""Patients as units: their answers by hand and by pandas-free loops, their scores by scikit-learn."""

import csv
import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t
from sklearn import metrics as reference

from ball_features.evaluation.intervals import metric_intervals, share_interval
from ball_features.evaluation.patient_scores import PatientScores, measure_patients
from ball_features.evaluation.patients import SEVERAL_LABELS, answer_patients, patient_columns, patient_rows
from ball_features.files import json_text, read_csv, write_csv

CLASSES = ["Benign", "Early", "Pre"]


def drawn(patients=60, classes=3, repeats=2, seed=0):
    """Patients of one class each with 1 to 9 images, tested in every repeat."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(patients) % classes)
    count = rng.integers(1, 10, patients)
    patient = np.repeat([f"P{number:02d}" for number in range(patients)], count)
    truth = np.repeat(label, count)
    names, repeat = np.tile(patient, repeats), np.repeat(np.arange(repeats), len(patient))
    truth = np.tile(truth, repeats)
    lean = np.repeat(rng.random((patients, classes)) < 0.25, count, axis=0)  # images of a patient err together
    probability = (
        rng.dirichlet(np.ones(classes), len(truth)) + 0.6 * np.eye(classes)[truth] + np.tile(lean, (repeats, 1))
    )
    order = rng.permutation(len(truth))
    probability /= probability.sum(1, keepdims=True)
    return names[order], repeat[order], truth[order], probability[order]


def test_answers_by_hand():
    probability = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.2, 0.8], [0.5, 0.5]])
    patient = np.array(["A", "A", "A", "B", ""])
    answers = answer_patients(patient, np.zeros(5, int), np.array([0, 0, 0, 1, 1]), probability)
    assert answers.patient.tolist() == ["A", "B"]
    assert answers.images.tolist() == [3, 1]
    assert answers.label.tolist() == [0, 1]
    # Geometric means (0.9 * 0.4 * 0.4) ** (1/3) and (0.1 * 0.6 * 0.6) ** (1/3), normalised.
    ones = np.array([0.144, 0.036]) ** (1 / 3)
    assert answers.probability == pytest.approx(np.array([ones / ones.sum(), [0.2, 0.8]]))
    assert answers.share == pytest.approx(np.array([[1 / 3, 2 / 3], [0, 1]]))
    assert answers.predicted.tolist() == [0, 1]
    assert answers.majority.tolist() == [1, 1]  # two of three images outvote a sure one
    assert answers.agreement == pytest.approx([1 / 3, 1])


def test_the_majority_of_equals_is_the_more_probable():
    probability = np.array([[0.9, 0.05, 0.05], [0.1, 0.6, 0.3], [0.0, 0.3, 0.7]])
    answers = answer_patients(np.array(["A", "A", "B"]), np.zeros(3, int), np.array([0, 0, 2]), probability)
    assert answers.majority.tolist() == [0, 2]


def test_a_certain_image_does_not_silence_the_others():
    """A probability of 0 counts as the smallest, so that one image cannot exclude a class by itself."""
    probability = np.array([[1.0, 0.0]] + [[1e-9, 1 - 1e-9]] * 5)
    answers = answer_patients(np.full(6, "A"), np.zeros(6, int), np.ones(6, int), probability)
    assert np.isfinite(answers.probability).all()
    assert answers.predicted.tolist() == [1]


def test_answers_against_loops():
    patient, repeat, truth, probability = drawn()
    answers = answer_patients(patient, repeat, truth, probability)
    assert len(answers.patient) == 120
    for number in range(120):
        own = (patient == answers.patient[number]) & (repeat == answers.repeat[number])
        logs = np.log(probability[own]).mean(0)
        expected = np.exp(logs) / np.exp(logs).sum()
        assert answers.probability[number] == pytest.approx(expected)
        votes = np.bincount(probability[own].argmax(1), minlength=3)
        assert answers.share[number] == pytest.approx(votes / own.sum())
        assert answers.agreement[number] == pytest.approx(votes[expected.argmax()] / own.sum())
        assert answers.label[number] == truth[own][0]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_answers_do_not_depend_on_the_order_of_images(seed):
    patient, repeat, truth, probability = drawn(patients=12)
    order = np.random.default_rng(seed).permutation(len(truth))
    one = answer_patients(patient, repeat, truth, probability)
    other = answer_patients(patient[order], repeat[order], truth[order], probability[order])
    assert one.patient.tolist() == other.patient.tolist()
    assert one.probability == pytest.approx(other.probability)
    assert one.label.tolist() == other.label.tolist()
    assert one.images.tolist() == other.images.tolist()


def test_scores_against_scikit_learn():
    tests = drawn(repeats=1)
    answers = answer_patients(*tests)
    scores = measure_patients(("mlp", "head"), *tests, CLASSES)
    assert scores is not None
    assert scores.basis == "patients"
    truth, predicted = answers.label, answers.probability.argmax(1)
    expected = {
        "accuracy": reference.accuracy_score(truth, predicted),
        "recall": reference.recall_score(truth, predicted, average="macro"),
        "specificity": np.mean([reference.recall_score(truth != code, predicted != code) for code in range(3)]),
        "auroc": reference.roc_auc_score(truth, answers.probability, multi_class="ovr"),
        "f1": reference.f1_score(truth, predicted, average="macro"),
        "log_loss": reference.log_loss(truth, answers.probability),
    }
    for name, value in expected.items():
        assert scores.values[name] == pytest.approx(value), name
    assert scores.majority_accuracy == reference.accuracy_score(truth, answers.majority)
    assert (scores.patients, scores.several_labels) == (60, 0)
    for code, name in enumerate(CLASSES):
        own = scores.per_class[name]
        assert own.patients == (truth == code).sum()
        assert own.sensitivity == pytest.approx(reference.recall_score(truth == code, predicted == code))
        assert own.specificity == pytest.approx(reference.recall_score(truth != code, predicted != code))
        ends = share_interval(predicted[truth == code] == code, np.arange((truth == code).sum()))
        assert (own.sensitivity_low, own.sensitivity_high) == pytest.approx(ends)


@pytest.mark.slow
def test_intervals_are_a_bootstrap_over_patients(monkeypatch):
    """Patients drawn by hand, each with its answers of all repeats."""
    few = functools.partial(metric_intervals, draws=100)
    monkeypatch.setattr("ball_features.evaluation.patient_scores.metric_intervals", few)
    tests = drawn()
    answers = answer_patients(*tests)
    scores = measure_patients(("mlp", "head"), *tests, CLASSES)
    assert scores is not None
    names, code = np.unique(answers.patient, return_inverse=True)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=100)
    f1, auroc = [], []
    for draw in counts:
        rows = np.repeat(np.arange(len(code)), draw[code])
        truth, probability = answers.label[rows], answers.probability[rows]
        f1.append(reference.f1_score(truth, probability.argmax(1), average="macro"))
        auroc.append(reference.roc_auc_score(truth, probability, multi_class="ovr"))
    tail = norm.cdf(-np.sqrt(len(names) / (len(names) - 1)) * t.ppf(0.975, len(names) - 1))  # Hesterberg 2015
    assert scores.intervals["f1"] == pytest.approx(np.quantile(f1, [tail, 1 - tail]))
    assert scores.intervals["auroc"] == pytest.approx(np.quantile(auroc, [tail, 1 - tail]))


def test_repeats_of_a_patient_are_no_news():
    """The same answers ten times over leave the interval of the accuracy as it is."""
    patient, repeat, truth, probability = drawn(repeats=1)
    once = measure_patients(("m", "head"), patient, repeat, truth, probability, CLASSES)
    many = (
        np.tile(patient, 10), np.repeat(np.arange(10), len(truth)), np.tile(truth, 10), np.tile(probability, (10, 1))
    )  # fmt: skip
    ten = measure_patients(("m", "head"), *many, CLASSES)
    assert once is not None
    assert ten is not None
    assert ten.intervals["accuracy"] == pytest.approx(once.intervals["accuracy"])
    assert ten.patients == once.patients == 60


def test_patients_of_several_labels_are_answered_and_not_scored():
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.7, 0.3]])
    tests = (np.array(["A", "A", "B", "C"]), np.zeros(4, int), np.array([0, 1, 1, 0]), probability)
    assert answer_patients(*tests).label.tolist() == [SEVERAL_LABELS, 1, 0]
    scores = measure_patients(("m", "head"), *tests, ["x", "y"])
    assert scores is not None
    assert (scores.basis, scores.patients, scores.several_labels) == ("patients", 2, 1)
    assert scores.values["accuracy"] == 1.0


@pytest.mark.slow
def test_labels_of_images_are_averaged_over_patients():
    """Most patients have images of both classes: metrics within each patient, then their mean, against scikit-learn."""
    rng = np.random.default_rng(3)
    patient = np.repeat([f"P{number:02d}" for number in range(40)], rng.integers(4, 30, 40))
    truth = rng.integers(0, 2, len(patient))
    score = np.clip(0.5 * truth + rng.normal(0.25, 0.3, len(patient)), 0.01, 0.99)
    probability = np.column_stack([1 - score, score])
    scores = measure_patients(("m", "head"), patient, np.zeros(len(truth), int), truth, probability, ["x", "y"])
    assert scores is not None
    assert (scores.basis, scores.patients) == ("images", 40)
    each = {"accuracy": [], "recall": [], "f1": [], "auroc": []}
    sensitivity, specificity = [], []
    for name in np.unique(patient):
        t, p, q = truth[patient == name], (score > 0.5)[patient == name], score[patient == name]
        each["accuracy"].append(reference.accuracy_score(t, p))
        each["recall"].append(reference.balanced_accuracy_score(t, p))
        each["f1"].append(reference.f1_score(t, p, average="macro"))
        each["auroc"].append(reference.roc_auc_score(t, q))
        sensitivity.append(reference.recall_score(t, p))
        specificity.append(reference.recall_score(1 - t, ~p))
    for name, values in each.items():
        assert scores.values[name] == pytest.approx(np.mean(values)), name
    assert scores.per_class["y"].sensitivity == pytest.approx(np.mean(sensitivity))
    assert scores.per_class["y"].specificity == pytest.approx(np.mean(specificity))
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=1000)
    tail = norm.cdf(-np.sqrt(40 / 39) * t_of(39))
    expected = np.quantile(counts @ np.array(each["accuracy"]) / 40, [tail, 1 - tail])
    assert scores.intervals["accuracy"] == pytest.approx(expected)
    assert np.isnan(scores.majority_accuracy)


def t_of(freedom):
    return t.ppf(0.975, freedom)


@pytest.mark.slow
def test_scores_survive_json():
    for tests in (drawn(repeats=1), (*drawn(repeats=1)[:2], *drawn(seed=1, repeats=1)[2:])):
        count = min(map(len, tests))
        scores = measure_patients(("m", "head"), *(part[:count] for part in tests), CLASSES)
        assert scores is not None
        text = json_text(scores)
        assert "NaN" not in text
        assert json_text(PatientScores.from_dict(json.loads(text))) == text


def test_no_patient_at_all():
    tests = (np.array(["", ""]), np.zeros(2, int), np.array([0, 1]), np.full((2, 2), 0.5))
    assert len(answer_patients(*tests).patient) == 0
    assert measure_patients(("m", "head"), *tests, ["x", "y"]) is None


def test_a_class_without_patients_has_no_sensitivity():
    tests = (np.array(["A", "B"]), np.zeros(2, int), np.array([0, 1]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]))
    scores = measure_patients(("m", "head"), *tests, CLASSES)
    assert scores is not None
    assert np.isnan(scores.per_class["Pre"].sensitivity)
    assert np.isnan(scores.per_class["Pre"].sensitivity_low)
    assert scores.values["recall"] == 1.0


def test_the_file(tmp_path):
    answers = answer_patients(
        np.array(["=A", "=A", "B\r"]), np.zeros(3, int), np.array([0, 1, 1]),
        np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]),
    )  # fmt: skip
    write_csv(tmp_path / "patients.csv", patient_columns(["x", "y"]), patient_rows("mlp", answers, ["x", "y"]))
    rows = list(read_csv(tmp_path / "patients.csv"))
    assert list(rows[0]) == [
        "model", "repeat", "patient", "images", "label", "predicted", "majority", "agreement", "p_x", "p_y", "share_x",
        "share_y",
    ]  # fmt: skip
    assert [row["patient"] for row in rows] == ["=A", "B\r"]
    assert [row["label"] for row in rows] == ["", "y"]
    assert [row["predicted"] for row in rows] == ["x", "y"]
    assert float(rows[0]["p_x"]) == answers.probability[0, 0]
    with (tmp_path / "patients.csv").open(newline="") as file:
        assert next(csv.reader(file))[0] == "model"
