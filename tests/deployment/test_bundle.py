"""Bundles and predictions: what was fitted is what predicts, and nothing else is loaded."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ball_features.cache import read_cache
from ball_features.config import FitConfig
from ball_features.deployment.bundle import bundle_fitted, read_bundle, saved_notes
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
    from pathlib import PurePosixPath

    from skops import io

    folder = shutil.copytree(run.folder / "models" / "logistic", tmp_path / "bundle")
    io.dump({"a": PurePosixPath("x")}, folder / "model.skops")
    with pytest.raises(DataError, match="no need of"):
        read_bundle(folder)
    with pytest.raises(DataError, match="not a bundle"):
        read_bundle(tmp_path)


def damage(folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("mlp", "head.safetensors"),
        ("mlp", "reference.safetensors"),
        ("logistic", "model.skops"),
        ("xgboost", "xgboost.json"),
    ],
)
def test_a_damaged_bundle_is_one_clear_error(run, tmp_path, model, file):
    folder = shutil.copytree(run.folder / "models" / model, tmp_path / "bundle")
    damage(folder, file)
    with pytest.raises(DataError, match=r"damaged bundle.*Copy it again"):
        read_bundle(folder)
    (folder / file).unlink()
    with pytest.raises(DataError, match="damaged bundle"):
        read_bundle(folder)


def test_a_bundle_that_lacks_facts_or_rows_is_damaged(run, tmp_path):
    folder = shutil.copytree(run.folder / "models" / "logistic", tmp_path / "bundle")
    facts = json.loads((folder / "bundle.json").read_text())
    for own in (
        facts | {"train_path": facts["train_path"][:3]},
        {k: v for k, v in facts.items() if k != "classes"},
        [],
    ):
        (folder / "bundle.json").write_text(json.dumps(own))
        with pytest.raises(DataError, match="damaged bundle"):
            read_bundle(folder)
    damage(folder, "bundle.json")
    with pytest.raises(DataError, match="not a bundle"):
        read_bundle(folder)


def test_files_of_a_run_have_the_umask_s_mode(run):
    """safetensors' own `save_file` lets only the owner read what it writes."""
    umask = os.umask(0)
    os.umask(umask)
    files = [path for path in (run.folder / "models").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"mlp.safetensors", "head.safetensors", "reference.safetensors"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


def test_few_validation_images_do_not_turn_the_warning_off(run, tmp_path):
    """14 validation images: the largest distance among them is the threshold, and noise lies beyond it."""
    bundle = read_bundle(run.folder / "models" / "logistic")
    assert bundle.unusual_from == bundle.distances.max()
    assert bundle.unusual_share == pytest.approx(1 / (len(bundle.distances) + 1))
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    predictions, _ = Predictor(bundle)(sorted(tmp_path.iterdir()))
    assert all(item.unusual for item in predictions)
    (note,) = (note for note in bundle.notes(0.95) if "unusual" in note)
    assert f"{len(bundle.distances)} validation images" in note
    assert f"one image in {len(bundle.distances) + 1}" in note
    assert note in saved_notes(run.folder / "models" / "logistic")


def test_what_it_does_on_its_test_images_is_in_the_bundle(run, small_cache):
    """Recomputed from the bundle as it is read back and the split as it is written down."""
    bundle = read_bundle(run.folder / "models" / "logistic")
    cache = read_cache(small_cache)
    with (run.folder / "splits.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    rows = np.flatnonzero(np.isin(cache.path, names))
    truth = np.array([bundle.classes.index(label) for label in cache.label[rows]])
    found = bundle.facts["test"]
    probability = bundle.probability(cache.embeddings[rows][:, :1])
    assert found["images"] == len(rows)
    assert found["accuracy"] == pytest.approx((probability.argmax(1) == truth).mean())
    assert found["log_loss"] == pytest.approx(-np.log(probability[np.arange(len(truth)), truth]).mean(), abs=1e-6)
    distance, _ = bundle.distance(cache.embeddings[rows][:, :1])
    assert found["unusual"] == pytest.approx((distance > bundle.unusual_from).mean())
    for own in found["sets"]:
        inside = bundle.sets(probability, own["coverage"])
        assert own["covered"] == pytest.approx(inside[np.arange(len(truth)), truth].mean())
        assert own["size"] == pytest.approx(inside.sum(1).mean())
        assert own["single"] == pytest.approx((inside.sum(1) == 1).mean())


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
