"""Fits as the table needs them: in several processes, with workers that die, on classes that are too small."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import ImageTable, Split, make_splits
from ball_features.evaluation import protocols
from ball_features.evaluation.protocols import evaluate, fit_notes
from ball_features.evaluation.tasks import Evaluation, divide, obstacles
from ball_features.models import kernel
from ball_features.models.registry import MODELS, Model, select
from tests.evaluation.test_protocols import drawn_cache


def evaluation(models, **settings):
    cache = drawn_cache(images=90, views=1)
    config = FitConfig(**{"repeats": 2, "jobs": 1, "head": HeadConfig(epochs=2)} | settings)
    splits, _ = make_splits(config, ImageTable(cache.path, cache.label, cache.sha256))
    return Evaluation(cache, tuple(models), tuple(splits), config)


def small(counts, models):
    """An evaluation whose training images have these counts a class; every image is a test image too."""
    rng = np.random.default_rng(0)
    label = np.repeat([f"class-{number:04d}" for number in range(len(counts))], counts)
    cache = drawn_cache(images=len(label), views=1)
    own = replace(cache, label=label, embeddings=rng.normal(size=(len(label), 1, 12)).astype(np.float32))
    rows = np.arange(len(label))
    config = FitConfig(repeats=1, jobs=1, head=HeadConfig(epochs=2))
    return Evaluation(own, tuple(models), (Split(0, 0, rows, rows, rows),), config)


ON_EMBEDDINGS = [model for model in MODELS.values() if model.features in ("embedding", "none")]


@pytest.mark.slow
@pytest.mark.parametrize("model", [model for model in ON_EMBEDDINGS if not model.by_view], ids=lambda model: model.name)
def test_a_table_s_model_is_the_model_fitted_alone(model):
    own = evaluation([model], repeats=1)
    (result,) = evaluate(own)
    (split,) = own.splits
    codes = np.unique(own.cache.label, return_inverse=True)[1]
    X = own.cache.embeddings[:, 0] if model.features == "embedding" else np.zeros((len(codes), 1), dtype=np.float32)
    seed = int(np.random.default_rng([own.config.seed, split.repeat, split.fold]).integers(2**31))
    alone = model.build(seed, own.config.head)
    options = {"X_val": X[split.val], "y_val": codes[split.val]} if model.validates else {}
    alone.fit(X[split.train], codes[split.train], **options)
    assert np.allclose(alone.predict_proba(X[split.test]), result.fitted[0].probability, rtol=1e-6, atol=1e-30)


def test_a_model_that_fails_leaves_the_others(monkeypatch):
    def broken(self, X, y):
        raise RuntimeError("no")

    monkeypatch.setattr(kernel.KernelSVM, "fit", broken)
    results = evaluate(evaluation(select(["linear-svm", "knn", "rbf-svm", "lda"])))
    assert {result.spec.name for result in results if result.failure} == {"linear-svm", "rbf-svm"}
    assert all(len(result.fitted) == 2 for result in results if not result.failure)


def test_slow_models_are_started_first():
    own = evaluation(select(["knn", "mlp", "lda"]))
    assert [task.model.name for task in divide(own).values()] == ["mlp", "mlp", "lda", "lda", "knn", "knn"]


def dying(name: str, once: bool, marker) -> Model:
    """A model whose worker process is killed by SIGKILL, on its first fit or on each."""
    home = os.getpid()

    def build(seed, head):
        if os.getpid() != home and not (once and marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return MODELS["logistic"].build(seed, head)

    return replace(MODELS["logistic"], name=name, build=build, cost=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
@pytest.mark.parametrize("once", [True, False])
def test_a_killed_worker_loses_nothing(once, tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "PARALLEL_FROM", 0)
    models = [*select(["extra-trees", "knn"]), dying("dying", once, tmp_path / "died"), *select(["logistic"])]
    own = evaluation(models, jobs=2)
    calls = []
    results = evaluate(own, lambda done, total, name: calls.append((done, total)))
    assert (tmp_path / "died").exists()
    assert calls == [(done, 8) for done in range(1, 9)]
    assert [result.failure for result in results] == [""] * 4
    alone = evaluate(evaluation([replace(model, build=MODELS["logistic"].build) if model.name == "dying" else model
                                 for model in models]))  # fmt: skip
    for one, other in zip(results, alone, strict=True):
        for a, b in zip(one.fitted, other.fitted, strict=True):
            assert np.allclose(a.probability, b.probability, atol=1e-6)
    (note,) = fit_notes(results)
    refitted = sum(item.refitted for result in results for item in result.fitted)
    assert refitted >= 1
    assert f"did {refitted} fits again" in note and "memory" in note
    assert fit_notes(alone) == []
    assert [result.failure for result in evaluate(own)] == [""] * 4  # new workers take the place of the dead


@pytest.mark.slow
def test_a_fit_that_fails_after_its_worker_died_takes_its_model_out(tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "PARALLEL_FROM", 0)
    home = os.getpid()

    def build(seed, head):
        if os.getpid() != home:
            os.kill(os.getpid(), signal.SIGKILL)
        raise MemoryError("Unable to allocate 100 GiB")

    models = [*select(["knn"]), replace(MODELS["logistic"], name="large", build=build)]
    knn, large = evaluate(evaluation(models, jobs=2))
    assert not knn.failure
    assert large.failure == "MemoryError: Unable to allocate 100 GiB"
    assert not large.fitted


TINY = [(14, 14, 3), (10, 10, 2), (10, 10, 1), (1, 1), (1, 2), (2, 2), (1, 4), (1,) * 5, (3, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("counts", TINY, ids=str)
def test_what_small_classes_allow_is_known_before_fitting(counts, capfd):
    """No model fails that has no obstacle, the reasons are our own, and no library's warning reaches the user."""
    own = small(counts, ON_EMBEDDINGS)
    blocked = obstacles(own)
    for result in evaluate(own):
        assert result.failure == blocked.get(result.spec.name, "")
        assert bool(result.fitted) != bool(result.failure)
        for item in result.fitted:
            assert np.isfinite(item.probability).all()
            assert np.allclose(item.probability.sum(1), 1, atol=1e-4)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("counts", "model", "reason"),
    [
        ((9, 9, 1), "rbf-svm", "needs 2 training images of each class, got 1 of class-0002. Add images of class-0002."),
        ((2, 2), "knn", "needs 5 training images of 2 classes, got 4. Add images."),
        ((1,) * 6, "lda", "needs 7 training images of 6 classes, got 6. Add images."),
        ((3,) * 301, "linear-svm", "compares each pair of classes, and takes at most 300 classes, got 301."),
        ((1,) * 6, "robust-views", "needs 7 training images of 6 classes, got 6. Add images."),
    ],
)  # fmt: skip
def test_obstacles_are_said_in_our_words(counts, model, reason):
    assert obstacles(small(counts, ON_EMBEDDINGS))[model] == f"{model} {reason}"


def test_an_optimiser_that_stops_early_is_noted():
    def build(seed, head):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1)

    (result,) = evaluate(evaluation([replace(MODELS["logistic"], build=build)]))
    assert fit_notes([result]) == ["logistic stopped at its limit of iterations in 2 of 2 fits, before it converged."]


def test_a_fit_in_this_process_uses_one_thread():
    seen = []

    def build(seed, head):
        from sklearn.linear_model import LogisticRegression

        class Counting(LogisticRegression):
            def fit(self, X, y):
                seen.append({item["num_threads"] for item in threadpool_info()})
                return super().fit(X, y)

        return Counting()

    evaluate(evaluation([replace(MODELS["logistic"], build=build)], repeats=1))
    assert seen == [{1}]


def test_a_model_whose_training_diverges_is_not_in_the_table():
    own = evaluation(select(["mlp", "lda"]))
    head = HeadConfig(epochs=2, learning_rate=1e30, clip_norm=None)
    diverged, other = evaluate(replace(own, config=replace(own.config, head=head)))
    assert diverged.failure == (
        "mlp gave probabilities that are not finite numbers. Its training diverged: take a smaller learning rate."
    )
    assert len(other.fitted) == 2
