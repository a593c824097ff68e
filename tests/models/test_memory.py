"""What models share: computed once, the same for each, and nothing of it left in a fitted model."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import ImageTable, make_splits
from ball_features.evaluation import fit_split as fitting
from ball_features.evaluation.protocols import evaluate
from ball_features.models import kernel
from ball_features.models.memory import SplitMemory
from ball_features.models.registry import MODELS, select
from tests.evaluation.test_protocols import drawn_cache

SHARING = [name for name, spec in MODELS.items() if spec.shares]


@pytest.fixture
def calls(monkeypatch):
    """Counts of the work that is to be shared."""
    counts = {"scaled": 0, "gram": 0}
    fit, gram = StandardScaler.fit, kernel._gram

    def counted_fit(self, X, y=None, sample_weight=None):
        counts["scaled"] += len(X) >= 60  # the discriminant scales each class for itself
        return fit(self, X, y, sample_weight)

    def counted_gram(rows):
        counts["gram"] += 1
        return gram(rows)

    monkeypatch.setattr(StandardScaler, "fit", counted_fit)
    monkeypatch.setattr(kernel, "_gram", counted_gram)
    return counts


def test_results_belong_to_the_array_and_the_other_arguments():
    seen = []

    def work(X, factor, note=""):
        seen.append(factor)
        return X * factor, "done"

    remembered = SplitMemory().cache(work, ignore=["note"])
    X = np.arange(4.0)
    first = remembered(X, 2, note="a")[0]
    assert remembered(X, 2, note="b")[0] is first
    assert np.array_equal(remembered(X, 3)[0], 3 * X)
    assert np.array_equal(remembered(X.copy(), 2)[0], first)
    assert seen == [2, 3, 2]
    with pytest.raises(ValueError, match="read-only"):
        first += 1  # it is another model's too


def test_arrays_that_are_gone_do_not_lend_their_place():
    remembered = SplitMemory().cache(lambda X: X.copy())
    for number in range(50):
        assert (remembered(np.full(1000, float(number))) == number).all()


def test_scaling_and_products_are_done_once_a_split(calls):
    cache, config = drawn_cache(images=150, views=1), FitConfig(repeats=2, jobs=1)
    splits, _ = make_splits(config, ImageTable(cache.path, cache.label, cache.sha256))
    results = evaluate(cache, select(SHARING), splits, config, keep=SHARING)
    assert [result.failure for result in results] == [""] * len(SHARING)
    assert calls == {"scaled": len(splits), "gram": len(splits)}
    for result in results:
        assert all(value is None for name, value in params(result).items() if name.endswith("memory"))


def params(result):
    return result.fitted[0].estimator.get_params()


@pytest.mark.parametrize("name", SHARING)
def test_what_is_shared_changes_no_number(name, calls):
    cache, config = drawn_cache(images=150, views=1), FitConfig(repeats=1, jobs=1)
    (split,), _ = make_splits(config, ImageTable(cache.path, cache.label, cache.sha256))
    codes = np.unique(cache.label, return_inverse=True)[1]
    results = evaluate(cache, select(SHARING), [split], config)
    shared = next(result.fitted[0] for result in results if result.spec.name == name)
    X = cache.embeddings[split.train, 0]
    own = int(np.random.default_rng([config.seed, split.repeat, split.fold]).integers(2**31))
    alone = MODELS[name].build(own, HeadConfig()).fit(X, codes[split.train])
    assert np.allclose(alone.predict_proba(cache.embeddings[split.test, 0]), shared.probability, rtol=1e-6, atol=1e-30)


def test_a_model_that_fails_leaves_the_others(monkeypatch):
    def broken(self, X, y):
        raise RuntimeError("no")

    monkeypatch.setattr(kernel.KernelSVM, "fit", broken)
    cache, config = drawn_cache(images=150, views=1), FitConfig(repeats=1, jobs=1)
    splits, _ = make_splits(config, ImageTable(cache.path, cache.label, cache.sha256))
    results = evaluate(cache, select(SHARING), splits, config)
    assert {result.spec.name for result in results if result.failure} == {"linear-svm", "rbf-svm"}


def test_only_models_on_the_same_rows_share():
    cache, config = drawn_cache(views=1), FitConfig(repeats=1)
    splits, _ = make_splits(config, ImageTable(cache.path, cache.label, cache.sha256))
    divided = fitting.divide(cache, select(["knn", "mlp", "lda", "random-forest"]), splits, config)
    assert sorted(sorted(spec.name for spec in work.specs.values()) for work in divided) == [
        ["knn", "lda"],
        ["mlp"],
        ["random-forest"],
    ]


def test_pipelines_take_it_as_their_memory(calls):
    rng = np.random.default_rng(0)
    X, y, memory = rng.normal(size=(60, 5)), np.arange(60) % 2, SplitMemory()
    for C in (0.1, 1.0):
        make_pipeline(StandardScaler(), kernel.KernelSVM(C=C, memory=memory), memory=memory).fit(X, y)
    assert calls == {"scaled": 1, "gram": 1}
