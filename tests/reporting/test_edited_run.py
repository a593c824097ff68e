"""A report reads table and predictions of a run, which must agree; names come back as they were."""

import json
import shutil
import time

import pytest

from ball_features import FitConfig, fit
from ball_features.errors import DataError
from ball_features.reporting.page import write_report
from ball_features.reporting.stored_run import read_stored_run
from tests.made import clouds, write_cache

ODD = {"Benign": "=Benign", "Early": "+1", "Pre": "@Pre", "Pro": "'Pro"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited")
    embeddings, label = clouds(20)
    cache = write_cache(folder / "a.h5", embeddings, [ODD[name] for name in label])
    return fit(cache, FitConfig(models=("logistic", "lda"), repeats=1, jobs=1), out_root=folder, name="run").folder


def test_names_that_spreadsheets_would_run_are_read_back(run):
    stored = read_stored_run(run)
    assert set(stored.classes) == set(ODD.values())
    assert {path.split("/")[0] for path in stored.predictions["lda"].path} <= set(ODD.values())
    assert b"'=Benign/" in (run / "predictions.csv").read_bytes()
    write_report(run)


def table(change):
    def edit(folder):
        values = json.loads((folder / "metrics.json").read_text())
        change(values["models"][0] if isinstance(values["models"], list) else next(iter(values["models"].values())))
        (folder / "metrics.json").write_text(json.dumps(values))

    return edit


def predictions(change):
    def edit(folder):
        lines = (folder / "predictions.csv").read_text().splitlines(keepends=True)
        (folder / "predictions.csv").write_text("".join(change(lines)))

    return edit


def swap_probabilities(lines):
    cells = lines[1].rstrip("\n").split(",")
    return [lines[0], ",".join([*cells[:-2], cells[-1], cells[-2]]) + "\n", *lines[2:]]


EDITS = {
    "a row less": predictions(lambda lines: lines[:-1]),
    "a row twice": predictions(lambda lines: [*lines, lines[-1]]),
    "no predictions": predictions(lambda lines: lines[:1]),
    "two probabilities changed places": predictions(swap_probabilities),
    "a probability of nan": predictions(lambda lines: [lines[0], lines[1].rsplit(",", 1)[0] + ",nan\n", *lines[2:]]),
    "a cell that is no number": predictions(lambda lines: [lines[0], lines[1].rsplit(",", 1)[0] + ",x\n", *lines[2:]]),
    "a better accuracy": table(lambda row: row.update(accuracy=0.999)),
    "a better F1": table(lambda row: row.update(f1=0.999)),
    "another confusion matrix": table(lambda row: row["confusion"][0].reverse()),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_run_is_refused(run, tmp_path, edit):
    folder = shutil.copytree(run, tmp_path / "run")
    edit(folder)
    page = (folder / "report.html").read_bytes()
    with pytest.raises(DataError, match=r"was edited or damaged|holds no run"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == page


CLAIMS = {
    "a confusion matrix of another size": lambda values: values["models"][0].update(
        confusion={"classes": 1_000_000, "counts": []}
    ),
    "a number that no float holds": lambda values: values["models"][0].update(fit_s=10**400),
    "one model many times": lambda values: values.update(models=values["models"][:1] * 2000),
    "one class many times": lambda values: values.update(classes=values["classes"] * 2),
    "very many classes": lambda values: values.update(classes=[f"class {number}" for number in range(100_000)]),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_run_that_claims_much_is_refused_at_once(run, tmp_path, claim):
    folder = shutil.copytree(run, tmp_path / "run")
    values = json.loads((folder / "metrics.json").read_text())
    claim(values)
    (folder / "metrics.json").write_text(json.dumps(values))
    start = time.process_time()
    with pytest.raises(DataError, match="holds no run"):
        read_stored_run(folder)
    assert time.process_time() - start < 5
