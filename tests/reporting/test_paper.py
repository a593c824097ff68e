"""Figures and tables for papers: every figure of the page in every format, numbers as in the run, captions for each."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from ball_features.cache import read_cache
from ball_features.cli import app
from ball_features.config import FitConfig
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.rows import LadderRow, write_rows
from ball_features.evaluation.stored_results import read_measurement
from ball_features.reporting.dots import recalls
from ball_features.reporting.figures import reliability
from ball_features.reporting.heat import heat
from ball_features.reporting.paper import write_paper
from ball_features.reporting.plot import draw, draw_heat
from ball_features.runs.compare import compare
from ball_features.runs.fit import fit
from tests.made import clouds, write_cache


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=("mlp", "colour"), repeats=2)
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs")).folder


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    rungs = (("random", 0.99), ("series left out", 0.6))
    write_rows(folder / "ladder.csv", [LadderRow(rung, "mlp", "head", share, share, share) for rung, share in rungs])
    (folder / "run.json").write_text(json.dumps({"notes": []}))
    return folder


@pytest.fixture(scope="module")
def paper(run, ladder, small_cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("paper") / "figures"
    return out, write_paper(run, out, cache=read_cache(small_cache), ladder=ladder)


@pytest.mark.slow
def test_every_figure_is_there_in_every_format(paper):
    out, files = paper
    assert sorted(out.iterdir()) == sorted(files)
    stems = {path.stem for path in files if path.suffix == ".svg"}
    assert {"models", "ladder", "map", "confusion-mlp", "recall-mlp", "reliability-mlp", "training-mlp-loss"} <= stems
    starts = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    for stem in stems:
        for name, start in starts.items():
            assert (out / f"{stem}.{name}").read_bytes().startswith(start)
    captions = (out / "captions.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (.+)$", captions, re.MULTILINE)) == stems | {"table.tex, table.csv"}
    assert "</text>" in (out / "models.svg").read_text(encoding="utf-8")  # text stays text


def test_tables_hold_the_numbers_of_the_run(paper, run):
    out, _ = paper
    models = read_measurement(run).models
    with (out / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], float(row["accuracy"])) for row in rows] == [(row.model, row.accuracy) for row in models]
    assert [float(row["f1_low"]) for row in rows] == [row.intervals["f1"][0] for row in models]
    text = (out / "table.tex").read_text(encoding="utf-8")
    assert r"\toprule" in text
    assert text.count("{") == text.count("}")
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line][1:]
    for line, row in zip(lines, models, strict=True):
        cells = [cell.replace(r"\bfseries", "").strip() for cell in line.removesuffix(r"\\").split("&")]
        assert cells[:3] == [row.model, row.kind, f"{100 * row.accuracy:.2f}"]
    assert len({line.count("&") for line in lines}) == 1
    assert r"95 \% interval" in text


@pytest.mark.slow
def test_the_same_run_gives_the_same_files(paper, run, ladder, small_cache, tmp_path):
    _, files = paper
    again = write_paper(run, tmp_path / "again", cache=read_cache(small_cache), ladder=ladder)
    assert [path.name for path in again] == [path.name for path in files]
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(files, again, strict=True))


def test_a_figure_shows_its_numbers():
    axes = draw(recalls([("a", 0.25, 0.1, 0.5), ("b", 1.0, 0.9, 1.0)], "t")).axes[0]
    marks = [line.get_xydata()[0].tolist() for line in axes.lines]
    assert marks == [[25.0, 0.0], [100.0, 1.0]]
    assert [text.get_text() for text in axes.texts] == ["25.0", "100.0"]
    assert axes.get_ylim() == (1.5, -0.5)  # the first row is on top
    ends = [path.get_paths()[0].vertices[:, 0].tolist() for path in axes.collections]
    assert ends == [[10.0, 50.0], [90.0, 100.0]]
    axes = draw(reliability(np.array([[0.2, 0.5, 30]]), "t")).axes[0]
    assert axes.lines[-1].get_xydata().tolist() == [[0.2, 0.5]]
    shares = draw_heat(heat(np.array([[3, 1], [0, 2]]), ["a", "b"], "t")).axes[0]
    assert [text.get_text() for text in shares.texts] == ["75.0 %\n3", "25.0 %\n1", "0.0 %\n0", "100.0 %\n2"]
    many = draw_heat(heat(np.eye(30, dtype=int), [f"c{number}" for number in range(30)], "t")).axes[0]
    assert len(many.texts) == 0
    assert len(many.get_xticks()) == 30


@pytest.mark.slow
def test_names_cannot_break_the_table(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    details = json.loads((folder / "run.json").read_text())
    details["title"] = r"50% of $x$ & \input{a} ~^#_<>"
    (folder / "run.json").write_text(json.dumps(details))
    write_paper(folder, tmp_path / "out", ("png",))
    text = (tmp_path / "out" / "table.tex").read_text(encoding="utf-8")
    assert r"50\% of \$x\$ \& \textbackslash{}input\{a\}" in text
    assert not list((tmp_path / "out").glob("*.svg"))


@pytest.mark.slow
def test_what_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="svg, pdf, png"):
        write_paper(run, tmp_path / "out", ("gif",))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Give another folder"):
        write_paper(run, tmp_path / "file")


@pytest.mark.slow
def test_the_command(run, ladder, small_cache, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    words = ["report", str(folder), "--ladder", str(ladder), "--figures", str(tmp_path / "out"), "--format", "png"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "less and less like the training images" in (folder / "report.html").read_text(encoding="utf-8")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".tex", ".csv", ".md"}
    wrong = CliRunner().invoke(app, ["report", str(folder), "--figures", str(tmp_path / "out"), "--format", "gif"])
    assert isinstance(wrong.exception, ConfigError)
    two = CliRunner().invoke(app, ["report", str(folder), str(folder), "--figures", str(tmp_path / "out")])
    assert isinstance(two.exception, ConfigError)


@pytest.mark.slow
def test_models_whose_names_are_alike_have_figures_of_their_own(tmp_path):
    """`ball compare` names a model by its cache: colons, blanks and letters of either case are in it."""
    embeddings, label = clouds(20)
    caches = [tmp_path / name for name in ("a b.h5", "a-b.h5", "A: b.h5")]
    for place, cache in enumerate(caches):
        write_cache(cache, embeddings + place, label)
    done, _ = compare(
        [str(cache) for cache in caches], FitConfig(models=("mlp",), repeats=1, jobs=1), out_root=tmp_path
    )
    files = write_paper(done.folder, tmp_path / "figures", ("png",))
    names = [path.name.casefold() for path in files]
    assert len(set(names)) == len(names) == len(list((tmp_path / "figures").iterdir()))
    captions = (tmp_path / "figures" / "captions.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## (training-\S+)\n+(.+)$", captions, re.MULTILINE))
    assert len(parts) == 2 * len({text.partition(": ")[0] for text in parts.values()})
    for stem, text in parts.items():
        assert ("loss" in stem) == (": loss of" in text)
    assert len({path.read_bytes() for path in files if path.name.startswith("training-")}) == len(parts)
