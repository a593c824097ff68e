"""A report reads table and predictions of a run, which must agree; names come back as they were."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ball_features import FitConfig, fit
from ball_features.cli import app
from ball_features.config.toml import read_settings
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.run_details import COMPARISON, read_details
from ball_features.reporting.joint import write_joint_report
from ball_features.reporting.page import write_report
from ball_features.reporting.provenance import provenance_block
from ball_features.reporting.published import published_sections
from ball_features.reporting.run_list import read_summary
from ball_features.reporting.stored_run import read_stored_run
from ball_features.runs.store import read_run
from tests.commands import ball
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


def models(change):
    def edit(folder):
        values = json.loads((folder / "metrics.json").read_text())
        change(values["models"])
        (folder / "metrics.json").write_text(json.dumps(values))

    return edit


def table(change, row=0):
    return models(lambda rows: change(rows[row]))


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
    "a model that is called a shortcut": table(lambda row: row.update(kind="shortcut")),
    "another confusion matrix": table(lambda row: row["confusion"][0].reverse()),
    "a better recall of a class": table(lambda row: next(iter(row["per_class"].values())).update(recall=0.9999)),
    "a better repeat": table(lambda row: row.update(accuracy_by_repeat={"0": 0.9999})),
    "a repeat that was not run": table(lambda row: row["accuracy_by_repeat"].update({"7": 1.0})),
    "another McNemar test": table(lambda row: row.update(mcnemar_p_against_best=0.0123), 1),
    "a tie that is none": table(lambda row: row.update(p_against_best=0.001, ties_best=True), 1),
    "other rows first": models(lambda rows: rows.reverse()),
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


WRONG = (None, 5, -1.5, True, "x", [], [5], {}, {"a": 5}, [[]], [{"a": None}])


@pytest.mark.slow
def test_each_field_of_a_run_is_of_its_type_or_named(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    whole = json.loads((folder / "run.json").read_text())
    refused, stored = 0, read_stored_run(run)
    for inside in ((), ("config",), ("cache_attributes",)):
        for field in whole[inside[0]] if inside else whole:
            for value in WRONG:
                details = json.loads(json.dumps(whole))
                (details[inside[0]] if inside else details)[field] = value
                (folder / "run.json").write_text(json.dumps(details))
                try:
                    read_details(folder, COMPARISON)
                except DataError as error:
                    assert f"{folder / 'run.json'} was edited or damaged: " in str(error)
                    assert f"{'.'.join((*inside, field))} is " in str(error) or "it lacks config." in str(error)
                    refused += 1
                    continue
                provenance_block(details)
                published_sections(replace(stored, details=details))
                read_summary(folder)
    assert refused > 200


@pytest.mark.parametrize("field", COMPARISON)
def test_a_field_of_a_run_that_is_missing_is_named(run, tmp_path, field):
    folder = shutil.copytree(run, tmp_path / "run")
    details = json.loads((folder / "run.json").read_text())
    del details[field]
    (folder / "run.json").write_text(json.dumps(details))
    for read in (write_report, read_run, lambda own: write_joint_report([own, own], tmp_path / "a.html", [None, None])):
        with pytest.raises(DataError, match=f"run.json was edited or damaged: it lacks {field}"):
            read(folder)


@pytest.mark.slow
@pytest.mark.parametrize("value", [5, {"a": 1}])
def test_an_edited_field_gives_one_message(run, tmp_path, value):
    folder = shutil.copytree(run, tmp_path / "run")
    details = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(details | {"title": value}))
    found = ball("report", folder)
    assert found.returncode == 2, found.stderr
    assert "was edited or damaged: title is" in " ".join(found.stderr.split())


@pytest.mark.parametrize("field", ["cache", "cache_from_run"])
@pytest.mark.parametrize("kind", ["ftp", "http", "s3"])
def test_an_address_in_a_run_is_not_followed(run, tmp_path, monkeypatch, field, kind):
    folder = shutil.copytree(run, tmp_path / "run")
    details = json.loads((folder / "run.json").read_text())
    details |= {"cache": "gone.h5", field: f"{kind}://127.0.0.1/a.h5"}
    details["config"]["groups"] = f"{kind}://127.0.0.1/groups.csv"
    (folder / "run.json").write_text(json.dumps(details))
    monkeypatch.setattr("ball_features.cache.remote._Remote.at", lambda place: pytest.fail("an address was opened"))
    found = CliRunner().invoke(app, ["report", str(folder)])
    assert found.exit_code == 0
    assert "which is opened only if you give it" in " ".join(found.output.split())
    assert (folder / "report.html").exists()
    with pytest.raises(ConfigError, match="groups is an address"):
        read_settings(folder / "run.json")
    details["config"] |= {"groups": None}
    (folder / "run.json").write_text(json.dumps(details))
    assert ("cache" in read_settings(folder / "run.json")) is (field != "cache")
    details["config"] |= {"cluster": "10.0.0.1:8786"}
    (folder / "run.json").write_text(json.dumps(details))
    with pytest.raises(ConfigError, match="cluster is an address"):
        read_settings(folder / "run.json")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["another cache", "same images", "text", "pipe", "device", "folder", "gone"])
@pytest.mark.parametrize("field", ["cache", "cache_from_run"])
def test_another_file_that_a_run_names_as_its_cache_is_not_used(run, tmp_path, kind, field):
    """The page has no map then, and says why; the file stays as it is, and a pipe is not waited for."""
    folder, other = shutil.copytree(run, tmp_path / "run"), tmp_path / "other.h5"
    embeddings, label = clouds(20, seed=1)
    if kind == "another cache":
        write_cache(other, embeddings, label)
    elif kind == "same images":  # other numbers, by other settings
        write_cache(other, embeddings, [ODD[name] for name in label], fingerprint="e" * 64)
    elif kind == "text":
        other.write_text("mine")
    elif kind == "pipe":
        os.mkfifo(other)
    elif kind == "folder":
        other.mkdir()
    place = "/dev/zero" if kind == "device" else str(other)
    before = other.read_bytes() if other.is_file() else b""
    details = json.loads((folder / "run.json").read_text())
    details |= {"cache": "gone.h5", field: place}
    if field == "cache":
        del details["cache_from_run"]
    (folder / "run.json").write_text(json.dumps(details))
    for words in (["report", folder], ["report", folder, "--out", tmp_path / "page.html"], ["runs", tmp_path]):
        found = CliRunner().invoke(app, [str(word) for word in words])
        assert found.exit_code == 0, (found.output, found.exception)
        if words[0] == "report":
            said = " ".join(found.output.split())
            assert "The page has no map of the embeddings; where the cache has moved, give --cache." in said
    assert CliRunner().invoke(app, ["report", str(run), "--quiet"]).exit_code == 0
    for own, mapped in ((run, True), (folder, False)):
        assert ('class="map"' in (own / "report.html").read_text(encoding="utf-8")) is mapped
    assert (other.read_bytes() if other.is_file() else b"") == before


def test_a_page_names_what_was_not_checked(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    verdict = json.loads((folder / "verdict.json").read_text())
    (folder / "verdict.json").write_text(json.dumps([verdict[-1] | {"sentence": "All is well."}]))
    models(lambda rows: [row.update(fit_s=0.001) for row in rows])(folder)
    page = " ".join(write_report(folder).read_text(encoding="utf-8").split())
    assert "p-values of the McNemar test were computed from predictions.csv again, and agree." in page
    assert "seconds, notes and the verdict, was not checked: it is as the files of the run say." in page


@pytest.mark.parametrize("edit", [Path.unlink, lambda path: path.write_text("[]"), None])
def test_a_verdict_that_is_missing_or_empty_is_said(run, tmp_path, edit):
    folder = shutil.copytree(run, tmp_path / "run")
    if edit is not None:
        edit(folder / "verdict.json")
    page = write_report(folder).read_text(encoding="utf-8")
    assert ("its verdict.json is missing or empty" in page) is (edit is not None)
