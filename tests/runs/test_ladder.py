import csv
import dataclasses
import json
import re
from typing import Any

import h5py
import numpy as np
import pytest

from ball_features import FitConfig, read_cache
from ball_features.config.paths import shareable
from ball_features.config.toml import read_settings
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.protocols import evaluate
from ball_features.evaluation.rows import LadderRow, read_rows
from ball_features.reporting.run_tables import render_ladder
from ball_features.runs.ladder import ladder, with_draws
from ball_features.runs.rungs import RUNGS, make_rungs
from tests.conftest import with_columns
from tests.made import clouds, write_cache


@pytest.mark.slow
def test_every_rung_and_the_drop(small_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 4)
    cache = read_cache(small_cache)
    groups = tmp_path / "groups.csv"
    lines = [
        f"{path},{row // 2},{unit % 2},{unit},{unit},{unit % 3 % 2},{'test' if unit % 3 > 1 else 'train'}"
        for row, path in enumerate(cache.path)
        for unit in (row // 4,)
    ]
    groups.write_text("\n".join(["path,group,series,block,patient,site,split", *lines]))
    config = FitConfig(models=("logistic", "colour"), repeats=2, folds=3, groups=str(groups))
    done = ladder(small_cache, config, out_root=tmp_path)
    folder = done.folder
    rows = done.rows
    names = [name for name in RUNGS if name != "series left out"]  # sites are known
    assert [(row.rung, row.model) for row in rows] == [(r, m) for r in names for m in ("logistic", "colour")]
    assert all(row.accuracy_low <= row.accuracy <= row.accuracy_high for row in rows)
    assert all((row.mean_recall is not None) == row.rung.endswith(" left out") for row in rows)
    assert read_rows(folder / "ladder.csv", LadderRow) == rows
    render_ladder(rows)
    with pytest.raises(ConfigError, match="ball audit"):
        ladder(small_cache, FitConfig(), out_root=tmp_path)


@pytest.mark.slow
def test_a_rung_that_cannot_be_climbed_is_left_out(small_cache, tmp_path):
    cache = read_cache(small_cache)
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "\n".join(["path,group,series,block", *(f"{path},{row},s,b" for row, path in enumerate(cache.path))])
    )
    config = FitConfig(models=("logistic",), repeats=1, folds=3, groups=str(groups))
    done = ladder(small_cache, config, out_root=tmp_path)
    rows = done.rows
    notes = done.notes
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


@pytest.mark.slow
def test_a_users_own_groups(small_cache, patients, tmp_path):
    config = dataclasses.replace(CONFIG, groups=patients("group"))
    done = ladder(small_cache, config, out_root=tmp_path)
    folder = done.folder
    rows = done.rows
    notes = done.notes
    assert list(dict.fromkeys(row.rung for row in rows)) == ["random", "copies together", "groups", "group left out"]
    assert any(re.match("blocks: .*expected 'block' too", note) for note in notes)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "likely, not known" not in page
    assert "worst group" in page
    render_ladder(rows)


@pytest.mark.slow
def test_a_column_named_is_what_the_last_rung_leaves_out(small_cache, patients, tmp_path, monkeypatch):
    groups = patients("patient")
    config = dataclasses.replace(CONFIG, groups=groups, group_column="patient")
    done = ladder(small_cache, config, out_root=tmp_path)
    folder = done.folder
    rows = done.rows
    notes = done.notes
    assert list(dict.fromkeys(row.rung for row in rows)) == ["random", "copies together", "patient left out"]
    assert {note.split(":")[0] for note in notes} >= {"groups", "blocks"}
    command = json.loads((folder / "run.json").read_text())["command"]
    assert command == f"ball fit {shareable(small_cache)} --config {shareable(folder / 'config.toml')}"
    settings = read_settings(folder / "config.toml")
    assert (settings["protocol"], settings["groups"], settings["group_column"]) == (
        "ladder",
        shareable(groups),
        "patient",
    )

    def fitted(*arguments, **options):
        raise AssertionError("a model was fitted")

    monkeypatch.setattr("ball_features.runs.ladder.evaluate", fitted)
    with pytest.raises(DataError, match="expected 'patiant' too"):
        ladder(small_cache, dataclasses.replace(config, group_column="patiant"), out_root=tmp_path)
    with pytest.raises(DataError, match="group_column="):
        ladder(
            small_cache, dataclasses.replace(config, groups=patients("ward"), group_column="auto"), out_root=tmp_path
        )
    with pytest.raises(ConfigError, match="without slashes"):
        ladder(small_cache, config, out_root=tmp_path, name="../x")


