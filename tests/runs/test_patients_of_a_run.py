"""The patient level of a run: its files, its tables, and its numbers from the predictions alone."""

import csv
import json

import numpy as np
import pytest
from sklearn import metrics as reference

from ball_features import FitConfig, fit, read_cache, read_run
from ball_features.evaluation.patient_scores import measure_patients
from ball_features.files import read_csv
from ball_features.reporting.patient_table import patient_table, render_patients


@pytest.fixture(scope="module")
def groups(small_cache, tmp_path_factory):
    """Three images a patient, all of one class; the last image has no patient."""
    paths = read_cache(small_cache, embeddings=False).path
    file = tmp_path_factory.mktemp("groups") / "patients.csv"
    lines = [f"{path},P{row // 3}" for row, path in enumerate(paths[:-1])]
    file.write_text("\n".join(["path,patient", *lines, f"{paths[-1]},"]) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def run(small_cache, groups, tmp_path_factory):
    config = FitConfig(protocol="holdout", models=("logistic", "colour"), repeats=2, groups=str(groups))
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"))


def test_patients_are_whole_and_their_numbers_can_be_recomputed(run, groups):
    patient = {row["path"]: row["patient"] for row in read_csv(groups)}
    sides = {}
    for row in read_csv(run.folder / "splits.csv"):
        if patient[row["path"]]:
            sides.setdefault((row["repeat"], row["fold"], patient[row["path"]]), set()).add(row["split"])
    assert {len(own) for own in sides.values()} == {1}
    predictions = list(read_csv(run.folder / "predictions.csv"))
    classes = [name[2:] for name in predictions[0] if name.startswith("p_")]
    answers = list(read_csv(run.folder / "patients.csv"))
    for scores in run.patients:
        own = [row for row in answers if row["model"] == scores.model]
        for row in own:
            images = [
                item for item in predictions
                if item["model"] == scores.model and item["repeat"] == row["repeat"]
                and patient[item["path"]] == row["patient"]
            ]  # fmt: skip
            assert int(row["images"]) == len(images) == (2 if row["patient"] == "P15" else 3)
            own_probability = np.array([[float(item[f"p_{name}"]) for name in classes] for item in images])
            logs = np.log(np.maximum(own_probability, np.finfo(float).eps)).mean(0)
            expected = np.exp(logs) / np.exp(logs).sum()
            assert [float(row[f"p_{name}"]) for name in classes] == pytest.approx(expected)
            assert row["predicted"] == classes[expected.argmax()]
            assert float(row["agreement"]) == np.mean([item["predicted"] == row["predicted"] for item in images])
        truth, predicted = [row["label"] for row in own], [row["predicted"] for row in own]
        assert scores.values["accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted))
        assert scores.values["f1"] == pytest.approx(
            reference.f1_score(truth, predicted, average="macro", labels=list(set(truth)))
        )
        low, high = scores.intervals["accuracy"]
        assert low <= scores.values["accuracy"] <= high
        assert (scores.patients, scores.basis) == (len({row["patient"] for row in own}), "patients")


def test_a_reader_is_told(run):
    count = run.patients[0].patients
    assert any(f"{count} patients are scored" in note for note in run.notes)
    assert any("No split cuts a patient: all images of each of the 16 patients" in note for note in run.notes)
    assert "choice of patients" in run.caption
    text = (run.folder / "table.md").read_text(encoding="utf-8")
    assert f"By patient: one answer for each of {count} patients" in text
    assert "| logistic | Benign |" in text
    details = json.loads((run.folder / "metrics.json").read_text())
    assert [own["model"] for own in details["patients"]] == [row.model for row in run.metrics]
    assert read_run(run.folder).patients == run.patients
    assert len(run.more_tables()) == 1


def test_a_run_without_patients_has_no_patient_level(small_cache, tmp_path):
    run = fit(small_cache, FitConfig(models=("majority",), repeats=1), out_root=tmp_path)
    assert run.patients == []
    assert not (run.folder / "patients.csv").exists()
    assert "By patient" not in (run.folder / "table.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_patients_with_images_of_every_class(small_cache, tmp_path):
    paths = read_cache(small_cache, embeddings=False).path
    file = tmp_path / "patients.csv"
    file.write_text("path,patient\n" + "\n".join(f"{path},P{row % 8}" for row, path in enumerate(paths)) + "\n")
    config = FitConfig(protocol="patient-cv", models=("logistic",), repeats=1, folds=4, groups=str(file))
    run = fit(small_cache, config, out_root=tmp_path)
    (scores,) = run.patients
    assert (scores.basis, scores.patients, scores.several_labels) == ("images", 8, 8)
    rows = list(read_csv(run.folder / "predictions.csv"))
    patient = {row["path"]: row["patient"] for row in read_csv(file)}
    each = {}
    for row in rows:
        each.setdefault(patient[row["path"]], []).append(row["label"] == row["predicted"])
    assert scores.values["accuracy"] == pytest.approx(np.mean([np.mean(own) for own in each.values()]))
    assert any("All 8 patients have images of several classes, so that a patient has no" in n for n in run.notes)
    with (run.folder / "patients.csv").open(newline="", encoding="utf-8") as table:
        assert {row["label"] for row in csv.DictReader(table)} == {""}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["given", "leave-site-out"])
def test_given_splits_and_sites_from_a_sheet(small_cache, tmp_path, monkeypatch, protocol):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 4)
    paths = read_cache(small_cache, embeddings=False).path
    file = tmp_path / "sheet.csv"
    part = ["train", "train", "test", "val"]
    lines = [f"{path},{part[row % 4]},site {row % 3}" for row, path in enumerate(paths)]
    file.write_text("\n".join(["path,split,site", *lines]) + "\n")
    config = FitConfig(protocol=protocol, models=("logistic", "robust-logistic"), groups=str(file))
    run = fit(small_cache, config, out_root=tmp_path)
    assert {row.model for row in run.metrics} == {"logistic", "robust-logistic"}
    tested = {row["path"] for row in read_csv(run.folder / "splits.csv") if row["split"] == "test"}
    if protocol == "given":
        assert tested == set(paths[2::4].tolist())
        assert run.title.startswith("the given split · ")
    else:
        assert tested == set(paths.tolist())
        assert {row.group for row in run.groups} == {"site 0", "site 1", "site 2"}


@pytest.mark.parametrize("classes", [2, 3])
def test_the_table_names_the_sensitivity_of_two_classes(classes):
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(classes), 20)
    probability = rng.dirichlet(np.ones(classes), len(truth)) + np.eye(classes)[truth]
    patient, names = np.arange(len(truth)).astype(str), ["[a]", "b", "c"][:classes]
    own = measure_patients(("m", "head"), patient, np.zeros(len(truth), int), truth, probability / 2, names)
    assert own is not None
    (table,) = render_patients([own])
    headings = [str(column.header) for column in table.columns]  # pyright: ignore
    text = patient_table([own])
    if classes == 2:
        assert headings == ["model", "kind", "accuracy", "sensitivity [a]", "sensitivity b", "F1", "AUROC"]
    else:
        assert headings == ["model", "kind", "accuracy", "sensitivity", "specificity", "F1", "AUROC"]
    assert f"| {' | '.join(headings)} |" in text
    assert f"| m | b | 20 | {100 * own.per_class['b'].sensitivity:.1f} (" in text
    assert render_patients([]) == []
    assert patient_table([]) == ""
