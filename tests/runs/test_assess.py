"""One command from a folder to a verdict."""

import json
import os
import shutil
import subprocess
from unittest.mock import Mock

import pytest

from ball_features import ExtractConfig, FitConfig, draw_smears
from ball_features.config import CollectionConfig
from ball_features.errors import DataError
from ball_features.reporting.run_list import list_runs
from ball_features.runs.assess import assess, keep_note
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("tiny_densenet")
EMBEDDING = ExtractConfig(TINY, weights="random", input_px=64, precision="fp32")
MODELS = FitConfig(models=("logistic", "majority", "colour", "nuclei"), repeats=1, jobs=1)


@pytest.fixture(scope="module")
def assessed(tmp_path_factory, few_smears, tiny_densenet):
    out = tmp_path_factory.mktemp("assess")
    told = []
    return assess(few_smears, out, EMBEDDING, MODELS, progress=lambda *step: told.append(step)), told


@pytest.mark.slow
def test_a_folder_gets_a_verdict_and_a_page(assessed):
    done, told = assessed
    written = json.loads((done.folder / "verdict.json").read_text(encoding="utf-8"))
    assert [item["code"] for item in written] == [finding.code for finding in done.findings]
    assert "random-weights" in {item["code"] for item in written}
    for item in written:
        assert set(item) == {"code", "severity", "numbers", "sentence", "next"}
    assert done.page.parent == done.folder
    assert done.page.suffix == ".html"
    for name in ("cache.h5", "groups.csv", "audit.json"):
        assert (done.folder / name).is_file()
    assert {row.model for row in done.rows} == set(MODELS.models)
    words = [word for item in written for word in item["next"].split() if word.endswith(".csv")]
    assert set(words) <= {str(done.folder / "groups.csv")}
    steps = [step for step, *_ in told]
    assert steps == sorted(steps)
    assert {total for _, total, _ in told} == {1000}


@pytest.mark.parametrize("out", [".", "Pro", "Pro/..", "link"])
def test_an_output_folder_that_holds_the_images_is_refused(smears, tmp_path, out):
    images = tmp_path / "all" / "images"
    shutil.copytree(smears, images)
    (images / "link").symlink_to(images / "Pro")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(DataError, match="Images lie in the output folder"):
        assess(images, images / out, EMBEDDING, MODELS)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can mount")
def test_a_second_path_to_the_images_is_no_output_folder(smears, tmp_path):
    (tmp_path / "out").mkdir()
    if subprocess.run(["mount", "--bind", smears, tmp_path / "out"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        before = {path.name for path in smears.iterdir()}
        for out in (tmp_path / "out", tmp_path / "out" / "Pro"):
            with pytest.raises(DataError, match="Images lie in the output folder"):
                assess(smears, out)
        assert {path.name for path in smears.iterdir()} == before
    finally:
        subprocess.run(["umount", tmp_path / "out"], check=True)


@pytest.mark.slow
def test_a_note_is_on_the_page_and_in_the_list_of_runs(assessed):
    done, _ = assessed
    keep_note(done, "scanner <2>")
    (run,) = list_runs(done.folder).runs
    assert (run.protocol, run.note) == ("ladder", "scanner <2>")
    for page in (done.page, done.folder / "ladder" / "report.html"):
        assert "Note: scanner &lt;2&gt;" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_is_done_is_not_done_again(assessed, few_smears, monkeypatch):
    done, _ = assessed

    def refused(*arguments, **options):
        raise AssertionError("the audit was made again, or a model was fitted again")

    monkeypatch.setattr("ball_features.runs.assess.audit", refused)
    monkeypatch.setattr("ball_features.runs.ladder.evaluate", refused)
    again = assess(few_smears, done.folder, EMBEDDING, MODELS)
    assert [finding.code for finding in again.findings] == [finding.code for finding in done.findings]


@pytest.mark.slow
def test_new_images_are_audited(assessed, few_smears, tmp_path, monkeypatch):
    images = shutil.copytree(few_smears, tmp_path / "images")
    out = shutil.copytree(assessed[0].folder, tmp_path / "out")
    first = json.loads((out / "audit.json").read_text(encoding="utf-8"))["images"]
    draw_smears(tmp_path / "more", per_class=1, seed=2)
    for file in (tmp_path / "more").rglob("*.jpg"):
        file.rename(images / file.parent.name / f"more-{file.name}")
    assess(images, out, EMBEDDING, MODELS)
    second = json.loads((out / "audit.json").read_text(encoding="utf-8"))["images"]
    assert second != first
    monkeypatch.setattr("ball_features.runs.assess.VERSION", "another audit")
    monkeypatch.setattr("ball_features.runs.assess.audit", Mock(side_effect=InterruptedError))
    with pytest.raises(InterruptedError):  # audited anew
        assess(images, out, EMBEDDING, MODELS)


def test_a_folder_without_images_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError, match="Found nothing"):
        assess(tmp_path / "missing", tmp_path / "out", EMBEDDING, MODELS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "models", "compared"), [("robust", (), 8), ("fields", (), 7), ("auto", (), 7), ("robust", ("lda",), 1)]
)
def test_the_recipe_robust_brings_its_model(tmp_path, smears, monkeypatch, recipe, models, compared):
    def stop(*arguments, **options):
        raise DataError("far enough")

    monkeypatch.setattr("ball_features.runs.assess.extract", stop)
    lines = []
    with pytest.raises(DataError, match="far enough"):
        settings = ExtractConfig(backbone="densenet121", weights="random", recipe=recipe)
        assess(smears, tmp_path / "out", settings, FitConfig(models=models), log=lines.append)
    assert any(f"compare {compared} models" in line for line in lines)


