from dataclasses import replace

import numpy as np
import pytest

from ball_features.bundles.formats import FORMATS
from ball_features.config import HeadConfig
from ball_features.errors import ConfigError
from ball_features.models.registry import MODELS, select


def test_the_table_has_its_rows():
    assert all(name == model.name for name, model in MODELS.items())
    assert {model.file_format for model in MODELS.values()} <= set(FORMATS)
    kinds = [model.kind for model in MODELS.values()]
    assert kinds.count("head") == 1
    assert kinds.count("baseline") >= 11
    assert kinds.count("shortcut") == 5
    assert select(()) == select(["all"]) == select(["knn", "all"]) == list(MODELS.values())
    assert [spec.name for spec in select(["lda", "mlp", "lda"])] == ["lda", "mlp"]
    with pytest.raises(ConfigError, match=r"Did you mean 'logistic'.*xgboost"):
        select(["logistics"])


@pytest.mark.parametrize(("most", "classes", "trees"), [(None, 4, 200), (50, 4, 50), (500, 4, 200), (50, 200, 25)])
def test_a_limit_of_trees(most, classes, trees):
    model = replace(MODELS["corner"], most_trees=most)
    estimator = model.build(0, HeadConfig())
    model.fewer_trees(estimator, classes)
    assert estimator.n_estimators == trees


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_learns_gives_probabilities_and_repeats_itself(name):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    X = (rng.normal(size=(240, 40)) + rng.normal(size=(3, 40))[y]).astype(np.float32)
    spec = MODELS[name]
    head = HeadConfig(learning_rate=1e-2, epochs=10)
    first, second = (spec.build(5, head).fit(X[:160], y[:160]) for _ in range(2))
    probability = first.predict_proba(X[160:])
    assert probability.shape == (80, 3)
    assert np.allclose(probability.sum(1), 1, atol=1e-5)
    assert np.array_equal(probability, second.predict_proba(X[160:]))
    accuracy = (first.classes_[probability.argmax(1)] == y[160:]).mean()
    assert accuracy > (0.2 if name == "majority" else 0.9)
