"""The search of the head's settings: halving, validation only, and a run of its own."""

import csv
import dataclasses

import numpy as np
import pytest

from ball_features.cache import read_cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import ImageTable, Split, make_splits
from ball_features.errors import ConfigError
from ball_features.evaluation.rows import TrialRow, read_rows
from ball_features.evaluation.search import Trial, draw_trials, search
from ball_features.models.mlp import MLPHead
from ball_features.runs.tune import tune


def test_trials_begin_with_the_report_and_repeat_by_seed():
    first = draw_trials(9, 3, 40, 2)
    assert first[0].head == HeadConfig()
    assert len(first) == 9
    assert first == draw_trials(9, 3, 40, 2)
    assert first[1:] != draw_trials(9, 4, 40, 2)[1:]
    assert len({trial.views for trial in draw_trials(40, 0, 40, 2)}) == 3
    assert {trial.views for trial in draw_trials(40, 0, 40, 1)} == {("plain", "plain")}
    with pytest.raises(ConfigError, match="trials"):
        draw_trials(0, 0, 40, 1)


@pytest.mark.slow
def test_halving_is_what_full_trainings_would_say_of_those_it_keeps():
    rng = np.random.default_rng(0)
    codes = np.arange(150) % 3
    X = (rng.normal(size=(150, 1, 20)) + codes[:, None, None]).astype(np.float32)
    split = Split(0, 0, np.arange(90), np.arange(90, 120), np.arange(120, 150))
    seen = []
    found = search(X, codes, split, draw_trials(10, 0, 12, 1), jobs=1, progress=lambda *a: seen.append(a[:2]))
    assert [trial.epochs for trial in found] == [12] * 4 + [4] * 6
    assert seen[-1] == (14, 14)
    assert [t.val_loss for t in found[:4]] == sorted(t.val_loss for t in found[:4])
    best = found[0]
    head = MLPHead(**best.head.to_dict(), random_state=0)
    head.fit(X[split.train, 0], codes[split.train], X_val=X[split.val, 0], y_val=codes[split.val])
    assert head.history_["val_loss"].min() == pytest.approx(best.val_loss)
    # Test rows play no part.
    poisoned = X.copy()
    poisoned[split.test] = np.nan
    again = search(poisoned, codes, split, draw_trials(10, 0, 12, 1), jobs=1)
    assert [dataclasses.astuple(t) for t in again] == [dataclasses.astuple(t) for t in found]


@pytest.mark.slow
def test_tune_writes_a_run(small_cache, tmp_path):
    config = FitConfig(head=HeadConfig(epochs=4), test_size=0.3, val_size=0.3, jobs=1)
    run, rows = tune(small_cache, config, trials=4, out_root=tmp_path, name="t")
    assert {row.model for row in run.metrics} == {"mlp-tuned", "mlp", "logistic", "colour"}
    with (run.folder / "trials.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["rank"] for row in table] == ["1", "2", "3", "4"]
    assert rows[0].val_loss == min(row.val_loss for row in rows if row.epochs == 4)
    assert read_rows(run.folder / "trials.csv", TrialRow) == rows
    assert "ball fit" in (run.folder / "best.json").read_text()
    assert "student report" in run.notes[0]
    tuned, usual = (next(row for row in run.metrics if row.model == name) for name in ("mlp-tuned", "mlp"))
    if "against" in run.notes[0]:
        assert f"{100 * tuned.accuracy:.2f} against {100 * usual.accuracy:.2f} %" in run.notes[0]
    # The same test images as `ball fit` would use, and the validation images are none of them.
    cache = read_cache(small_cache)
    (split,), _ = make_splits(dataclasses.replace(config, repeats=1), ImageTable(cache.path, cache.label, cache.sha256))
    with (run.folder / "splits.csv").open(newline="") as file:
        test = {row["path"] for row in csv.DictReader(file) if row["split"] == "test"}
    assert test == set(cache.path[split.test])
    with pytest.raises(ConfigError, match="holdout"):
        tune(small_cache, dataclasses.replace(config, protocol="cv"), out_root=tmp_path)


def test_a_training_that_diverges_is_never_the_choice():
    codes = np.arange(60) % 3
    X = (np.random.default_rng(0).normal(size=(60, 1, 8)) + codes[:, None, None]).astype(np.float32)
    split = Split(0, 0, np.arange(40), np.arange(40, 50), np.arange(50, 60))
    settings = [HeadConfig(epochs=2, learning_rate=rate, clip_norm=None) for rate in (1e30, 1e-3, 1e-2)]
    found = search(X, codes, split, [Trial(own, ("plain", "plain")) for own in settings], jobs=1)
    assert [np.isnan(trial.val_loss) for trial in found] == [False, False, True]