def with_patients(groups):
    """Add a column and a row of the user's, as a spreadsheet does."""
    header, *lines = groups.read_text(encoding="utf-8").splitlines()
    lines = [f"{line},p{number // 4}" for number, line in enumerate(lines)]
    groups.write_text("\n".join([f"{header},patient", *lines]) + "\n", encoding="utf-8")


@pytest.mark.slow
def test_a_groups_file_that_was_changed_is_said_and_never_replaced(assessed, few_smears, tmp_path):
    images = shutil.copytree(few_smears, tmp_path / "images")
    out = shutil.copytree(assessed[0].folder, tmp_path / "out")
    with_patients(out / "groups.csv")
    own, told = (out / "groups.csv").read_bytes(), []
    done = assess(images, out, EMBEDDING, MODELS, log=told.append)
    said = "groups.csv was changed since the audit wrote it"
    assert said in done.notes[0] and any(said in line for line in told)
    assert said in done.page.read_text(encoding="utf-8")
    draw_smears(tmp_path / "more", per_class=1, seed=2)
    shutil.copy(next((tmp_path / "more").rglob("*.jpg")), images / "Pro" / "more.jpg")
    with pytest.raises(DataError, match=r"groups\.csv was changed since ball assess wrote it, and the images have"):
        assess(images, out, EMBEDDING, MODELS)
    assert (out / "groups.csv").read_bytes() == own
    (out / "groups.csv").rename(tmp_path / "mine.csv")
    done = assess(images, out, EMBEDDING, MODELS)
    assert not any(said in note for note in done.notes) and said not in done.page.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True])
def test_a_groups_file_of_an_earlier_version_is_known_by_its_columns(assessed, few_smears, tmp_path, changed):
    images = shutil.copytree(few_smears, tmp_path / "images")
    out = shutil.copytree(assessed[0].folder, tmp_path / "out")
    values = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    del values["groups_sha256"]
    (out / "audit.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    if changed:
        with_patients(out / "groups.csv")
    shutil.copy(min((images / "Benign").iterdir()), images / "Pro" / "more.jpg")
    if changed:
        with pytest.raises(DataError, match="was changed since ball assess wrote it"):
            assess(images, out, EMBEDDING, MODELS)
    else:
        assess(images, out, EMBEDDING, MODELS)
        assert "more.jpg" in (out / "groups.csv").read_text(encoding="utf-8")


def test_a_sheet_that_the_assessment_would_replace_is_refused(few_smears, tmp_path):
    """Its own groups file, with the user's columns."""
    table = tmp_path / "groups.csv"
    lines = [f"{path.relative_to(few_smears).as_posix()},0,s,p{path.parent.name}" for path in few_smears.rglob("*.jpg")]
    table.write_text("\n".join(["path,group,series,patient", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "audit.json").write_text('{\n  "images": ""\n}', encoding="utf-8")
    before = table.read_bytes()
    with pytest.raises(DataError, match=r"groups\.csv is an input of this command and would be overwritten"):
        assess(few_smears, tmp_path, EMBEDDING, MODELS, collection=CollectionConfig(sheet=(str(table),)))
    assert table.read_bytes() == before