@pytest.mark.slow
def test_groups_are_not_left_out_by_the_hundred(small_cache, patients, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.runs.rungs._MOST_GROUPS", 5)
    config = dataclasses.replace(CONFIG, groups=patients("group"))
    done = ladder(small_cache, config, out_root=tmp_path)
    rows = done.rows
    notes = done.notes
    assert rows[-1].rung == "groups"
    assert any("6 groups, expected at most 5" in note for note in notes)
    render_ladder(rows)
    done = ladder(small_cache, dataclasses.replace(config, group_column="group"), out_root=tmp_path)
    rows = done.rows
    assert rows[-1].rung == "group left out"


@pytest.mark.slow
def test_every_number_can_be_recomputed(small_cache, patients, tmp_path):
    done = ladder(small_cache, dataclasses.replace(CONFIG, groups=patients("group")), out_root=tmp_path)
    folder = done.folder
    rows = done.rows

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
            by_class = {}
            for item in own:
                hits = by_class.setdefault(group[item["path"]], {}).setdefault(item["label"], [])
                hits.append(item["label"] == item["predicted"])
            balanced = [np.mean([np.mean(hit) for hit in classes.values()]) for classes in by_class.values()]
            assert np.mean(balanced) == pytest.approx(row.mean_balanced_recall)
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


@pytest.mark.slow
def test_the_first_two_rungs_are_one_draw(small_cache, patients, tmp_path):
    """Images that have no copy lie where they lay; copies lie with the first of their kind."""
    cache_path = tmp_path / "copies.h5"
    cache_path.write_bytes(small_cache.read_bytes())
    with h5py.File(cache_path, "r+") as file:
        del file["checksums"]
        sha256: Any = file["sha256"]
        for row in range(0, 12, 2):  # six pairs of Benign
            sha256[row + 1] = sha256[row]
    done = ladder(cache_path, dataclasses.replace(CONFIG, groups=patients("group")), out_root=tmp_path)
    folder = done.folder
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


@pytest.mark.slow
def test_few_copies_need_no_fits_of_their_own(tmp_path, monkeypatch):
    """The second rung then asks the models of the first about the test images that have no copy in training."""
    cache_path = write_cache(tmp_path / "few.h5", *clouds(60), columns={"patient": [f"P{n // 4}" for n in range(240)]})
    with h5py.File(cache_path, "r+") as file:
        del file["checksums"]
        sha256: Any = file["sha256"]
        for row in range(0, 240, 24):  # ten pairs
            sha256[row + 1] = sha256[row]
    fits = []
    monkeypatch.setattr(
        "ball_features.runs.ladder.evaluate", lambda own, told: fits.append(own.config.protocol) or evaluate(own, told)
    )
    done = ladder(cache_path, FitConfig(models=("logistic", "majority"), repeats=2, jobs=1), out_root=tmp_path)
    assert fits.count("holdout") == 1
    sides, answers = ({"random": {}, "copies together": {}} for _ in range(2))
    for name, found, value in (("splits", sides, "split"), ("predictions", answers, "p_Early")):
        with (done.folder / f"{name}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row["rung"] in found:
                    found[row["rung"]][row["repeat"], row["path"], row.get("model")] = row[value]
    cache = read_cache(cache_path, embeddings=False)
    digests = dict(zip(cache.path.tolist(), cache.sha256.tolist(), strict=True))
    trained = {(r, digests[path]) for (r, path, _), side in sides["random"].items() if side in ("train", "val")}
    crossed = {key for key, side in sides["random"].items() if side == "test" and (key[0], digests[key[1]]) in trained}
    assert crossed
    assert sides["copies together"] == {key: side for key, side in sides["random"].items() if key not in crossed}
    left = {key: value for key, value in answers["random"].items() if (*key[:2], None) not in crossed}
    assert answers["copies together"] == left


@pytest.mark.parametrize(("images", "draws"), [(100, 5), (1000, 5), (1300, 4), (1847, 3), (3256, 2), (100_000, 2)])
def test_a_ladder_draws_as_often_as_its_images_are_few(images, draws):
    assert with_draws(FitConfig(protocol="ladder"), images).repeats == draws
    assert with_draws(FitConfig(protocol="ladder", repeats=3), images).repeats == 3
    assert FitConfig().repeats == 5


@pytest.mark.slow
def test_an_interrupted_ladder_goes_on_where_it_was(small_cache, tmp_path, monkeypatch):
    """Finished rungs are not fitted again, the result is that of an uninterrupted ladder, and progress counts all."""
    groups = tmp_path / "groups.csv"
    cache = read_cache(small_cache)
    rows = "".join(f"{path},{number // 4}\n" for number, path in enumerate(cache.path))
    groups.write_text(f"path,group\n{rows}")
    config = dataclasses.replace(CONFIG, groups=str(groups), jobs=1)
    whole = ladder(small_cache, config, out_root=tmp_path, name="whole")
    seen = []

    def interrupted(done, total, name):
        seen.append((done, total, name))
        if name.startswith("groups"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ladder(small_cache, config, out_root=tmp_path, name="cut", progress=interrupted)
    calls = []
    fitted = evaluate
    monkeypatch.setattr("ball_features.runs.ladder.evaluate", lambda *given: calls.append(given) or fitted(*given))
    done = ladder(small_cache, config, out_root=tmp_path, name="cut", progress=lambda *told: seen.append(told))
    kept = {"random", "copies together"}  # without copies their splits are the same, and fitted once
    assert [call[0].config.protocol for call in calls] == ["group-cv"]
    assert {row.rung for row in whole.rows} == {*kept, "groups"}
    assert done.rows == whole.rows
    assert (done.folder / "predictions.csv").read_bytes() == (whole.folder / "predictions.csv").read_bytes()
    assert not list(tmp_path.glob(".*rungs"))
    assert len({total for _, total, _ in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.slow
def test_a_ladder_has_a_verdict(small_cache, tmp_path):
    groups = tmp_path / "groups.csv"
    cache = read_cache(small_cache)
    rows = "".join(f"{path},{number // 4}\n" for number, path in enumerate(cache.path))
    groups.write_text(f"path,group\n{rows}")
    done = ladder(small_cache, dataclasses.replace(CONFIG, groups=str(groups), jobs=1), out_root=tmp_path)
    written = json.loads((done.folder / "verdict.json").read_text())
    assert [item["code"] for item in written] == [finding.code for finding in done.findings]
    assert "random-weights" in {finding.code for finding in done.findings}
    assert {"code", "severity", "numbers", "sentence", "next"} <= set(written[0])


@pytest.mark.slow
def test_the_columns_of_the_cache_make_the_rungs(small_cache, tmp_path, monkeypatch):
    """Patients, sites and the split of a sheet, without any other file; a groups file adds its own."""
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 4)
    cache = with_columns(
        small_cache,
        tmp_path / "columns.h5",
        patient=lambda row: f"P{row // 4}",
        site=lambda row: "AB"[row // 4 % 3 % 2],
        split=lambda row: "test" if row % 3 == 0 else "train",
    )
    done = ladder(cache, CONFIG, out_root=tmp_path)
    rungs = list(dict.fromkeys(row.rung for row in done.rows))
    assert rungs == ["random", "copies together", "given split", "patients", "site left out"]
    assert sum("`ball audit` finds them" in note for note in done.notes) == 1
    with (done.folder / "splits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sides = {}
    for row in rows:
        if row["rung"] == "patients":
            sides.setdefault((row["repeat"], row["fold"], row["group"]), set()).add(row["split"])
    assert all(len(own) == 1 for own in sides.values())  # validation included
    tests = [{row["group"] for row in rows if row["rung"] == "site left out" and row["fold"] == fold
              and row["split"] == "test"} for fold in "01"]  # fmt: skip
    assert tests == [{"A"}, {"B"}]
    codes = {finding.code: finding for finding in done.findings}
    assert codes["given-split-leaks"].numbers["patients"] == 16
    assert codes["not-tested"].numbers["not_tested"] == ["copies and overlapping fields"]
    groups = tmp_path / "audit.csv"
    paths = read_cache(cache, embeddings=False).path
    groups.write_text("path,group\n" + "".join(f"{path},{row // 2}\n" for row, path in enumerate(paths)))
    both = ladder(cache, dataclasses.replace(CONFIG, groups=str(groups)), out_root=tmp_path)
    assert [rung for rung in dict.fromkeys(row.rung for row in both.rows) if rung not in rungs] == [
        "groups",
        "group left out",
    ]
    own = {name: [row for row in run.rows if row.rung == "patients"] for name, run in (("a", done), ("b", both))}
    assert own["a"] == own["b"]


@pytest.mark.slow
def test_a_ladder_that_is_kept_is_not_fitted_again(small_cache, tmp_path, monkeypatch):
    cache = with_columns(small_cache, tmp_path / "columns.h5", patient=lambda row: f"P{row // 4}")
    first = ladder(cache, CONFIG, out_root=tmp_path, keep=True)
    before = (first.folder / "predictions.csv").read_bytes()

    def fitted(*arguments, **options):
        raise AssertionError("a model was fitted")

    with monkeypatch.context() as patched:
        patched.setattr("ball_features.runs.ladder.evaluate", fitted)
        again = ladder(cache, CONFIG, out_root=tmp_path, keep=True)
        assert (again.folder, again.rows) == (first.folder, first.rows)
        assert (again.folder / "predictions.csv").read_bytes() == before
        with pytest.raises(AssertionError):
            ladder(cache, dataclasses.replace(CONFIG, seed=1), out_root=tmp_path, keep=True)
    ladder(cache, dataclasses.replace(CONFIG, models=("colour",)), out_root=tmp_path, keep=True)
    assert len(list((tmp_path / ".ladder.rungs").glob("*.npz"))) == 3  # those of other settings are forgotten


@pytest.mark.slow
def test_a_kept_ladder_whose_labels_were_corrected_is_fitted_again(tmp_path):
    """Splits may stay as they are, as here, where two classes change names."""
    embeddings, label = clouds(40)
    rows = slice(0, 80)
    columns = {"patient": [f"P{row % 20}" for row in range(80)]}
    names = {"Benign": "Early", "Early": "Benign"}
    done = []
    for own in (label[rows], [names[name] for name in label[rows]]):
        cache = write_cache(tmp_path / f"{len(done)}.h5", embeddings[rows], own, columns)
        with h5py.File(cache, "r+") as file:
            file["path"][:] = [f"{row}.png" for row in range(80)]
            del file["checksums"]
        config = FitConfig(models=("logistic",), repeats=1)
        done.append(ladder(cache, config, out_root=tmp_path, keep=True).rows)
    assert [row.accuracy > 0.9 for rows in done for row in rows] == [True] * 6


def test_a_ladder_refuses_an_adaptation_that_it_would_not_make(tmp_path):
    with pytest.raises(ConfigError, match="adapt='auto' with the ladder"):
        ladder(tmp_path / "c.h5", FitConfig(adapt="auto"), out_root=tmp_path)


def test_copies_that_take_a_class_out_of_training_are_no_rung(tmp_path):
    embeddings, label = clouds(15)
    cache = write_cache(tmp_path / "c.h5", embeddings, ["rare"] * 4 + label[4:], {"group": [str(n) for n in range(60)]})
    with h5py.File(cache, "r+") as file:
        file["sha256"][:4] = file["sha256"][0]
        del file["checksums"]
    for seed in range(4):
        done = ladder(cache, FitConfig(models=("logistic",), repeats=2, seed=seed), out_root=tmp_path, name=str(seed))
        lost = any("No image of rare is left to train on" in note for note in done.notes)
        assert lost == ("copies together" not in {row.rung for row in done.rows})
        if lost:
            return
    raise AssertionError("no seed put the copies to validation or test")


@pytest.mark.slow
def test_known_sites_stand_in_for_inferred_series(small_cache, tmp_path, monkeypatch):
    """The audit's series of one class, left out of a site whose other classes stay, test what the site tests better."""
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 4)
    cache = with_columns(small_cache, tmp_path / "sites.h5", site=lambda row: "AB"[row % 2])
    known = read_cache(cache, embeddings=False)
    groups = tmp_path / "audit.csv"
    rows = enumerate(zip(known.path, known.label, strict=True))
    lines = [f"{path},{row},{label}/{row % 2}" for row, (path, label) in rows]
    groups.write_text("path,group,series\n" + "\n".join(lines) + "\n")
    config = dataclasses.replace(CONFIG, groups=str(groups))
    rungs, _, notes = make_rungs(config, known)
    assert [rung.name for rung in rungs][-1] == "site left out"
    assert "series left out" not in {rung.name for rung in rungs}
    assert sum("series are only inferred" in note for note in notes) == 1
    rungs, _, _ = make_rungs(dataclasses.replace(config, group_column="series"), known)
    assert "series left out" in {rung.name for rung in rungs}
    rungs, _, _ = make_rungs(config, read_cache(small_cache, embeddings=False))
    assert [rung.name for rung in rungs][-1] == "series left out"


def test_too_few_images_for_any_step_are_said(tmp_path):
    embeddings, label = clouds(2, dim=4)
    cache = write_cache(tmp_path / "a.h5", embeddings, label, {"patient": ["P1"] * len(label)})
    with pytest.raises(DataError, match="No step of the ladder can be made of these 8 images"):
        ladder(cache, FitConfig(models=("logistic",), repeats=1, jobs=1), out_root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
