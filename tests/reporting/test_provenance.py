"""A run's command makes the run again; a cache that is not the run's is told from it."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from typer.testing import CliRunner

from ball_features import FitConfig, HeadConfig, compare, fit, read_cache
from ball_features.cli import app
from ball_features.config.paths import shareable
from ball_features.errors import CacheError
from ball_features.reporting.page import write_report
from ball_features.reporting.provenance import images_digest
from ball_features.runs.tune import tune


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


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=("logistic", "colour"), repeats=1)
    cache = tmp_path_factory.mktemp("own folder") / "own.h5"
    shutil.copy(small_cache, cache)
    return fit(cache, config, out_root=tmp_path_factory.mktemp("runs")), cache


def test_a_run_keeps_its_command_and_its_page_shows_it(run, monkeypatch):
    run, cache = run
    line = f"ball fit '{shareable(cache)}' --config {shareable(run.folder / 'config.toml')}"
    (source, config), _ = parsed(line, monkeypatch, "ball_features.runs.fit.fit")
    assert (source.resolve(), config) == (cache, FitConfig(models=("logistic", "colour"), repeats=1))
    assert run.details["command"] == line
    assert line.replace("'", "&#39;") in (run.folder / "report.html").read_text()
    assert run.details["images_sha256"] == images_digest(read_cache(cache))


def test_the_page_of_an_older_run_still_has_a_command(run, tmp_path, monkeypatch):
    folder, shareable_before = shutil.copytree(run[0].folder, tmp_path / "old"), shareable(run[1])
    details = json.loads((folder / "run.json").read_text())
    del details["command"], details["images_sha256"]
    details["cache"] = shareable_before  # as versions before wrote it
    (folder / "run.json").write_text(json.dumps(details))
    page = write_report(folder, cache=read_cache(run[1])).read_text()
    line = f"ball fit '{shareable(run[1])}' --config run.json"
    assert line.replace("'", "&#39;") in page
    monkeypatch.chdir(folder)
    (source, config), _ = parsed(line, monkeypatch, "ball_features.runs.fit.fit")
    assert (str(source), config) == (shareable_before, FitConfig(models=("logistic", "colour"), repeats=1))
    details["command"] = ""
    (folder / "run.json").write_text(json.dumps(details))
    assert "made in Python" in write_report(folder).read_text()


@pytest.mark.slow
def test_what_tune_found_is_fitted_again_to_the_same_numbers(small_cache, tmp_path, monkeypatch):
    groups = tmp_path / "my groups.csv"
    paths = read_cache(small_cache, embeddings=False).path
    groups.write_text("path,patient\n" + "\n".join(f"{path},{row // 2}" for row, path in enumerate(paths)))
    config = FitConfig(seed=5, groups=str(groups), group_column="patient", head=HeadConfig(epochs=3), jobs=1)
    run, _ = tune(small_cache, config, trials=3, out_root=tmp_path)
    assert (
        run.details["command"] == f"ball tune {shareable(small_cache)} --config {shareable(run.folder / 'config.toml')}"
    )
    with monkeypatch.context() as patch:
        (_, searched), options = parsed(run.details["command"], patch, "ball_features.runs.tune.tune")
    assert (replace(searched, groups=str(Path(searched.groups).resolve())), options["trials"]) == (config, 3)
    line = json.loads((run.folder / "best.json").read_text())["command"]
    assert any(note == f"To use it: {line}" for note in run.notes)
    with monkeypatch.context() as patch:
        (cache, found), _ = parsed(line, patch, "ball_features.runs.fit.fit")
    again = fit(cache, found, out_root=tmp_path)
    wanted = next(row for row in run.metrics if row.model == "mlp-tuned")
    assert again.metrics[0]["log_loss"] == wanted["log_loss"]


@pytest.mark.slow
def test_a_run_whose_name_is_taken_names_its_own_file(small_cache, tmp_path, monkeypatch):
    other = shutil.copy(small_cache, tmp_path / "other one.h5")
    config = FitConfig(models=("logistic", "majority"), repeats=1, test_size=0.3)
    for name in ("a", "a-2"):
        run, _ = compare([str(small_cache), str(other)], config, out_root=tmp_path, name="a")
        assert run.folder.name == name
        with monkeypatch.context() as patch:
            (caches, found), _ = parsed(run.details["command"], patch, "ball_features.runs.compare.compare")
        assert f"--config {shareable(run.folder / 'config.toml')}" in run.details["command"]
        assert caches == shareable([str(small_cache), str(other)])
        assert found == config


@pytest.mark.slow
@pytest.mark.parametrize("what", ["settings", "images"])
def test_another_cache_is_refused_and_one_made_anew_is_left_out(run, tmp_path, what, monkeypatch):
    run, own = run
    other = tmp_path / "other.h5"
    shutil.copy(own, other)
    with h5py.File(other, "r+") as file:
        del file["checksums"]
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
    del details["cache_from_run"]  # which would find the cache itself
    (folder / "run.json").write_text(json.dumps(details | {"cache": str(other)}))
    recorded = runner.invoke(app, ["report", str(folder)])
    assert recorded.exit_code == 0
    assert f"other {what}" in recorded.output
    assert "no map of the embeddings" in (folder / "report.html").read_text()
    assert runner.invoke(app, ["report", str(folder), "--cache", str(own)]).exit_code == 0
    assert "Map of the embeddings" in (folder / "report.html").read_text()
