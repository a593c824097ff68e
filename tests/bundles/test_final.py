"""The final model: fitted on all images, calibrated by predictions of models that have not seen them."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from typer.testing import CliRunner

from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.calibration import fit_temperature, tempered
from ball_features.bundles.left_out_sites import LabelledEmbeddings
from ball_features.bundles.saving import HeldOut, write_bundle
from ball_features.cache import read_cache
from ball_features.cli import app
from ball_features.config import FitConfig, Saving
from ball_features.dataset.splits import ImageTable, make_splits
from ball_features.errors import ConfigError, SplitError
from ball_features.evaluation.final_fit import calibration_folds
from ball_features.models.registry import MODELS
from ball_features.reporting.card import write_card
from ball_features.runs.fit import fit
from tests.made import clouds, write_cache

SMALL = FitConfig(models=("logistic", "mlp"), repeats=1, train_views="plain")


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    return fit(small_cache, SMALL, out_root=tmp_path_factory.mktemp("runs"), save=Saving("all", final=True))


@pytest.mark.slow
def test_it_is_fitted_on_every_image(run, small_cache):
    cache = read_cache(small_cache)
    codes = np.unique(cache.label, return_inverse=True)[1]
    for name in SMALL.models:
        facts = read_bundle(run.folder / "models" / name).facts
        assert facts.final
        assert facts.test is not None
        assert facts.train_path == tuple(cache.path)
        assert facts.folds == 5
        assert facts.validation_images == facts.test.images == len(cache.path)
        assert facts.conformal == "marginal"
        assert (facts.epochs > 0) == (name == "mlp")
        assert "No image tested it" in facts.notes[0]
    own = MODELS["logistic"].build(0, SMALL.head).fit(cache.embeddings[:, 0].astype(np.float32), codes)
    bundle = read_bundle(run.folder / "models" / "logistic")
    raw = own.predict_proba(cache.embeddings[:, 0].astype(np.float32))
    assert np.allclose(bundle.probability(cache.embeddings[:, :1]), tempered(raw, bundle.facts.temperature), atol=1e-5)


def test_scores_are_of_models_that_have_not_seen_the_image(run, small_cache):
    cache = read_cache(small_cache)
    codes = np.unique(cache.label, return_inverse=True)[1]
    X = cache.embeddings[:, 0].astype(np.float32)
    table = ImageTable(cache.path, cache.label, cache.sha256)
    folds = calibration_folds(SMALL, table, make_splits(SMALL, table)[0])
    assert sorted(row for fold in folds for row in fold.test) == list(range(len(X)))
    raw = np.zeros((len(X), 4))
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(X)), fold.test)
        raw[fold.test] = MODELS["logistic"].build(0, SMALL.head).fit(X[rest], codes[rest]).predict_proba(X[fold.test])
    bundle = read_bundle(run.folder / "models" / "logistic")
    temperature = fit_temperature(raw, codes)
    assert bundle.facts.temperature == pytest.approx(temperature, rel=1e-3)
    scores = 1 - tempered(raw, temperature)[np.arange(len(X)), codes]
    assert np.allclose(bundle.scores, np.sort(scores), atol=1e-4)
    assert bundle.facts.test is not None
    assert bundle.facts.test.accuracy == (raw.argmax(1) == codes).mean()


def test_folds_keep_together_what_the_protocol_keeps(small_cache):
    cache = read_cache(small_cache)
    group = np.array([f"p{number % 6}" for number in range(len(cache.path))])
    table = ImageTable(cache.path, cache.label, cache.sha256, group=group, together=group)
    for protocol in ("holdout", "cv", "group-cv"):
        config = FitConfig(protocol=protocol, repeats=2, folds=3)
        splits = make_splits(config, table)[0]
        folds = calibration_folds(config, table, splits)
        tested = np.concatenate([fold.test for fold in folds])
        assert len(tested) == len(np.unique(tested)) == len(group)
        for fold in folds:
            seen = np.concatenate([fold.train, fold.val])
            assert not {*group[fold.test]} & {*group[seen]}
    lone = calibration_folds(FitConfig(folds=5), table, make_splits(FitConfig(), table)[0])
    assert len(lone) == 5


def test_few_images_of_a_class_take_fewer_folds():
    label = np.array(["a"] * 3 + ["b"] * 12)
    path = np.array([f"{name}/{number}" for number, name in enumerate(label)])
    table = ImageTable(path, label, path)
    folds = calibration_folds(FitConfig(), table, make_splits(FitConfig(repeats=1), table)[0])
    assert len(folds) == 3


def test_figures_of_a_fold_owe_nothing_to_it(run, tmp_path):
    """The temperature and the thresholds that a fold is measured with come from the other folds."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 90)
    raw = rng.dirichlet(np.ones(4), 90)
    fold, distances = np.repeat([0, 1, 2], 30), rng.random(90)
    facts = read_bundle(run.folder / "models" / "logistic").facts
    estimator = DummyClassifier(strategy="uniform").fit(np.zeros((4, 8)), np.arange(4))
    write_bundle(
        tmp_path / "own",
        estimator,
        dataclasses.replace(facts, train_path=("x",)),
        train=LabelledEmbeddings(np.ones((1, 1, 8), dtype=np.float32), np.zeros(1, dtype=int)),
        validation=HeldOut(raw, truth, distances, fold),
    )
    covered, flagged = [], []
    for number in range(3):
        rest, own = fold != number, fold == number
        temperature = fit_temperature(raw[rest], truth[rest])
        scores = np.sort(1 - tempered(raw[rest], temperature)[np.arange(60), truth[rest]])
        probability = tempered(raw[own], temperature)
        inside = 1 - probability <= scores[int(np.ceil(61 * 0.9)) - 1]
        inside[np.arange(30), probability.argmax(1)] = True
        covered.append(inside[np.arange(30), truth[own]])
        flagged.append(distances[own] > distances[rest].max())
    figures = read_bundle(tmp_path / "own").facts.test
    assert figures is not None
    assert figures.sets[0].coverage == 0.9
    assert figures.sets[0].covered == pytest.approx(np.mean(covered))
    assert figures.unusual == pytest.approx(np.mean(flagged))


