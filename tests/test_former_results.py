"""A folder or a name that is used again holds the new result alone; what is the user's there stays."""

import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from ball_features import predict
from ball_features.cache import read_cache
from ball_features.cli import app
from ball_features.config import FitConfig
from ball_features.errors import DataError
from ball_features.reporting.paper import write_paper
from ball_features.runs.evaluate import evaluate
from ball_features.runs.fit import fit


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=("logistic", "colour"), repeats=1)
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="logistic").folder


@pytest.fixture(scope="module")
def bundle(run):
    return run / "models" / "logistic"


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_no_table_of_patients_stays_in_an_evaluation(bundle, small_cache, tmp_path):
    plain = read_cache(small_cache)
    known = replace(plain, columns={"patient": np.array([f"P{number // 4}" for number in range(len(plain.path))])})
    assert evaluate(bundle, known, out=tmp_path).scores.patients is not None
    before = names(tmp_path)
    assert evaluate(bundle, plain, out=tmp_path).scores.patients is None
    assert names(tmp_path) == before - {"patients.csv"}
    mine = tmp_path / "patients.csv"
    mine.write_text("patient,age\n1,8\n")
    for images in (known, plain):
        with pytest.raises(
            DataError, match=r"patients\.csv exists and is no patients table file that ball has written"
        ):
            evaluate(bundle, images, out=tmp_path)
    assert mine.read_text() == "patient,age\n1,8\n"


@pytest.mark.slow
def test_no_answers_for_patients_stay_beside_predictions(bundle, smears, tmp_path):
    files, out = sorted((smears / "Pro").iterdir())[:2], tmp_path / "p.csv"
    sheet = {"image": [file.name for file in files], "case": ["P1", "P2"]}
    assert len(predict(bundle, files, sheet=sheet).write(out)) == 3
    assert len(predict(bundle, files).write(out)) == 2
    assert names(tmp_path) == {"p.csv", "p.csv.json"}
    mine = tmp_path / "p.patients.csv"
    mine.write_text("patient,age\n1,8\n")
    predict(bundle, files).write(out)
    assert mine.read_text() == "patient,age\n1,8\n"


@pytest.mark.slow
def test_no_figure_of_another_run_stays(run, small_cache, tmp_path):
    """Those that the captions list are removed; what else looks like one is told, and left."""
    other = fit(small_cache, FitConfig(models=("colour",), repeats=1), out_root=tmp_path).folder
    out, victim = tmp_path / "out", tmp_path / "map.svg"
    victim.touch()
    first = {path.name for path in write_paper(run, out, ("svg", "pdf"))}
    assert "confusion-logistic.svg" in first
    for name in ("notes.md", "confusion-mine.svg", "ladder.svg"):
        (out / name).write_text("mine")
    captions = out / "captions.md"
    listed = captions.read_text(encoding="utf-8")
    assert set(re.findall("^- (.+)$", listed, re.MULTILINE)) == first - {"captions.md"}
    captions.write_text(listed + "- ../map.svg\n- notes.md\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(other), "--figures", str(out), "--format", "svg"])
    assert done.exit_code == 0, done.output
    assert "also holds what is not of this run: confusion-mine.svg, ladder.svg." in done.output
    second = {path.name for path in write_paper(other, tmp_path / "alone", ("svg",), read_cache(small_cache))}
    assert names(out) == second | {"notes.md", "confusion-mine.svg", "ladder.svg"}
    assert "confusion-logistic.svg" not in second
    assert victim.exists()
    for name in second:
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    (out / "recall-logistic.svg").write_text("mine")
    with pytest.raises(DataError, match=r"recall-logistic\.svg exists, and captions\.md does not list it as written"):
        write_paper(run, out, ("svg",))
    assert (out / "recall-logistic.svg").read_text() == "mine"


@pytest.mark.slow
def test_figures_of_an_earlier_version_are_told(run, tmp_path):
    """Its captions list no files."""
    write_paper(run, tmp_path / "a", ("svg",))
    captions = tmp_path / "a" / "captions.md"
    captions.write_text(captions.read_text(encoding="utf-8").partition("\n# Files\n")[0], encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(run), "--figures", str(tmp_path / "a"), "--format", "pdf"])
    assert done.exit_code == 0, done.output
    assert "also holds what is not of this run: confusion-colour.svg" in done.output
    assert (tmp_path / "a" / "confusion-colour.svg").exists()
