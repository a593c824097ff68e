"""Views and splits as models are given them, on numbers drawn here."""

import numpy as np
import pytest

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import ImageTable, make_splits
from ball_features.evaluation.protocols import evaluate
from ball_features.evaluation.tasks import Evaluation
from ball_features.models.registry import MODELS


def drawn_cache(images=120, views=4, columns=12, seed=0):
    """Classes that every view tells apart, each in its own way; views are fixed ones."""
    rng = np.random.default_rng(seed)
    codes = np.arange(images) % 3
    embeddings = rng.normal(size=(images, views, columns)) + 1.5 * codes[:, None, None] * rng.normal(
        size=(views, columns)
    )
    return Cache(
        embeddings=embeddings.astype(np.float32),
        path=np.array([f"image-{number:03d}" for number in range(images)]),
        label=np.array(["a", "b", "c"])[codes],
        sha256=np.array([f"{number:064x}" for number in range(images)]),
        committed=np.ones(images, dtype=bool),
        view=("plain", "grey-1", "haematoxylin-2", "grey+soft-3")[:views],
        shortcuts={},
        attributes={"recipe": "grey,haematoxylin,grey+soft", "fingerprint": "f" * 64},
        rejected=(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["robust-views", "logistic"])
def test_views_that_differ_do_not_depend_on_the_order_of_the_views(model, monkeypatch):
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 5)
    cache = drawn_cache()
    group = np.array([f"slide-{number // 3 % 4}" for number in range(len(cache.path))])
    flips, probability = [], []
    for views in ("1,2,3", "3,1,2"):
        config = FitConfig(protocol="leave-group-out", repeats=1, test_views=views, jobs=1)
        splits, _ = make_splits(config, ImageTable(cache.path, cache.label, cache.sha256, group))
        grouping = Grouping("series", group, group, group, None, "")
        (result,) = evaluate(Evaluation(cache, (MODELS[model],), tuple(splits), config, grouping))
        assert result.failure == ""
        flips.append(np.concatenate([item.flips for item in result.fitted]))
        probability.append(np.concatenate([item.probability for item in result.fitted]))
    assert np.allclose(*probability, atol=1e-3)
    assert np.array_equal(*flips)
    if model == "robust-views":  # given views that they were not trained on, its models would nearly always differ
        assert flips[0].mean() < 0.5
