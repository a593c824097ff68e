"""`ball evaluate`: what it writes is right, what cannot be scored is reported apart, wrong input is refused."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from ball_features import FitConfig, evaluate, fit, read_bundle, read_cache
from ball_features.cli import app
from ball_features.config import CollectionConfig, EvaluateConfig
from ball_features.errors import CacheError, ConfigError, DataError
from ball_features.evaluation.intervals import wilson
from benchmarks.external import check
from tests.made import clouds, write_cache


@pytest.fixture(scope="module")
def bundle(small_cache, tmp_path_factory):
    config = FitConfig(models=("logistic",), repeats=1, test_size=0.3, val_size=0.3, train_views="plain")
    run = fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="logistic")
    return run.folder / "models" / "logistic"


@pytest.fixture(scope="module")
def elsewhere(small_cache, bundle):
    """The cache with noise on its embeddings, so that no image is one of training, and columns of a sheet."""
    cache = read_cache(small_cache)
    rng = np.random.default_rng(0)
    plain = cache.embeddings.astype(np.float32)
    noisy = plain + rng.normal(0, 0.3 * plain.std(), plain.shape)
    count = len(cache.path)
    patient = np.array([f"{label}{row % 3}" for row, label in enumerate(cache.label)])
    site = np.array(["north", "south"])[np.arange(count) % 2]
    return replace(cache, embeddings=noisy.astype(np.float32), columns={"patient": patient, "site": site}, mapped=None)


def rows_of(folder, name="predictions.csv"):
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_evaluation_and_its_files_agree(bundle, elsewhere, tmp_path):
    done = evaluate(bundle, elsewhere, out=tmp_path)
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert values["accuracy"] == done.accuracy
    assert 0 <= values["accuracy_low"] <= values["accuracy"] <= values["accuracy_high"] <= 1
    assert values["n"] == 48
    assert check(tmp_path)  # the same figures by other code, from predictions.csv alone
    rows = rows_of(tmp_path)
    assert {row["status"] for row in rows} == {"scored"}
    own = read_bundle(bundle).facts.test
    assert own is not None
    assert values["published"]["accuracy"]["images"] == own.images
    assert values["published"]["accuracy"]["low"] == own.accuracy_low < own.accuracy < own.accuracy_high
    assert values["patients"]["patients"] == 12
    assert len(rows_of(tmp_path, "patients.csv")) == 12
    assert [row["site"] for row in values["sites"]["each"]] == ["north", "south"]
    for own in values["sites"]["each"]:
        flags = [row["unusual"] == "true" for row in rows if row["site"] == own["site"]]
        assert own["flagged"] == pytest.approx(np.mean(flags))
    assert values["trained_on"] == 0
    assert json.loads((tmp_path / "verdict.json").read_text()) == values["verdict"]
    page = (tmp_path / "evaluation.html").read_text()
    assert "http:" not in page and "https:" not in page
    assert done.findings[0].sentence.split(".")[0] in page


@pytest.mark.slow
def test_the_bundle_s_own_interval_is_that_of_its_groups(small_cache, elsewhere, tmp_path):
    """Images of a patient are right or wrong together; an interval by images would be too short."""
    cache = read_cache(small_cache)
    groups = tmp_path / "groups.csv"
    lines = [f"{path},{label}{row % 4}" for row, (path, label) in enumerate(zip(cache.path, cache.label, strict=True))]
    groups.write_text("\n".join(["path,patient", *lines]) + "\n")
    config = FitConfig(models=("logistic",), repeats=1, test_size=0.3, train_views="plain", groups=str(groups))
    run = fit(small_cache, config, out_root=tmp_path / "runs", save="logistic")
    folder = run.folder / "models" / "logistic"
    own = read_bundle(folder).facts.test
    assert own is not None
    row = next(item for item in run.metrics if item.model == "logistic")
    assert (own.accuracy_low, own.accuracy_high) == pytest.approx(row.intervals["accuracy"])
    assert own.units < own.images
    done = evaluate(folder, elsewhere)
    assert done.published is not None
    assert (done.published.accuracy.low, done.published.accuracy.high) == (own.accuracy_low, own.accuracy_high)
    here = done.scores.intervals["accuracy"]
    assert done.published.low == pytest.approx(
        own.accuracy - done.accuracy - np.hypot(own.accuracy - own.accuracy_low, here[1] - done.accuracy)
    )
    facts = json.loads((folder / "bundle.json").read_text())
    for name in ("units", "accuracy_low", "accuracy_high"):  # a bundle of an earlier version
        del facts["test"][name]
    (folder / "bundle.json").write_text(json.dumps(facts))
    (folder / "SHA256SUMS").unlink()
    before = evaluate(folder, elsewhere).published
    assert before is not None
    assert (before.accuracy.low, before.accuracy.high) == wilson(own.accuracy, own.images)


@pytest.mark.slow
def test_labels_that_the_bundle_lacks_are_reported_apart(bundle, elsewhere, tmp_path):
    label = np.where(np.arange(48) % 4 == 0, "", elsewhere.label).astype("<U20")
    label[label == "Pro"] = "Other disease"
    label[label == "Pre"] = "pre"  # reads alike
    done = evaluate(bundle, replace(elsewhere, label=label), out=tmp_path)
    counts = done.counts
    assert counts.unlabelled == 12
    assert counts.unknown == {"Other disease": 9}
    assert counts.scored == 27
    assert counts.absent == ("Pro",)
    assert counts.matched == {"pre": "Pre"}
    assert {"labels-unknown", "classes-absent"} <= {finding.code for finding in done.findings}
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert values["per_class"]["Pro"]["recall"] is None
    rows = rows_of(tmp_path)
    assert len(rows) == 48  # all are predicted
    assert sum(row["status"] == "unknown label" for row in rows) == 9
    assert all(row["covered"] == "" for row in rows if row["status"] != "scored")
    assert "Other disease" in (tmp_path / "evaluation.html").read_text()
    assert check(tmp_path)
    with pytest.raises(DataError, match=r"None of 48 images .* its classes are Benign.*blast"):
        evaluate(bundle, replace(elsewhere, label=np.full(48, "blast")))
    with pytest.raises(DataError, match="`ball predict`"):
        evaluate(bundle, replace(elsewhere, label=np.full(48, "")))


def test_images_of_training_are_named(bundle, small_cache):
    done = evaluate(bundle, small_cache)
    trained = set(read_bundle(bundle).train_path)
    assert {item.prediction.path for item in done.images if item.trained_on} == trained
    finding = next(item for item in done.findings if item.code == "trained-on-these")
    assert (finding.severity, finding.numbers["images"]) == ("serious", len(trained))


@pytest.mark.slow
def test_a_folder_gives_what_its_cache_gives(bundle, small_cache, smears, tmp_path):
    for name in ("Benign", "Pro"):
        shutil.copytree(smears / name, tmp_path / "images" / name)
    (tmp_path / "images" / "Pro" / "bad.png").write_bytes(b"no image")
    done = evaluate(bundle, tmp_path / "images", EvaluateConfig(recalibrate=0), out=tmp_path / "out")
    assert [path for path, _ in done.rejected] == ["Pro/bad.png"]
    assert done.counts.absent == ("Early", "Pre")
    assert done.recalibration is None
    cached = {item.prediction.path: item.prediction for item in evaluate(bundle, small_cache).images}
    assert len(done.images) == 24
    for item in done.images:
        expected = cached[item.prediction.path].probability
        assert item.prediction.probability == pytest.approx(expected, abs=0.02)
    assert check(tmp_path / "out")


def test_a_sheet_names_the_classes_of_a_cache(bundle, elsewhere, tmp_path):
    sheet = {"path": elsewhere.path.tolist(), "label": ["Pre"] * 48, "hospital": ["east"] * 48}
    done = evaluate(bundle, elsewhere, sheet=sheet)
    assert done.counts.absent == ("Benign", "Early", "Pro")
    assert [row.site for row in done.scores.sites] == ["east"]
    lines = "\n".join(["path;diagnosis", *(f"{path};Pro" for path in elsewhere.path)])
    (tmp_path / "s.csv").write_text(lines)
    done = evaluate(bundle, elsewhere, collection=CollectionConfig(sheet=str(tmp_path / "s.csv")))
    assert "Pro" not in done.counts.absent


def test_ids_of_patients_that_read_alike_are_said(bundle, elsewhere):
    names = np.array(["P1", "p1", "P01", "P2"])[np.arange(48) % 4]
    done = evaluate(bundle, replace(elsewhere, columns={"patient": names}))
    said = "Values of patient that read alike are kept apart: 'P01' and 'P1' and 'p1'."
    assert any(note.startswith(said) for note in done.notes)


@pytest.mark.slow
def test_the_model_card_quotes_evaluations_of_its_own_bundle(bundle, elsewhere, tmp_path):
    done = evaluate(bundle, elsewhere, out=tmp_path / "north")
    command = ["export", str(bundle), "--card", str(tmp_path / "card.md"), "--evaluation"]
    printed = CliRunner().invoke(app, [*command, str(tmp_path / "north")])
    assert printed.exit_code == 0, printed.output
    card = (tmp_path / "card.md").read_text()
    section = card.split("## Images of elsewhere")[1].split("## Limits")[0]
    assert f"| 48 | {100 * done.accuracy:.1f} (" in section
    for finding in done.findings:
        assert (finding.sentence in card) == (finding.severity in ("serious", "warning"))
    values = json.loads((tmp_path / "north" / "evaluation.json").read_text())
    values["bundle"]["sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(values))
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "other.json")])
    assert "the evaluation of another bundle" in str(refused.exception)
    (tmp_path / "bad.json").write_text("{}")
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "bad.json")])
    assert "holds no external evaluation" in str(refused.exception)


def test_a_cache_of_other_settings_is_refused(bundle, elsewhere):
    for name, value in (("weights_sha256", "0" * 64), ("normalize", "none")):
        other = replace(elsewhere, attributes=elsewhere.attributes | {name: value})
        with pytest.raises(CacheError, match="other embeddings"):
            evaluate(bundle, other)


@pytest.mark.slow
def test_a_final_model_is_compared_with_its_folds(small_cache, elsewhere, tmp_path):
    from ball_features.config import Saving

    config = FitConfig(models=("logistic",), repeats=1, test_size=0.3, val_size=0.3, train_views="plain")
    run = fit(small_cache, config, out_root=tmp_path, save=Saving(save="logistic", final=True))
    done = evaluate(run.folder / "models" / "logistic", elsewhere)
    assert done.published is not None
    assert "folds" in done.published.source
    assert done.published.accuracy.images == 48


@pytest.mark.slow
def test_the_command(bundle, small_cache, tmp_path):
    run = CliRunner().invoke
    done = run(app, ["evaluate", str(bundle), "--cache", str(small_cache), "--out", str(tmp_path / "e")])
    assert done.exit_code == 0, done.output
    assert "Serious: The model was trained on" in done.output
    assert "its own test" in done.output
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        "evaluation.html", "evaluation.json", "predictions.csv", "verdict.json",
    ]  # fmt: skip
    printed = run(app, ["evaluate", str(bundle), "--cache", str(small_cache), "-o", str(tmp_path / "e"), "--as-json"])
    printed = (
        printed
        if not printed.exit_code
        else run(app, ["evaluate", str(bundle), "--cache", str(small_cache), "-o", str(tmp_path / "e"), "--json"])
    )
    assert json.loads(printed.stdout)["n"] == 48
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.csv").write_text("path,own notes\n")
    foreign = run(app, ["evaluate", str(bundle), "--cache", str(small_cache), "-o", str(tmp_path / "mine")])
    assert "nothing tells that ball has written it" in str(foreign.exception)
    both = run(app, ["evaluate", str(bundle), "somewhere", "--cache", str(small_cache), "-o", str(tmp_path / "e")])
    assert isinstance(both.exception, ConfigError)
    neither = run(app, ["evaluate", str(bundle), "-o", str(tmp_path / "e")])
    assert isinstance(neither.exception, ConfigError)


@pytest.mark.slow
def test_images_of_training_are_named_for_a_bundle_that_is_adapted_to_sites(tmp_path):
    embeddings, label = clouds(60)
    site = np.arange(240) % 3
    embeddings = embeddings + np.random.default_rng(0).normal(size=(3, 16))[site] * 2
    cache = write_cache(tmp_path / "c.h5", embeddings, label, {"site": [f"H{own}" for own in site]})
    config = FitConfig(models=("logistic",), repeats=1, adapt="auto")
    (folder,) = fit(cache, config, out_root=tmp_path, save="logistic").bundles
    trained = set(read_bundle(folder).train_path)
    named = read_cache(cache)
    for columns in (named.columns, {}):  # also where the images name no site
        done = evaluate(folder, replace(named, columns=columns))
        assert {item.prediction.path for item in done.images if item.trained_on} == trained