@pytest.mark.parametrize(("saving", "setting"), [({"final": True}, "final"), ({"conformal": "mondrian"}, "conformal")])
def test_nothing_is_final_without_a_model_to_save(saving, setting):
    with pytest.raises(ConfigError, match=setting):
        Saving(**saving)


@pytest.mark.slow
def test_sets_within_each_class(small_cache, tmp_path):
    """Each class's threshold comes from its own images, by the command."""
    options = ["--models", "logistic", "--repeats", "1", "--save", "logistic", "--final", "--conformal", "mondrian"]
    result = CliRunner().invoke(app, ["fit", str(small_cache), *options, "--name", "m", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "final model, fitted on all 48 labelled images" in result.output
    folder = tmp_path / "m" / "models" / "logistic"
    bundle = read_bundle(folder)
    assert json.loads((folder / "bundle.json").read_text())["conformal"] == "mondrian"
    limits = bundle.thresholds(0.8)
    for code in range(4):
        own = np.sort(bundle.scores[bundle.score_class == code])
        assert len(own) == 12
        assert limits[code] == own[int(np.ceil(13 * 0.8)) - 1]
    assert (bundle.thresholds(0.99) == 1).all()
    assert "Benign 12" in bundle.notes(0.99)[0]
    card = write_card(bundle, folder, tmp_path / "card.md").read_text(encoding="utf-8")
    assert "never tested" in card
    assert "class-conditional" in card
    assert "is the model of the run's first split" not in card


def test_images_without_a_part_calibrate_nothing():
    label = np.array(["a", "b"] * 40)
    path = np.array([f"{number:03}" for number in range(80)])
    part = np.array([("train", "test", "train", "")[number // 2 % 4] for number in range(80)])
    table = ImageTable(path, label, path, group=part)
    config = FitConfig(protocol="given")
    folds = calibration_folds(config, table, make_splits(config, table)[0])
    tested = np.concatenate([fold.test for fold in folds])
    assert np.array_equal(np.sort(tested), np.flatnonzero(part != ""))
    assert all(np.all(part[np.concatenate([fold.train, fold.val])] != "") for fold in folds)


def test_two_sites_of_which_one_cannot_be_left_out_calibrate_no_final_model():
    """The message names the protocol and what to do."""
    label = np.array(["a", "b"] * 120)
    path = np.array([f"{number:03}" for number in range(240)])
    site = np.where(np.arange(240) < 222, "large", "small")
    table = ImageTable(path, label, path, group=site)
    config = FitConfig(protocol="leave-site-out", repeats=1)
    splits = make_splits(config, table)[0]
    assert [split.name for split in splits] == ["small"]  # without the large one, too few would train
    with pytest.raises(SplitError, match=r"leave-site-out.*Take protocol='cv'"):
        calibration_folds(config, table, splits)


def test_a_large_validation_set_is_no_obstacle_to_a_final_model():
    label, path = np.array(["a", "b"] * 60), np.array([f"{number:03}" for number in range(120)])
    table = ImageTable(path, label, path)
    config = FitConfig(test_size=0.1, val_size=0.82, repeats=1)
    assert len(calibration_folds(config, table, make_splits(config, table)[0])) == 5


def test_folds_that_cannot_be_made_or_adapted_are_known_before_the_work(tmp_path, monkeypatch):
    embeddings, label = clouds(60)
    embeddings, label = embeddings[:120], label[:120]
    patient = [f"P{row}" for row in range(60)] + ["Q"] * 3 + [f"P{row}" for row in range(63, 120)]
    site = ["A" if row < 35 or patient[row] == "Q" else "B" if row % 2 else "C" for row in range(120)]
    cache = write_cache(tmp_path / "c.h5", embeddings, label, {"patient": patient, "site": site})
    monkeypatch.setattr("ball_features.runs.fit.evaluate", None)
    config = FitConfig(models=("logistic",), repeats=1, adapt="balanced", seed=1)  # Q trains in the hold-out
    with pytest.raises(ConfigError, match="images of A are of one class"):
        fit(cache, config, out_root=tmp_path, save=Saving("logistic", final=True))
    patient[:10], label[:10] = ["R"] * 10, ["rare"] * 10
    split = ["train" if row < 70 else "test" for row in range(120)]
    cache = write_cache(tmp_path / "d.h5", embeddings, label, {"patient": patient, "split": split})
    with pytest.raises(SplitError, match="'rare' has 1 separate group"):
        fit(cache, FitConfig(protocol="given"), out_root=tmp_path, save=Saving("logistic", final=True))
