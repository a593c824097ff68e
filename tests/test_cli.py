"""The command line: what it prints, how it ends."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ball_features import FitConfig, fit
from ball_features.cli import app
from ball_features.cli.root import InterruptError, main
from ball_features.cli.screen import progress_bar
from ball_features.models.registry import MODELS
from ball_features.runs.new_folder import NewFolder
from tests.commands import FEW_TREES, TINY_DENSENET, ball, start
from tests.tiny import TINY

RANDOM = ("--backbone", "densenet121", "--weights", "random", "--input-px", 64)


@pytest.mark.slow
def test_extract_fit_inspect(tmp_path, smears):
    out = tmp_path / "a.h5"
    options = ("--backbone", TINY, *RANDOM[2:], "--views", 2)
    done = ball("extract", smears, "--out", out, *options, before=TINY_DENSENET)
    assert done.returncode == 0, done.stderr
    assert "Computed 48 images" in done.stdout
    assert "cosine to float32" in done.stderr
    again = ball("extract", smears, "--out", out, *options, "--json", before=TINY_DENSENET)
    assert json.loads(again.stdout)["computed"] == 0
    shown = json.loads(ball("inspect", out, "--json").stdout)
    assert shown["complete"]
    assert shown["classes"] == {"Benign": 12, "Early": 12, "Pre": 12, "Pro": 12}
    assert shown["views"] == ["plain", "report-1"]
    assert "48 x 2 x 128" in ball("inspect", out).stdout
    run = ball("fit", out, "--models", "logistic,colour,majority", "--repeats", 1, "--out", tmp_path / "runs")
    assert run.returncode == 0, run.stderr
    for word in ("logistic", "shortcut", "majority", "Wilson", "Run:"):
        assert word in run.stdout


@pytest.mark.slow
def test_audit_writes_groups_that_fit_takes(tmp_path, smears, few_smears, small_cache):
    groups, page = tmp_path / "groups.csv", tmp_path / "page.html"
    done = ball("audit", smears, "--out", groups, "--page", page, "--cache", small_cache)
    assert done.returncode == 0, done.stderr
    assert re.match("(Good|Note|Warning): ", done.stdout)
    assert "shared fields" in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    facts = json.loads(ball("audit", few_smears, "--out", tmp_path / "few.csv", "--json", before=FEW_TREES).stdout)
    assert set(facts["series"]) <= set(facts["batches"])  # no bars here: a series is a batch
    assert facts["images"] == 24
    assert facts["known"] == ""
    options = ("--groups", groups, "--protocol", "group-cv", "--folds", 3, "--models", "logistic", "--repeats", 1)
    for column in ("group", "class+group"):
        run = ball("fit", small_cache, *options, "--group-column", column, "--out", tmp_path / "runs")
        assert run.returncode == 0, run.stderr
        assert f"group-cv by {column}" in run.stdout
    unwritable = ball("audit", smears, "--out", tmp_path)
    assert unwritable.returncode == 2
    assert "cannot be written" in unwritable.stderr


@pytest.mark.slow
def test_json_of_every_command_is_strict(tmp_path, small_cache, smears):
    """Also where a number is not defined: the correlation of a model that always says the same."""
    other = shutil.copy(small_cache, tmp_path / "other.h5")
    options = ("--repeats", 1, "--out", tmp_path / "runs", "--jobs", 1)
    for command in (
        ("fit", small_cache, "--models", "majority,colour", *options),
        ("compare", small_cache, other, "--models", "logistic,majority", *options),
        ("tune", small_cache, "--trials", 1, "--epochs", 1, "--out", tmp_path / "runs", "--jobs", 1),
        ("inspect", small_cache),
        ("extract", smears, "--out", tmp_path / "new.h5", *RANDOM, "--limit", 4, "--dry-run"),
    ):
        done = CliRunner().invoke(app, [*map(str, command), "--json"])
        assert done.exit_code == 0, done.output
        values = json.loads(done.stdout, parse_constant=lambda name, own=command[0]: pytest.fail(f"{own}: {name}"))
        if command[0] in ("fit", "compare"):
            rows = values["metrics" if command[0] == "fit" else "rows"]
            assert "majority" in {row["model"] for row in rows}
        if command[0] == "fit":
            assert {row["model"]: row["mcc"] for row in values["metrics"]}["majority"] is None


@pytest.mark.slow
def test_odd_metadata_is_not_warned_of(tmp_path, few_smears):
    """It does not concern the pixels; Pillow says it wherever it decodes."""
    from PIL import Image

    folder = shutil.copytree(few_smears, tmp_path / "images")
    cut_short = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x12\x01\x03\x00\x01\x00\x00\x00\x01\x00"
    with Image.open(next((few_smears / "Pro").iterdir())) as image:
        image.save(folder / "Pro" / "odd.jpg", exif=cut_short)
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(folder / "Pro" / "odd.jpg") as image:
        image.getexif()
    for command in (("audit", folder, "--out", tmp_path / "g.csv"), ("segment", folder, "--out", tmp_path / "s")):
        done = ball(*command, "--quiet", before=FEW_TREES)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_strict_and_dry_run(tmp_path, smears):
    folder = shutil.copytree(smears, tmp_path / "images")
    (folder / "Pro" / "bad.jpg").touch()
    options = (*RANDOM, "--limit", 8, "--out", tmp_path / "a.h5")
    dry = ball("extract", folder, *options, "--dry-run")
    assert dry.returncode == 0
    assert "Would compute 8 of 8" in dry.stdout
    done = ball("extract", folder, *options, "--strict")
    assert done.returncode == 1
    assert "rejected  Pro/bad.jpg: is empty" in done.stderr  # as in segment and predict
    assert "rejected  " not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", "nowhere", "--out", "a.h5", "--weights", "random"), "nothing at nowhere"),
        (("extract", ".", "--out", "a.h5", "--weights", "random"), "No class can be read"),
        (("extract", ".", "--out", "a.h5", "--backbone", "resnet"), "Valid: densenet121"),
        (("extract", ".", "--out", "a.h5", "--views", "0"), "views=0"),
        (("extract", ".", "--out", "a.h5", "--batch-size", "many"), "--batch-size"),
        (("extract", ".", "--outt", "a.h5"), "No such option"),
        (("fit", "nothing.h5"), "No cache at nothing.h5"),
        (("fit", "nothing.h5", "--models", "mpl"), "Did you mean 'mlp'"),
        (("fit", "nothing.h5", "--protocol", "loocv"), "one of holdout"),
        (("inspect", "nothing.h5"), "No cache"),
        (("extrakt",), "No such command"),
    ],
)
def test_wrong_use_gets_one_message(tmp_path, arguments, message):
    done = ball(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_version_and_help():
    assert ball("--version").stdout.startswith("ball 0.")
    for command in ("extract", "audit", "fit", "demo", "inspect"):
        assert ball(command, "--help").returncode == 0


def test_every_option_stands_alone():
    """A phrase each, and the names of the models where they are asked for."""
    commands = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    said = {(name, item.name): item.help for name, command in commands.items() for item in command.params}
    assert {key: text for key, text in said.items() if not text or len(text.split()) < 5 or text[-1] != "."} == {}
    for command in ("fit", "compare"):
        assert not [name for name in MODELS if name not in said[command, "models"]]


@pytest.mark.slow
def test_demo(tmp_path):
    """The first command of the README: the planted scale bar is found, also with random weights."""
    bare = {"PATH": "", "TORCH_HOME": str(tmp_path)}  # no compiler, no weights
    uncompiled = "from ball_features.extraction.engine import cpu; cpu.affine_relu_kernel.cache_clear()"
    done = ball("demo", "--out", tmp_path / "demo", "--per-class", 8, env=bare, before=uncompiled)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Weights: random") == 1
    assert "Skipped" not in done.stderr  # all files there are images
    assert "scale bar alone tells the class" in done.stdout.replace("\n", " ")
    assert "Planted: a scale bar of another kind and another stain for each class." in done.stdout
    assert json.loads((tmp_path / "demo" / "truth.json").read_text())["label"]
    codes = {item["code"] for item in json.loads((tmp_path / "demo" / "verdict.json").read_text())}
    assert "overlay-tells-class" in codes
    assert (tmp_path / "demo" / "assess.html").is_file()


def interrupted(errors, *arguments, after):
    """Exit code of a command that gets Ctrl-C once its standard error, a file, holds `after`; what it says then."""
    errors.unlink(missing_ok=True)
    process = start(*arguments, files=(os.devnull, errors))
    while not errors.exists() or after not in errors.read_text(encoding="utf-8"):
        assert process.is_alive()
        time.sleep(0.05)
    time.sleep(0.5)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(120)
    said = errors.read_text(encoding="utf-8")
    assert "Traceback" not in said
    return process.exitcode, said.split(after, 1)[1].partition("\n")[2]


@pytest.mark.slow
def test_an_interrupt_has_its_own_code_and_says_what_is_left(tmp_path, smears, small_cache):
    extract = ("extract", smears, "--out", tmp_path / "c.h5", *RANDOM, "--views", 100)
    code, errors = interrupted(tmp_path / "err", *extract, after="images/s")
    assert code == 130
    assert "the same command goes on from there" in errors
    code, errors = interrupted(tmp_path / "err", *extract, "--overwrite", after="images/s")
    assert code == 130
    assert "the same command without --overwrite goes on" in errors
    runs = tmp_path / "runs"
    options = ("--models", "mlp", "--repeats", 1000, "--jobs", 1, "--out", runs)
    code, errors = interrupted(tmp_path / "err", "fit", small_cache, *options, after="of 1000 fits")
    assert (code, errors.splitlines()[-1]) == (130, "Interrupted. Nothing was written.")
    assert not list(runs.iterdir()) if runs.exists() else True


def test_an_interrupt_while_a_run_is_written_leaves_none(tmp_path):
    with pytest.raises(InterruptError), NewFolder(tmp_path, "a") as new:
        (new.path / "run.json").touch()
        raise InterruptError
    assert not list(tmp_path.iterdir())


def test_each_part_of_a_long_work_is_shown(capsys):
    with progress_bar("Fitting", False, "fits") as progress:
        for part, total in (("random", 3), ("blocks", 3), ("series", 1), ("patients", 1)):
            for done in range(1, total + 1):
                progress(done, total, f"{part}: mlp")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", ")[0] for line in lines] == [
        *(f"Fitting: {done} of 3 fits" for done in (1, 2, 3, 1, 2, 3)),
        *["Fitting: 1 of 1 fits"] * 2,
    ]
    assert lines[3].endswith("(blocks: mlp)")


def test_a_run_without_a_fitted_model_is_an_error(small_cache, tmp_path, monkeypatch, capsys):
    def build(seed, head):
        raise ZeroDivisionError("no luck")

    monkeypatch.setitem(MODELS, "lda", replace(MODELS["lda"], build=build))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Ctrl-C stays that of the tests
    words = ["ball", "fit", str(small_cache), "--models", "lda", "--jobs", "1", "--out", str(tmp_path)]
    for more in ([], ["--verbose"]):
        monkeypatch.setattr(sys, "argv", words + more)
        with pytest.raises(SystemExit) as end:
            main()
        errors = capsys.readouterr().err
        assert end.value.code == 2
        assert "No model could be fitted" in errors
        assert ("in build" in errors) == bool(more)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def bundle(small_cache, tmp_path_factory):
    config = FitConfig(models=("logistic",), repeats=1, test_size=0.3, val_size=0.3)
    run = fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="all")
    return run.folder / "models" / "logistic"


@pytest.mark.slow
def test_a_server_ends_quietly(tmp_path, bundle):
    pytest.importorskip("uvicorn")
    code, errors = interrupted(tmp_path / "err", "serve", bundle, "--port", 0, after="Stop it with Ctrl-C")
    assert (code, errors) == (0, "")


def test_predict_says_first_that_a_table_cannot_be_written(tmp_path, bundle, smears):
    (tmp_path / "file").touch()
    done = ball("predict", bundle, smears, "--out", tmp_path / "file" / "p.csv")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Predicting" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [(), ("extract",), ("fit",), ("compare",), ("tune",), ("predict",)])
def test_help_loads_nothing_heavy(command):
    code = (
        "import sys\nfrom ball_features.cli import app\n"
        f"try:\n    app({[*command, '--help']!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'numpy', 'torch', 'sklearn', 'h5py', 'scipy', 'matplotlib', 'xgboost', 'ball_features.files'}\n"
        f"heavy |= {set() if command else {'ball_features.models.registry', 'ball_features.extraction.recipe'}}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_sheet_is_written_filled_in_and_read(tmp_path, smears):
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted(smears.rglob("*.jpg")):
        shutil.copy(path, folder / path.name)
    sheet, out = tmp_path / "sheet.csv", tmp_path / "c.h5"
    done = ball("extract", folder, "--out", out, *RANDOM)
    assert done.returncode == 2
    assert "the images lie in it directly" in done.stderr
    done = ball("sheet", folder, "--out", sheet)
    assert done.returncode == 0, done.stderr
    assert "48 rows. Classes: 48 without a class." in done.stdout
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row |= {"label": row["path"].split("-")[1], "patient": f"P{number % 9}"}
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    done = ball("extract", folder, "--out", out, "--sheet", sheet, "--dry-run", *RANDOM)
    assert done.returncode == 0, done.stderr
    assert "Classes: Benign 12, Early 12, Pre 12, Pro 12." in done.stderr
    assert "Read from: label in " in done.stderr
    assert "Would compute 48 of 48" in done.stdout
