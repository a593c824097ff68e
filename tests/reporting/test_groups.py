"""Recall by group and the report's arithmetic, against a count by hand."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import recall_score

from ball_features.cache import read_cache
from ball_features.config import FitConfig
from ball_features.dataset.synthetic import CLASSES
from ball_features.errors import ConfigError
from ball_features.evaluation.views import choose_views
from ball_features.runs.fit import fit
from ball_features.runs.store import read_run


@pytest.fixture(scope="module")
def groups_file(small_cache, tmp_path_factory):
    cache = read_cache(small_cache, embeddings=False)
    path = tmp_path_factory.mktemp("groups") / "groups.csv"
    rows = [f"{name},slide-{number % 6}" for number, name in enumerate(cache.path)]
    path.write_text("\n".join(["path,group", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_rows_of_groups_can_be_counted_again(small_cache, groups_file, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 2)
    config = FitConfig(protocol="leave-group-out", models=("logistic", "colour"), repeats=1, groups=str(groups_file))
    run = fit(small_cache, replace(config, compat_batch_metrics=True), out_root=tmp_path)
    with (run.folder / "predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    slide = dict(line.split(",") for line in groups_file.read_text().splitlines()[1:])
    assert len(run.groups) == 12
    for row in run.groups:
        own = [p for p in predictions if p["model"] == row.model and slide[p["path"]] == row.group]
        assert row.images == len(own) == 8
        assert row.recall == pytest.approx(np.mean([p["label"] == p["predicted"] for p in own]))
        side = np.mean([(p["label"] == "Benign") == (p["predicted"] == "Benign") for p in own])
        assert row.benign_malignant == pytest.approx(side)
    again = read_run(run.folder)
    assert again.groups == run.groups
    assert again.compat == run.compat
    assert len(again.more_tables()) == 3
    assert "only 6 groups to resample." in (run.folder / "report.html").read_text(encoding="utf-8")
    assert "only 6 groups to resample." in (run.folder / "table.md").read_text(encoding="utf-8")
    assert "8 test images a split" in run.title
    assert "Tested by fewer than 20 images: Benign (12), Early (12), Pre (12), Pro (12)." in run.caption
    assert len(run.more_tables()) == 3
    assert {row.model for row in run.compat} == {"logistic", "colour"}
    accuracy = {row.model: row.accuracy for row in run.metrics}
    for row in run.compat:
        assert row.accuracy == pytest.approx(accuracy[row.model])
        own = [(p["label"], p["predicted"]) for p in predictions if p["model"] == row.model]
        order = np.random.default_rng(0).permutation(len(own))
        recalls = []
        for start in range(0, len(own), 16):  # an absent class counts as 0
            truth, predicted = zip(*(own[number] for number in order[start : start + 16]), strict=True)
            recalls.append(
                recall_score(truth, predicted, labels=list(CLASSES), average="macro", zero_division=0)  # pyright: ignore
            )
        assert row.recall == pytest.approx(np.mean(recalls))


def test_test_sets_of_unlike_size_are_told_by_their_range(small_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 2)
    paths, groups = read_cache(small_cache, embeddings=False).path, tmp_path / "groups.csv"
    groups.write_text(
        "path,group\n" + "\n".join(f"{path},{min(row % 12, 2)}" for row, path in enumerate(paths)), encoding="utf-8"
    )
    config = FitConfig(protocol="leave-group-out", models=("majority",), repeats=1, groups=str(groups))
    assert fit(small_cache, config, out_root=tmp_path).title.endswith(" 4 to 40 test images a split")


@pytest.mark.slow
def test_one_is_singular(small_cache, tmp_path):
    run = fit(small_cache, FitConfig(models=("majority",), repeats=1), out_root=tmp_path)
    assert run.title.startswith("1 random hold-out ·")
    assert "pooled over 1 test set;" in run.caption
    assert fit(small_cache, FitConfig(models=("majority",), repeats=2), out_root=tmp_path).title.startswith(
        "2 random hold-outs"
    )


def test_views_by_name_and_number():
    names = ("plain", "grey-1", "blur-2")
    assert choose_views(names, "all") == (0, 1, 2)
    assert choose_views(names, "grey-1, 0") == (1, 0)
    with pytest.raises(ConfigError, match="plain, grey-1, blur-2"):
        choose_views(names, "gray")
    with pytest.raises(ConfigError, match="'3'"):
        choose_views(names, "3")


@pytest.mark.slow
def test_other_views_can_train_and_test(small_cache, tmp_path):
    names = read_cache(small_cache, embeddings=False).view
    accuracy = []
    for train, test in (("plain", "plain"), ("all", "all"), (names[-1], names[-1])):
        config = FitConfig(models=("logistic",), repeats=1, train_views=train, test_views=test)
        run = fit(small_cache, config, out_root=tmp_path)
        accuracy.append(run.metrics[0]["log_loss"])
    assert len(set(accuracy)) == len(names) + 1 if len(names) == 2 else len(set(accuracy)) >= 2
