"""Bundles and predictions: what was fitted is what predicts, and nothing else is loaded."""

import csv
import json

import numpy as np
import pytest

from ball_features.cache import read_cache
from ball_features.config import FitConfig
from ball_features.deployment.bundle import bundle_fitted, read_bundle
from ball_features.deployment.calibration import conformal_threshold, fit_temperature
from ball_features.deployment.predict import Predictor, find_images, write_predictions
from ball_features.errors import ConfigError, DataError, WeightsError
from ball_features.reporting.run import fit

MODELS = ("mlp", "logistic", "linear-svm", "knn", "lda", "random-forest", "hist-gradient-boosting", "xgboost")


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=(*MODELS, "colour"), repeats=1, test_size=0.3, val_size=0.3)
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="all", saver=bundle_fitted)


@pytest.mark.parametrize("model", MODELS)
def test_a_bundle_predicts_what_the_run_predicted(run, small_cache, model):
    bundle = read_bundle(run.folder / "models" / model)
    cache = read_cache(small_cache)
    with (run.folder / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    place = {path: row for row, path in enumerate(cache.path.tolist())}
    X = cache.embeddings[[place[row["path"]] for row in rows]][:, :1]
    expected = np.array([[float(row[f"p_{name}"]) for name in bundle.classes] for row in rows])
    tempered = np.clip(expected, 1e-12, 1) ** (1 / bundle.facts["temperature"])
    tempered /= tempered.sum(1, keepdims=True)
    assert np.allclose(bundle.probability(X), tempered, atol=1e-5)


def test_new_images(run, small_cache, smears, tmp_path):
    files, missing = find_images([str(smears / "Pro"), "nowhere.png"], [str(smears / "Benign")])
    assert [item.path for item in missing] == ["nowhere.png"]
    (tmp_path / "bad.png").write_bytes(b"no image")
    predictor = Predictor(read_bundle(run.folder / "models" / "logistic"))
    predictions, rejected = predictor([*files, tmp_path / "bad.png"])
    assert [item.path for item in predictions] == [str(file) for file in files]
    assert len(rejected) == 1
    cache = read_cache(small_cache)
    place = {path: row for row, path in enumerate(cache.path.tolist())}
    rows = [place[file.relative_to(smears).as_posix()] for file in files]
    expected = predictor.bundle.probability(cache.embeddings[rows][:, :1])
    got = np.array([list(item.probability.values()) for item in predictions])
    assert np.allclose(got, expected, atol=0.02)
    for item in predictions:
        assert item.predicted == item.set[0] == max(item.probability, key=lambda name: item.probability[name])
        assert sum(item.probability.values()) == pytest.approx(1)
    write_predictions(predictions, tmp_path / "p.csv", predictor.bundle.classes)
    with (tmp_path / "p.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    p = [f"p_{name}" for name in predictor.bundle.classes]
    assert list(table[0]) == ["path", "predicted", *p, "set", "distance", "unusual"]
    assert {row["unusual"] for row in table} <= {"true", "false"}
    write_predictions(predictions, tmp_path / "p.json", predictor.bundle.classes)
    assert len(json.loads((tmp_path / "p.json").read_text())) == len(files)
    write_predictions(predictions, tmp_path / "p.html", predictor.bundle.classes)
    assert "http" not in (tmp_path / "p.html").read_text()
    with pytest.raises(DataError, match="csv"):
        write_predictions(predictions, tmp_path / "p.xlsx", predictor.bundle.classes)
    with pytest.raises(ConfigError, match="coverage"):
        predictor(files[:1], coverage=1.5)


def test_other_weights_are_refused(run, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"others")
    with pytest.raises(WeightsError, match="not the weights"):
        Predictor(read_bundle(run.folder / "models" / "logistic"), weights=str(tmp_path / "weights.pth"))


def test_strange_types_are_not_loaded(run, tmp_path):
    """A bundle whose model file holds another kind of object is refused before anything is built."""
    import shutil
    from pathlib import PurePosixPath

    from skops import io

    folder = shutil.copytree(run.folder / "models" / "logistic", tmp_path / "bundle")
    io.dump({"a": PurePosixPath("x")}, folder / "model.skops")
    with pytest.raises(DataError, match="no need of"):
        read_bundle(folder)
    with pytest.raises(DataError, match="not a bundle"):
        read_bundle(tmp_path)


def test_conformal_threshold_by_hand():
    scores = np.arange(1, 20) / 20  # 19 scores: (19 + 1) * 0.9 = 18th
    assert conformal_threshold(scores, 0.9) == pytest.approx(18 / 20)
    assert conformal_threshold(scores[:5], 0.9) == float("inf")


def test_coverage_holds_on_exchangeable_scores():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        scores = rng.random(100)
        covered.append((rng.random(200) <= conformal_threshold(scores, 0.9)).mean())
    assert 0.89 < np.mean(covered) < 0.915


def test_temperature_recovers_a_known_one():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20000, 4)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(4, p=row) for row in p])
    sharp = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)
    assert fit_temperature(sharp, truth) == pytest.approx(3, rel=0.05)


def test_saving_a_shortcut_is_refused(small_cache, tmp_path):
    with pytest.raises(ConfigError, match="Shortcuts see no network"):
        fit(small_cache, FitConfig(models=("colour", "logistic")), out_root=tmp_path, save="colour")


def test_decoding_ahead_changes_nothing(run, smears, tmp_path, monkeypatch):
    """As on a GPU: images come from a pool, in the same order, with the same numbers."""
    import types

    files = [*sorted((smears / "Pro").iterdir())[:5], tmp_path / "bad.png", *sorted((smears / "Pre").iterdir())[:5]]
    (tmp_path / "bad.png").write_bytes(b"no image")
    predictor = Predictor(read_bundle(run.folder / "models" / "logistic"), device="cpu")
    expected = predictor(files)
    embed = predictor.embed

    def embed_on_cpu(images, digests):
        device, predictor.device = predictor.device, cpu
        try:
            return embed(images, digests)
        finally:
            predictor.device = device

    monkeypatch.setattr(predictor, "embed", embed_on_cpu)
    cpu, predictor.device = predictor.device, types.SimpleNamespace(type="cuda")
    predictions, rejected = predictor(files)
    assert [item.path for item in predictions] == [item.path for item in expected[0]]
    assert [item.path for item in rejected] == [item.path for item in expected[1]]
    for one, other in zip(predictions, expected[0], strict=True):
        assert one.probability == pytest.approx(other.probability, abs=0.02)
