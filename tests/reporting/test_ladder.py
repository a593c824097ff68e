import csv

import pytest

from ball_features import FitConfig, HeadConfig, read_cache
from ball_features.errors import ConfigError
from ball_features.reporting.ladder import RUNGS, ladder, render_ladder


def test_every_rung_and_the_drop(small_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 5)
    cache = read_cache(small_cache)
    groups = tmp_path / "groups.csv"
    lines = [f"{path},{row // 2},{row % 2},{row // 3}" for row, path in enumerate(cache.path)]
    groups.write_text("\n".join(["path,group,series,block", *lines]))
    config = FitConfig(models=("logistic", "colour"), repeats=2, folds=3, groups=str(groups), head=HeadConfig(epochs=2))
    folder, rows, _ = ladder(small_cache, config, out_root=tmp_path)
    assert [(row["rung"], row["model"]) for row in rows] == [(r, m) for r in RUNGS for m in ("logistic", "colour")]
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)
    assert all((row["mean_recall"] is not None) == (row["rung"] == "series left out") for row in rows)
    with (folder / "ladder.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    render_ladder(rows)
    with pytest.raises(ConfigError, match="ball audit"):
        ladder(small_cache, FitConfig(), out_root=tmp_path)
