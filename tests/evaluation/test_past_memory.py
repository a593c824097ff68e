"""`ball fit` with a memory: nothing changes where rows fit, and every row of the table says what it was fitted on."""

import csv
import json

import numpy as np
import pytest

from ball_features.bundles import from_run
from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.calibration import unit_mean
from ball_features.config import FitConfig, HeadConfig, Saving
from ball_features.config.sizes import read_bytes
from ball_features.errors import ConfigError
from ball_features.evaluation.past_memory import WORKER_BYTES, share_memory
from ball_features.evaluation.protocols import evaluate
from ball_features.evaluation.stored_results import read_measurement
from ball_features.evaluation.tasks import Evaluation, divide
from ball_features.models.registry import MODELS, select
from ball_features.runs.checks import complete_cache, split_by
from ball_features.runs.fit import fit
from tests.made import clouds, write_cache

DIM = 1024


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of 1,000 images whose rows take 16 MB while a model is fitted."""
    embeddings, labels = clouds(250, dim=DIM, distance=0.15)
    return write_cache(tmp_path_factory.mktemp("cache") / "c.h5", embeddings, labels)


def evaluation(cache, **settings):
    config = FitConfig(repeats=1, jobs=1, **settings)
    read = complete_cache(cache)
    return Evaluation(read, tuple(select(config.models)), tuple(split_by(config, read, None)[0]), config)


@pytest.mark.parametrize(
    ("text", "found"),
    [("4GB", 4 * 10**9), ("500 MB", 5 * 10**8), ("2GiB", 2**31), ("1.5g", 15 * 10**8), ("12", 12), ("4XB", None)],
)
def test_amounts_of_memory(text, found):
    assert read_bytes(text) == found


@pytest.mark.parametrize("wrong", ["much", "-4GB", "4 XB", "1MB"])
def test_a_wrong_amount_says_what_was_expected(wrong):
    with pytest.raises(ConfigError, match="such as 4GB"):
        FitConfig(memory=wrong)


@pytest.mark.slow
def test_a_memory_that_holds_all_rows_changes_nothing(cache):
    plain = evaluate(evaluation(cache, models=("logistic", "knn")))
    limited = evaluate(evaluation(cache, models=("logistic", "knn"), memory="2GB"))
    for one, two in zip(plain, limited, strict=True):
        assert np.array_equal(one.fitted[0].probability, two.fitted[0].probability)
        assert two.fitted[0].fitted_on == ""
    assert FitConfig(memory="").fingerprint() != FitConfig(memory="2GB").fingerprint()


def test_processes_are_fewer_before_rows_are_streamed(cache):
    tasks = list(divide(evaluation(cache, models=("logistic", "majority"))).values())
    held = 1000 * DIM * 16
    assert share_memory(tasks, 8, 0) == share_memory(tasks, 8, 100 * held)
    assert share_memory(tasks, 8, 3 * held + 1).jobs == 3
    assert share_memory(tasks, 8, held - 1).memory == held - 1
    assert share_memory([t for t in tasks if t.model.features == "none"], 8, 10).memory == 0
    assert share_memory(tasks, 8, 2 * WORKER_BYTES).jobs == 8  # 4 GB hold eight such fits


@pytest.mark.slow  # two runs of six models
def test_models_past_memory_agree_with_those_in_it(cache, tmp_path):
    """Streams, samples and shortcuts side by side in a run's files, near the accuracy of held rows."""
    names = ("mlp", "logistic", "linear-svm", "xgboost", "lda", "majority")
    head = HeadConfig(epochs=5)
    held = fit(cache, FitConfig(models=names, repeats=1, head=head), out_root=tmp_path)
    run = fit(cache, FitConfig(models=names, repeats=1, head=head, memory="10MB"), out_root=tmp_path)
    usual, rows = ({row.model: row for row in read_measurement(own.folder).models} for own in (held, run))
    for name in names:
        words = rows[name].fitted_on
        assert words.startswith("streamed") == bool(MODELS[name].streams)
        assert abs(rows[name].accuracy - usual[name].accuracy) < 0.05
    assert rows["majority"].fitted_on == "" and usual["mlp"].fitted_on == ""
    assert rows["lda"].fitted_on.startswith("stratified sample of 6")
    with (run.folder / "metrics.csv").open() as file:
        assert {row["model"]: row["fitted_on"] for row in csv.DictReader(file)}["logistic"].startswith("streamed")
    kept = json.loads((run.folder / "metrics.json").read_text())["models"]
    assert all("streamed" in row["fitted_on"] for row in kept if row["model"] in ("mlp", "xgboost"))
    assert "fitted on" in (run.folder / "table.md").read_text()
    assert "fitted on" in (run.folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("final", [False, True])
def test_a_model_saved_past_memory_keeps_a_sample(cache, tmp_path, monkeypatch, final):
    monkeypatch.setattr(from_run, "PAST_MEMORY_IMAGES", 100)
    config = FitConfig(models=("logistic",), repeats=1, memory="10MB")
    run = fit(cache, config, out_root=tmp_path, save=Saving("logistic", final=final))
    bundle = read_bundle(run.bundles[0])
    read = complete_cache(cache)
    assert len(bundle.train) == len(bundle.train_path) == 100
    rows = [read.path.tolist().index(name) for name in bundle.train_path]
    own = unit_mean(read.embeddings[rows].astype(np.float32))
    assert np.allclose(bundle.train, own, atol=1e-3)  # the names are those of the embeddings
    assert "stand for all of them" in " ".join(bundle.facts.notes)
    assert bundle.facts.train_images == (1000 if final else 640)
    assert len(bundle.scores) == 100


def test_adaptation_holds_all_rows_and_says_so(tmp_path):
    embeddings, labels = clouds(250, dim=DIM, distance=0.15)
    sites = {"site": ["A" if row % 3 else "B" for row in range(1000)]}
    cache = write_cache(tmp_path / "c.h5", embeddings, labels, sites)
    config = FitConfig(protocol="leave-site-out", models=("logistic",), repeats=1, adapt="mean", memory="10MB")
    with pytest.raises(ConfigError, match="adapt"):
        fit(cache, config, out_root=tmp_path)


def test_centring_holds_all_rows_and_says_so(tmp_path):
    """In parts, the mean of a site that training lacks would be that of one class: files are sorted by class."""
    embeddings, labels = clouds(250, dim=DIM, distance=0.15)
    sites = {"site": ["A" if row % 3 else "B" for row in range(1000)]}
    cache = write_cache(tmp_path / "c.h5", embeddings, labels, sites)
    own = {"protocol": "leave-site-out", "repeats": 1, "center": "site", "memory": "10MB"}
    with pytest.raises(ConfigError, match="Got center with memory"):
        fit(cache, FitConfig(models=("logistic", "robust-logistic"), **own), out_root=tmp_path)
