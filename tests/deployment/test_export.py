"""Graphs, cards and tables: what another program reads is what `ball` has."""

import csv
import dataclasses
import errno
import json
from typing import Any

import numpy as np
import pytest

from ball_features.bundles.bundle import read_bundle
from ball_features.cache import read_cache
from ball_features.cli import app
from ball_features.config import ExtractConfig, FitConfig
from ball_features.deployment.activation import activation_map
from ball_features.deployment.onnx import TOLERANCE, BundleModule, export_onnx
from ball_features.deployment.predict import Predictor
from ball_features.deployment.tabular import write_csv_table, write_parquet
from ball_features.errors import ConfigError, DataError
from ball_features.extraction.extract import extract
from ball_features.extraction.network_files import read_network
from ball_features.models.linear import logit_module
from ball_features.models.registry import MODELS
from ball_features.reporting.card import write_card
from ball_features.runs.fit import fit

LINEAR = ("mlp", "logistic", "lda", "robust-logistic")


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=(*LINEAR, "knn"), repeats=1, test_size=0.3, val_size=0.3)
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="all")


@pytest.mark.parametrize("model", LINEAR)
@pytest.mark.parametrize("classes", [2, 4])
def test_logits_give_the_probabilities_of_the_estimator(model, classes):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(classes), 60)
    X = (rng.normal(size=(len(y), 30)) + 0.5 * y[:, None]).astype(np.float32)
    spec = MODELS[model]
    extra = {"groups": np.tile(np.arange(3), len(y) // 3)} if spec.groups else {}
    from ball_features.config import HeadConfig

    estimator = spec.build(0, HeadConfig(epochs=2)).fit(X, y, **extra)
    import torch

    got = torch.softmax(logit_module(estimator)(torch.from_numpy(X)), 1).numpy()
    assert np.allclose(got, estimator.predict_proba(X), atol=1e-5)


@pytest.fixture(scope="module")
def tiny_bundle(smears, tiny_densenet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    settings = ExtractConfig(tiny_densenet, weights="random", input_px=96, precision="fp32")
    extract(smears, folder / "c.h5", settings)
    config = FitConfig(models=("mlp",), repeats=1, test_size=0.3, val_size=0.3)
    return fit(folder / "c.h5", config, out_root=folder, save="all").folder / "models" / "mlp"


@pytest.mark.slow
def test_a_graph_answers_as_predict_does(tiny_bundle, tmp_path):
    """The graph in ONNX Runtime, on images that the export did not check itself with, one and many at a time."""
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    predictor = Predictor(read_bundle(tiny_bundle), device="cpu", precision="fp32")
    path = tmp_path / "deep" / "model.onnx"
    assert export_onnx(predictor, path) <= TOLERANCE
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(facts["classes"]) == list(predictor.bundle.classes)
    assert facts["weights_sha256"] == predictor.preprocessing.weights_sha256
    assert "research" in facts["intended_use"]
    # Of 14 calibration images: numbers all the same, and what they are worth.
    assert float(facts["unusual_from"]) == predictor.bundle.distances.max()
    assert 0 < float(facts["conformal_threshold_95"]) <= 1
    assert json.loads(facts["notes"]) == predictor.bundle.notes(0.95)
    import torch

    images = torch.randint(0, 256, (5, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    X = predictor.embed(images, [""] * 5)
    for rows in (slice(0, 1), slice(0, 5)):
        found = session.run(None, {"images": images[rows].numpy().astype(np.float32) / 255})
        assert np.abs(found[0] - predictor.bundle.probability(X[rows])).max() <= TOLERANCE
        assert np.abs(found[2] - predictor.bundle.distance(X[rows])[0]).max() <= TOLERANCE
        assert np.allclose(np.linalg.norm(found[1], axis=1), 1, atol=1e-5)
        again = read_network(path)(images[rows].float() / 255).numpy()  # as `file:` reads it
        assert np.array_equal(again, found[0])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["torch.onnx.export", "onnx.save"])
def test_a_full_disk_is_not_blamed_on_the_model(tiny_bundle, tmp_path, monkeypatch, where):
    for module in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(module)

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    predictor = Predictor(read_bundle(tiny_bundle), device="cpu", precision="fp32")
    monkeypatch.setattr(where, full)
    with pytest.raises(DataError, match=r"model.onnx cannot be written \(No space left on device\)"):
        export_onnx(predictor, tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


def test_a_bundle_that_cannot_be_read_is_not_called_damaged(tiny_bundle, monkeypatch):
    def fails(*arguments, **named):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("safetensors.safe_open", fails)
    with pytest.raises(DataError, match=r"cannot be read \(OSError: .*Input/output error\)\. Try again"):
        read_bundle(tiny_bundle)


@pytest.mark.slow
def test_fixed_views_and_channels_go_into_the_module(smears, tmp_path, tiny_densenet):
    """A module over several views and channels is what `Predictor` computes step by step."""
    import torch

    settings = ExtractConfig(
        backbone=tiny_densenet, weights="random", views=3, recipe="mask-overlay+grey,haematoxylin",
        channels=("original", "segmented"), precision="fp32", input_px=64,
    )  # fmt: skip
    extract(smears, tmp_path / "c.h5", settings)
    for combine in ("concat", "mean"):
        config = FitConfig(models=("logistic",), repeats=1, test_views="all", combine=combine)
        made = fit(tmp_path / "c.h5", config, out_root=tmp_path / "runs", save="all")
        predictor = Predictor(read_bundle(made.folder / "models" / "logistic"), device="cpu", precision="fp32")
        module = BundleModule(predictor.bundle, predictor.module).eval()
        images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            probability, _, distance = module(images.float() / 255)
        X = predictor.embed(images, [""] * 2)
        assert np.abs(probability.numpy() - predictor.bundle.probability(X)).max() < 1e-4
        assert np.abs(distance.numpy() - predictor.bundle.distance(X)[0]).max() < 1e-4


@pytest.mark.slow
def test_what_cannot_be_exported_says_so(run, small_cache, tmp_path):
    with pytest.raises(DataError, match="mlp, logistic"):
        export_onnx(Predictor(read_bundle(run.folder / "models" / "knn"), precision="fp32"), tmp_path / "k.onnx")
    config = FitConfig(models=("logistic",), repeats=1, test_views="all")
    drawn = fit(small_cache, config, out_root=tmp_path / "runs", save="all")
    with pytest.raises(ConfigError, match="random for each image"):
        export_onnx(Predictor(read_bundle(drawn.folder / "models" / "logistic"), precision="fp32"), tmp_path / "k.onnx")


@pytest.mark.slow
def test_an_activation_map_adds_up_to_the_logit(run, smears):
    """Of a linear model the map's sum and the bias are the logit itself (less the mean of the classes')."""
    import torch

    from ball_features.dataset.decode import decode

    predictor = Predictor(read_bundle(run.folder / "models" / "logistic"), device="cpu", precision="fp32")
    image = decode(next((smears / "Pro").iterdir()))
    head: Any = logit_module(predictor.bundle.estimator)
    with torch.no_grad():
        logits = head(torch.from_numpy(predictor.embed(image[None], [""])[0]))[0].numpy() - head.bias.numpy()
    for code in range(len(predictor.bundle.classes)):
        found = activation_map(predictor, image, "", code)
        assert found is not None
        assert found.shape == (7, 7)
        assert found.sum() == pytest.approx(logits[code] - logits.mean(), abs=1e-3)
    knn = Predictor(read_bundle(run.folder / "models" / "knn"), device="cpu", precision="fp32")
    assert activation_map(knn, image, "", 0) is None


@pytest.mark.slow
def test_tables_hold_every_number(small_cache, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    cache = read_cache(small_cache)
    rows = len(cache.path) * len(cache.view)
    assert write_parquet(cache, tmp_path / "c.parquet") == rows
    table = parquet.read_table(tmp_path / "c.parquet")
    assert table.column_names == ["path", "label", "sha256", "view", "embedding"]
    X = np.array(table["embedding"].to_pylist(), dtype=np.float32).reshape(cache.embeddings.shape)
    assert np.array_equal(X, cache.embeddings.astype(np.float32))
    assert table["path"].to_pylist() == np.repeat(cache.path, len(cache.view)).tolist()
    assert json.loads(table.schema.metadata[b"ball"])["fingerprint"] == cache.attributes["fingerprint"]
    assert write_csv_table(cache, tmp_path / "c.csv") == rows
    with (tmp_path / "c.csv").open(newline="") as file:
        read = list(csv.reader(file))
    assert np.array_equal(np.array([row[4:] for row in read[1:]], dtype=np.float32), X.reshape(rows, -1))
    assert {path.name for path in tmp_path.iterdir()} == {"c.parquet", "c.csv"}


def test_the_card_says_what_the_run_found(run, small_cache, tmp_path):
    folder = run.folder / "models" / "mlp"
    text = write_card(read_bundle(folder), folder, tmp_path / "card.md").read_text(encoding="utf-8")
    assert "compared on these test images" in text
    row = next(row for row in run.metrics if row["model"] == "mlp")
    assert f"{100 * row['accuracy']:.2f}" in text
    digest = read_bundle(folder).facts.preprocessing.weights_sha256
    for words in ("Intended use", "Not a medical device", "was not given", digest):
        assert words in text
    ladder = tmp_path / "ladder"
    ladder.mkdir()
    header = "rung,model,kind,accuracy,accuracy_low,accuracy_high,mean_recall,worst_recall"
    rows = ["random,mlp,head,0.99,0.98,1.0,,", "series left out,mlp,head,0.6,0.3,0.9,0.55,0.1"]
    (ladder / "ladder.csv").write_text("\n".join([header, *rows]) + "\n")
    text = write_card(read_bundle(folder), folder, tmp_path / "card.md", ladder).read_text(encoding="utf-8")
    assert "drops by 39.0 points" in text
    with pytest.raises(DataError, match="no ladder"):
        write_card(read_bundle(folder), folder, tmp_path / "card.md", tmp_path / "nowhere")
    import shutil

    alone = shutil.copytree(folder, tmp_path / "alone")
    with pytest.raises(DataError, match="does not lie in the run"):
        write_card(read_bundle(alone), alone, tmp_path / "card.md")


def test_the_card_tells_the_bundle_s_figures_from_the_table_s(run, tmp_path):
    """Calibrated figures, sets and flags are those measured; a bundle that has none says so."""
    folder = run.folder / "models" / "logistic"
    bundle = read_bundle(folder)
    found = bundle.facts.test
    assert found is not None
    text = write_card(bundle, folder, tmp_path / "card.md").read_text(encoding="utf-8")
    assert f"On the {found.images} test images of its own split" in text
    assert f"| log loss | {found.log_loss:.4f} | {found.uncalibrated_log_loss:.4f} |" in text
    for own in found.sets:
        shares = f"{100 * own.covered:.1f} | {own.size:.2f} | {100 * own.single:.1f}"
        assert f"| {100 * own.coverage:g} | {shares} |" in text
    assert f"| flagged as unusual % | {100 * found.unusual:.1f} |" in text
    assert "before any calibration" in text
    assert "inf" not in text.replace("infer", "")
    assert f"{len(bundle.distances)} calibration images" in text
    assert "embeddings of the plain image" in text
    old = dataclasses.replace(bundle, facts=dataclasses.replace(bundle.facts, test=None, left_out=""))
    text = write_card(old, folder, tmp_path / "card.md").read_text(encoding="utf-8")
    assert "Not measured: it was made by an earlier version" in text


def test_the_command_asks_for_what_fits(run, small_cache, tmp_path):
    from typer.testing import CliRunner

    def message(*arguments):
        result = CliRunner().invoke(app, ["export", *map(str, arguments)])
        return str(result.exception or result.output)

    bundle = run.folder / "models" / "mlp"
    assert "nothing to write" in message(bundle)
    assert "is a folder" in message(bundle, "--csv", tmp_path / "c.csv")
    assert "is no folder" in message(small_cache, "--onnx", tmp_path / "m.onnx")
    assert "rows of 1024 numbers" in message(small_cache, "--csv", tmp_path / "c.csv")
    assert "Model card" in message(bundle, "--card", tmp_path / "card.md")


class Constant:
    """Someone's own estimator: knows nothing."""

    classes_ = np.arange(4)

    def predict_proba(self, X):
        return np.full((len(X), 4), 0.25)


def test_joblib_is_loaded_on_trust_only(run, small_cache, tmp_path):
    from ball_features.bundles.left_out_sites import LabelledEmbeddings
    from ball_features.bundles.saving import write_bundle

    X = np.ones((6, 1, 8), dtype=np.float32)
    facts = dataclasses.replace(
        read_bundle(run.folder / "models" / "mlp").facts, model="own", classes=("a", "b", "c", "d"),
        train_path=tuple(str(n) for n in range(6)),
    )  # fmt: skip
    validation = LabelledEmbeddings(X, np.zeros(6, dtype=int))
    write_bundle(tmp_path / "own", Constant(), facts, train=validation, validation=validation)
    assert (tmp_path / "own" / "model.joblib").exists()
    with pytest.raises(DataError, match="trust=True"):
        read_bundle(tmp_path / "own")
    assert np.allclose(read_bundle(tmp_path / "own", trust=True).probability(X), 0.25)
