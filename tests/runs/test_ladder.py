import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from ball_features import FitConfig, read_cache
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.rows import LadderRow, read_rows
from ball_features.reporting.run_tables import render_ladder
from ball_features.runs.ladder import ladder
from ball_features.runs.rungs import RUNGS


def test_every_rung_and_the_drop(small_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 5)
    cache = read_cache(small_cache)
    groups = tmp_path / "groups.csv"
    lines = [f"{path},{row // 2},{row // 2 % 2},{row // 4}" for row, path in enumerate(cache.path)]
    groups.write_text("\n".join(["path,group,series,block", *lines]))
    config = FitConfig(models=("logistic", "colour"), repeats=2, folds=3, groups=str(groups))
    folder, rows, _ = ladder(small_cache, config, out_root=tmp_path)
    assert [(row.rung, row.model) for row in rows] == [(r, m) for r in RUNGS for m in ("logistic", "colour")]
    assert all(row.accuracy_low <= row.accuracy <= row.accuracy_high for row in rows)
    assert all((row.mean_recall is not None) == (row.rung == "series left out") for row in rows)
    assert read_rows(folder / "ladder.csv", LadderRow) == rows
    render_ladder(rows)
    with pytest.raises(ConfigError, match="ball audit"):
        ladder(small_cache, FitConfig(), out_root=tmp_path)


def test_a_rung_that_cannot_be_climbed_is_left_out(small_cache, tmp_path):
    cache = read_cache(small_cache)
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "\n".join(["path,group,series,block", *(f"{path},{row},s,b" for row, path in enumerate(cache.path))])
    )
    config = FitConfig(models=("logistic",), repeats=1, folds=3, groups=str(groups))
    _, rows, notes = ladder(small_cache, config, out_root=tmp_path)
    assert [row.rung for row in rows] == ["random", "copies together", "groups"]
    assert any(note.startswith("blocks: ") for note in notes)
    assert any(note.startswith("series left out: ") for note in notes)
    render_ladder(rows)


@pytest.fixture
def patients(small_cache, tmp_path, monkeypatch):
    """A user's own file: each image's patient, and nothing else."""
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 5)
    paths = read_cache(small_cache, embeddings=False).path

    def write(column):
        file = tmp_path / "my patients.csv"
        file.write_text("\n".join([f"path,{column}", *(f"{path},p{row % 6}" for row, path in enumerate(paths))]))
        return str(file)

    return write


CONFIG = FitConfig(models=("logistic", "colour"), repeats=2, folds=3)


def test_a_users_own_groups(small_cache, patients, tmp_path):
    config = dataclasses.replace(CONFIG, groups=patients("group"))
    folder, rows, notes = ladder(small_cache, config, out_root=tmp_path)
    assert list(dict.fromkeys(row.rung for row in rows)) == ["random", "copies together", "groups", "group left out"]
    assert any(re.match("blocks: .*expected 'block' too", note) for note in notes)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "likely, not known" not in page
    assert "worst group" in page
    render_ladder(rows)


def test_a_column_named_is_what_the_last_rung_leaves_out(small_cache, patients, tmp_path, monkeypatch):
    groups = patients("patient")
    config = dataclasses.replace(CONFIG, groups=groups, group_column="patient")
    folder, rows, notes = ladder(small_cache, config, out_root=tmp_path)
    assert list(dict.fromkeys(row.rung for row in rows)) == ["random", "copies together", "patient left out"]
    assert {note.split(":")[0] for note in notes} >= {"groups", "blocks"}
    command = json.loads((folder / "run.json").read_text())["command"]
    assert f"--groups '{groups}' --group-column patient --protocol ladder" in command

    def fitted(*arguments, **options):
        raise AssertionError("a model was fitted")

    monkeypatch.setattr("ball_features.runs.ladder.evaluate", fitted)
    with pytest.raises(DataError, match="expected 'patiant' too"):
        ladder(small_cache, dataclasses.replace(config, group_column="patiant"), out_root=tmp_path)
    with pytest.raises(DataError, match="group_column="):
        ladder(small_cache, dataclasses.replace(config, group_column="auto"), out_root=tmp_path)
    with pytest.raises(ConfigError, match="without slashes"):
        ladder(small_cache, config, out_root=tmp_path, name="../x")


def test_groups_are_not_left_out_by_the_hundred(small_cache, patients, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.runs.rungs._MOST_GROUPS", 5)
    config = dataclasses.replace(CONFIG, groups=patients("group"))
    _, rows, notes = ladder(small_cache, config, out_root=tmp_path)
    assert rows[-1].rung == "groups"
    assert any("6 groups, expected at most 5" in note for note in notes)
    render_ladder(rows)
    _, rows, _ = ladder(small_cache, dataclasses.replace(config, group_column="group"), out_root=tmp_path)
    assert rows[-1].rung == "group left out"


def test_every_number_can_be_recomputed(small_cache, patients, tmp_path):
    folder, rows, _ = ladder(small_cache, dataclasses.replace(CONFIG, groups=patients("group")), out_root=tmp_path)

    def table(name):
        with (folder / name).open(newline="") as file:
            return list(csv.DictReader(file))

    predictions, splits = table("predictions.csv"), table("splits.csv")
    for row in rows:
        own = [item for item in predictions if (item["rung"], item["model"]) == (row.rung, row.model)]
        assert np.mean([item["label"] == item["predicted"] for item in own]) == pytest.approx(row.accuracy)
        if row.worst_recall is not None:
            group = {item["path"]: item["group"] for item in splits if item["rung"] == row.rung}
            each = {}
            for item in own:
                each.setdefault(group[item["path"]], []).append(item["label"] == item["predicted"])
            assert min(np.mean(hit) for hit in each.values()) == pytest.approx(row.worst_recall)
        key = ("repeat", "fold", "path")
        tested = {tuple(item[k] for k in key) for item in splits if (item["rung"], item["split"]) == (row.rung, "test")}
        assert tested == {tuple(item[k] for k in key) for item in own}
    cache = read_cache(small_cache, embeddings=False)
    details = json.loads((folder / "run.json").read_text())
    assert details["cache_fingerprint"] == cache.attributes["fingerprint"]
    assert details["versions"]["numpy"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    for word in ("Provenance", details["created"], cache.attributes["fingerprint"], cache.attributes["weights_sha256"]):
        assert word in page


def test_the_first_two_rungs_are_one_draw(small_cache, patients, tmp_path):
    """Images that have no copy lie where they lay; copies lie with the first of their kind."""
    import h5py

    cache_path = tmp_path / "copies.h5"
    cache_path.write_bytes(small_cache.read_bytes())
    with h5py.File(cache_path, "r+") as file:
        for row in range(0, 12, 2):  # six pairs of Benign
            file["sha256"][row + 1] = file["sha256"][row]
    folder, _, _ = ladder(cache_path, dataclasses.replace(CONFIG, groups=patients("group")), out_root=tmp_path)
    with (folder / "splits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    side = {(row["rung"], row["repeat"], row["path"]): row["split"] for row in rows}
    cache = read_cache(cache_path, embeddings=False)
    place = {}
    for path, digest in sorted(zip(cache.path.tolist(), cache.sha256.tolist(), strict=True)):
        place.setdefault(digest, path)
    apart = 0
    for repeat in "01":
        for path, digest in zip(cache.path, cache.sha256, strict=True):
            assert side["copies together", repeat, path] == side["random", repeat, place[digest]]
            apart += side["random", repeat, path] != side["random", repeat, place[digest]]
    assert apart  # copies were on two sides
