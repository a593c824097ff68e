"""Names with control characters: no file made to be read has one, and every command finds the images by them."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ball_features.cli import app
from ball_features.dataset.manifest import scan
from ball_features.dataset.synthetic import draw_smears
from ball_features.files import escaped_controls, read_csv, safe_cell, write_cells
from ball_features.reporting.stored_run import read_stored_run
from tests.commands import ball

NAMES = (
    "a\x1b]0;x\x07.jpg",
    "b\u202egpj.jpg",
    "c\n\x9bd.jpg",
    r"e\x10\n.jpg",
    r"f\x{1b}.jpg",
    "g\nForged: x.jpg",
    "h\u2028Forged: x\t.jpg",
    "i\u200e\xad\ufeff.jpg",
)
READ = {".csv", ".md", ".json", ".html", ".toml", ".tex", ".svg"}  # endings of files that a person may show


SAID: list[str] = []  # what the commands have said


def run_command(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, (words, done.output, done.exception)
    SAID.append(done.output)
    return done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_densenet) -> Path:
    """A folder in which most commands were run on images of such names."""
    folder = tmp_path_factory.mktemp("controls")
    draw_smears(folder / "images", per_class=12, seed=1)
    for path in sorted((folder / "images").glob("*/")):
        for name, image in zip(NAMES, sorted(path.glob("*.jpg")), strict=False):
            try:
                image.rename(path / name)
            except OSError:
                pytest.skip("this disk takes no such names")
    (folder / "bad").mkdir()
    (folder / "bad" / "i\nForged: bad.jpg").write_bytes(b"no image")
    images, cache, run = folder / "images", folder / "a\x1b[31m\x9b\u202eb.h5", folder / "runs" / "one"
    few = ("--models", "logistic,majority", "--repeats", "1", "--jobs", "1", "--out", folder / "runs")
    small = ("--backbone", tiny_densenet, "--weights", "random", "--input-px", "32", "--precision", "fp32")
    run_command("sheet", images, "--out", folder / "sheet.csv")
    run_command("audit", images, "--out", folder / "groups.csv", "--page", folder / "audit.html")
    run_command("extract", images, "--out", cache, *small)
    run_command("fit", cache, *few, "--name", "one", "--save", "logistic", "--groups", folder / "groups.csv")
    shutil.copy(cache, folder / "b.h5")
    run_command("compare", cache, folder / "b.h5", *few, "--name", "two")
    run_command("fit", cache, *few, "--name", "ladder", "--protocol", "ladder", "--groups", folder / "groups.csv")
    run_command("report", run, "--thumbnails", images, "--figures", folder / "figures", "--format", "svg")
    run_command(
        "labels", cache, "--models", "logistic", "--out", folder / "labels.csv", "--page", folder / "labels.html"
    )
    run_command("predict", run / "models" / "logistic", images, "--out", folder / "p.csv")
    run_command("predict", run / "models" / "logistic", images, folder / "bad")
    run_command("predict", run / "models" / "logistic", images, "--out", folder / "p.html")
    run_command("evaluate", run / "models" / "logistic", images, "--out", folder / "elsewhere")
    run_command("segment", images, "--out", folder / "segmented")
    run_command("export", cache, "--csv", folder / "cache.csv")
    return folder


@pytest.mark.slow
def test_no_name_begins_a_line_on_the_terminal(made):
    lines = [line for text in SAID for line in text.splitlines()]
    assert any(r"g\nForged: x.jpg" in line for line in lines) and any(r"i\nForged: bad.jpg" in line for line in lines)
    assert not [line for line in lines if line.lstrip("│ ").startswith("Forged")]
    done = ball("inspect", made / "k\nForged: no.h5")
    assert done.returncode == 2
    assert r"k\nForged: no.h5" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.lstrip().startswith("Forged")]


def test_no_file_that_is_read_has_control_characters(made):
    files = [path for path in made.rglob("*") if path.suffix in READ]
    assert {path.name for path in files} >= {"predictions.csv", "splits.csv", "nuclei.csv", "labels.csv", "report.html"}
    for path in files:
        text = path.read_bytes().decode("utf-8")
        found = [escaped_controls(line) for line in text.split("\n") if escaped_controls(line, kept="\t") != line]
        assert not found, (path, found[0][:200])


def test_every_table_names_the_images_as_they_are(made):
    images = {path.relative_to(made / "images").as_posix() for path in made.glob("images/*/*.jpg")}
    assert len(images) == 48
    for table in ("runs/one/splits.csv", "runs/one/predictions.csv", "labels.csv", "segmented/nuclei.csv", "cache.csv"):
        assert {row["path"] for row in read_csv(made / table)} <= images, table
    assert {row["path"] for row in read_csv(made / "labels.csv")} == images
    assert {Path(row["path"]).name for row in read_csv(made / "p.csv")} == {Path(name).name for name in images}


@pytest.mark.parametrize("table", ["sheet.csv", "groups.csv", "labels.csv"])
def test_a_table_of_ours_is_a_sheet_of_the_same_images(made, table):
    found = scan(made / "images", sheet=made / table)
    assert len(found.path) == 48
    assert not re.search("no row|match(es)? no image|repeat another", found.note)


def old_cell(text: str) -> str:
    return safe_cell(text) if r"\x{1b}" in text else text


@pytest.mark.slow
def test_a_run_of_an_earlier_version_reads_the_same(made, tmp_path):
    """Its tables have the characters as they are; only a name that looks like our own escapes is read as one."""
    run = shutil.copytree(made / "runs" / "one", tmp_path / "one")
    for name in ("predictions.csv", "splits.csv"):
        rows = list(read_csv(run / name))
        write_cells(run / name, [list(rows[0]), *([old_cell(text) for text in row.values()] for row in rows)])
        with (run / name).open(newline="", encoding="utf-8") as file:
            assert any(escaped_controls(cell) != cell for row in csv.reader(file) for cell in row)
    new, old = (read_stored_run(folder) for folder in (made / "runs" / "one", run))
    assert new.predictions["logistic"].path == old.predictions["logistic"].path
    run_command("report", run, "--cache", next(made.glob("a*.h5")), "--thumbnails", made / "images")
    pages = [(folder / "report.html").read_text(encoding="utf-8") for folder in (made / "runs" / "one", run)]
    assert pages[0].count("<img") == pages[1].count("<img") > 0
    assert pages[0].count("<circle") == pages[1].count("<circle") > 48
