"""A run's command makes the run again; a cache that is not the run's is told from it."""

import dataclasses
import json
import shlex
import shutil

import h5py
import pytest
from typer.testing import CliRunner

from ball_features import FitConfig, HeadConfig, fit, read_cache
from ball_features.cli import app
from ball_features.errors import CacheError
from ball_features.reporting.page import write_report
from ball_features.reporting.provenance import command, images_digest
from ball_features.runs.tune import tune

SETTINGS = FitConfig(
    protocol="group-cv", models=("mlp", "robust-logistic"), repeats=2, folds=3, test_size=0.3, val_size=0.1, seed=7,
    groups="my files/patients.csv", group_column="class+overlay", center="overlay", train_views="all",
    test_views="plain,grey-1", channels=("original", "segmented"), combine="mean", jobs=0,
    compat_batch_metrics=True,
    head=HeadConfig(
        hidden=(32, 16), learning_rate=3e-4, l2=0.0, epochs=3, batch_size=8, dropout=0.1, clip_norm=None,
        class_weight="balanced", group_loss="balanced", consistency=0.5, per_image=True,
    ),
)  # fmt: skip


def parsed(line, monkeypatch, module):
    """(arguments, options) that the command line hands to the function behind it."""
    seen = []

    def record(*arguments, **options):
        seen.append((arguments, options))
        raise CacheError("stop")

    monkeypatch.setattr(module, record)
    verb, *words = shlex.split(line)
    assert verb == "ball"
    CliRunner().invoke(app, words)
    assert seen, line
    return seen[0]


def test_every_setting_but_the_processes_is_in_the_command(monkeypatch):
    plain = FitConfig()
    for part, default in ((SETTINGS, plain), (SETTINGS.head, plain.head)):
        for item in dataclasses.fields(part):
            if item.name not in ("jobs", "tta"):
                assert getattr(part, item.name) != getattr(default, item.name), f"{item.name} is not tried here"
    line = command("fit", "my caches/a.h5", SETTINGS, save="mlp")
    (cache, config), options = parsed(line, monkeypatch, "ball_features.runs.fit.fit")
    assert str(cache) == "my caches/a.h5"
    assert config == SETTINGS
    assert options["save"] == "mlp"
    tta = FitConfig(tta=True)
    assert parsed(command("fit", "a.h5", tta), monkeypatch, "ball_features.runs.fit.fit")[0][1] == tta
    assert command("fit", "a.h5", plain) == "ball fit a.h5"


def test_commands_of_compare_and_tune(monkeypatch):
    shared = {"groups": "g h.csv", "group_column": "patient", "seed": 3}
    config = FitConfig(models=("mlp", "colour"), protocol="cv", folds=4, repeats=1, test_views="all", **shared)
    line = command("compare", ["a b.h5:mean", "c.h5"], config)
    (caches, got), _ = parsed(line, monkeypatch, "ball_features.runs.compare.compare")
    assert caches == ["a b.h5:mean", "c.h5"]
    assert got == config
    config = FitConfig(channels=("original",), test_size=0.3, head=HeadConfig(epochs=9), **shared)
    (_, got), options = parsed(command("tune", "a b.h5", config, trials=3), monkeypatch, "ball_features.runs.tune.tune")
    assert got == config
    assert options["trials"] == 3
    assert command("compare", ["a.h5", "b.h5"], FitConfig(test_size=0.3)) == ""  # it has no such option


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=("logistic", "colour"), repeats=1)
    cache = tmp_path_factory.mktemp("own folder") / "own.h5"
    shutil.copy(small_cache, cache)
    return fit(cache, config, out_root=tmp_path_factory.mktemp("runs")), cache


def test_a_run_keeps_its_command_and_its_page_shows_it(run):
    run, cache = run
    line = f"ball fit '{cache}' --models logistic,colour --repeats 1"
    assert run.details["command"] == line
    assert line.replace("'", "&#39;") in (run.folder / "report.html").read_text()
    assert run.details["images_sha256"] == images_digest(read_cache(cache))


def test_the_page_of_an_older_run_still_has_a_command(run, tmp_path):
    folder = shutil.copytree(run[0].folder, tmp_path / "old")
    details = json.loads((folder / "run.json").read_text())
    del details["command"], details["images_sha256"]
    (folder / "run.json").write_text(json.dumps(details))
    page = write_report(folder, cache=read_cache(run[1])).read_text()
    assert "--models logistic,colour --repeats 1" in page
    details["command"] = ""
    (folder / "run.json").write_text(json.dumps(details))
    assert "made in Python" in write_report(folder).read_text()


def test_what_tune_found_is_fitted_again_to_the_same_numbers(small_cache, tmp_path, monkeypatch):
    groups = tmp_path / "my groups.csv"
    paths = read_cache(small_cache, embeddings=False).path
    groups.write_text("path,patient\n" + "\n".join(f"{path},{row // 2}" for row, path in enumerate(paths)))
    config = FitConfig(seed=5, groups=str(groups), group_column="patient", head=HeadConfig(epochs=3))
    run, _ = tune(small_cache, config, trials=3, out_root=tmp_path)
    assert run.details["command"].startswith(f"ball tune {small_cache} --seed 5 --groups '{groups}'")
    line = json.loads((run.folder / "best.json").read_text())["command"]
    assert any(note == f"To use it: {line}" for note in run.notes)
    with monkeypatch.context() as patch:
        (cache, found), _ = parsed(line, patch, "ball_features.runs.fit.fit")
    again = fit(cache, found, out_root=tmp_path)
    wanted = next(row for row in run.metrics if row.model == "mlp-tuned")
    assert again.metrics[0]["log_loss"] == wanted["log_loss"]


@pytest.mark.parametrize("what", ["settings", "images"])
def test_another_cache_is_refused_and_one_made_anew_is_left_out(run, tmp_path, what, monkeypatch):
    run, own = run
    other = tmp_path / "other.h5"
    shutil.copy(own, other)
    with h5py.File(other, "r+") as file:
        if what == "settings":
            file.attrs["fingerprint"] = "0" * 64
        else:
            file["sha256"][3] = "f" * 64
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(CacheError, match=f"other {what}"):
        write_report(run.folder, tmp_path / "r.html", read_cache(other))
    runner = CliRunner()
    named = runner.invoke(app, ["report", str(run.folder), "--cache", str(other)])
    assert isinstance(named.exception, CacheError)
    assert f"other {what}" in str(named.exception)
    folder = shutil.copytree(run.folder, tmp_path / "moved")
    details = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(details | {"cache": str(other)}))
    recorded = runner.invoke(app, ["report", str(folder)])
    assert recorded.exit_code == 0
    assert f"other {what}" in recorded.output
    assert "no map of the embeddings" in (folder / "report.html").read_text()
    assert runner.invoke(app, ["report", str(folder), "--cache", str(own)]).exit_code == 0
    assert "Map of the embeddings" in (folder / "report.html").read_text()
