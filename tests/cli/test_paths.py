"""Paths in what runs keep: what readers are told, and what repeats a run."""

import json
from pathlib import Path

from ball_features.config.paths import named, shareable
from ball_features.config.toml import read_settings


def test_a_path_is_told_by_its_name_outside_the_folder_that_was_worked_in(tmp_path, monkeypatch):
    here, home = tmp_path / "project", tmp_path / "home"
    for folder in (here, home):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(Path, "home", lambda: home)
    values = {
        "cache": str(here / "a" / "b.h5"),
        "groups": str(home / "g.csv"),
        "other": [str(tmp_path / "anna" / "c.h5")],
    }
    assert named(values) == {"cache": "a/b.h5", "groups": "~/g.csv", "other": ["c.h5"]}
    assert shareable(values)["other"] == ["../anna/c.h5"]
    assert named({"seed": 1, "groups": None, "name": "plain.h5", "text": "../two\nlines"})["text"] == "../two\nlines"


def test_a_record_of_a_run_finds_its_cache_from_its_own_folder(tmp_path, monkeypatch):
    run = tmp_path / "runs" / "try1"
    run.mkdir(parents=True)
    (tmp_path / "own.h5").touch()
    (run / "run.json").write_text(json.dumps({"cache": "own.h5", "cache_from_run": "./../../own.h5", "config": {}}))
    monkeypatch.chdir(run)
    assert read_settings(run / "run.json")["cache"] == str(tmp_path / "own.h5")
