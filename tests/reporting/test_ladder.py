import csv
import dataclasses

import pytest

from ball_features import FitConfig, read_cache
from ball_features.errors import ConfigError
from ball_features.reporting.ladder import RUNGS, ladder, render_ladder


def test_every_rung_and_the_drop(small_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 5)
    cache = read_cache(small_cache)
    groups = tmp_path / "groups.csv"
    lines = [f"{path},{row // 2},{row // 2 % 2},{row // 4}" for row, path in enumerate(cache.path)]
    groups.write_text("\n".join(["path,group,series,block", *lines]))
    config = FitConfig(models=("logistic", "colour"), repeats=2, folds=3, groups=str(groups))
    folder, rows, _ = ladder(small_cache, config, out_root=tmp_path)
    assert [(row["rung"], row["model"]) for row in rows] == [(r, m) for r in RUNGS for m in ("logistic", "colour")]
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)
    assert all((row["mean_recall"] is not None) == (row["rung"] == "series left out") for row in rows)
    with (folder / "ladder.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    render_ladder(rows)
    with pytest.raises(ConfigError, match="ball audit"):
        ladder(small_cache, FitConfig(), out_root=tmp_path)
    with pytest.raises(ConfigError, match="leave-group-out --group-column block"):
        ladder(small_cache, dataclasses.replace(config, group_column="block"), out_root=tmp_path)


def test_a_rung_that_cannot_be_climbed_is_left_out(small_cache, tmp_path):
    cache = read_cache(small_cache)
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "\n".join(["path,group,series,block", *(f"{path},{row},s,b" for row, path in enumerate(cache.path))])
    )
    config = FitConfig(models=("logistic",), repeats=1, folds=3, groups=str(groups))
    _, rows, notes = ladder(small_cache, config, out_root=tmp_path)
    assert [row["rung"] for row in rows] == ["random", "copies together", "groups"]
    assert any(note.startswith("blocks: ") for note in notes)
    assert any(note.startswith("series left out: ") for note in notes)
    render_ladder(rows)
