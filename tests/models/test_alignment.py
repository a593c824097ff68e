"""Embeddings aligned before a model: against scikit-learn and by hand; nothing of a label, nothing of the filling."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.preprocessing import scale

from ball_features.cache import read_cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.errors import ConfigError, DataError
from ball_features.models.alignment import Alignment
from ball_features.models.ensemble import ViewEnsemble
from ball_features.models.mlp import MLPHead
from ball_features.models.robust import GroupRobustDiscriminant, GroupRobustLogistic
from ball_features.runs.fit import fit

QUICK = {"learning_rate": 1e-2, "epochs": 20, "clip_norm": None}
MODELS = [lambda **options: MLPHead(**QUICK, **options), GroupRobustLogistic, GroupRobustDiscriminant]


@pytest.fixture(scope="module")
def stained():
    """Two classes in each of four stains, whose shift is many times the distance of the classes, filled with zeros."""
    rng = np.random.default_rng(0)
    y = np.tile(np.repeat([0, 1], 40), 4)
    group = np.repeat(np.arange(4), 80)
    X = rng.normal(size=(320, 12)) + 3 * y[:, None] * (np.arange(12) == 0)
    X = X + rng.normal(0, 20, size=(4, 12))[group]
    return np.hstack([X, np.zeros((320, 4))]).astype(np.float32), y, group


def test_each_image_is_standardised_in_itself(stained):
    X = stained[0]
    Z = Alignment(per_image=True).fit_transform(X)
    assert np.allclose(Z[:, :12], scale(X[:, :12].astype(float), axis=1), atol=1e-5)
    assert not Z[:, 12:].any()


def test_nothing_is_copied_where_nothing_is_asked(stained):
    X = stained[0]
    assert Alignment(per_image=False).fit_transform(X) is X


def test_groups_lose_their_mean_and_known_ones_keep_theirs(stained):
    X, _, group = stained
    alignment = Alignment(per_image=False)
    Z = alignment.fit_transform(X[group < 3], group[group < 3])
    assert np.allclose([Z[group[group < 3] == g].mean(0) for g in range(3)], 0, atol=1e-4)
    few = np.flatnonzero(group == 1)[:3]  # their own mean is not that of their group
    assert np.allclose(alignment.transform(X[few], group[few]), X[few] - X[group == 1].mean(0), atol=1e-4)
    new = group == 3
    assert np.allclose(alignment.transform(X[new], group[new]), X[new] - X[new].mean(0), atol=1e-4)


def test_both_at_once(stained):
    X, _, group = stained
    Z = Alignment(per_image=True).fit_transform(X, group)
    each = scale(X[:, :12].astype(float), axis=1)
    assert np.allclose(Z[group == 2, :12], each[group == 2] - each[group == 2].mean(0), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("build", MODELS)
def test_a_stain_never_seen_is_recognised_once_centred(stained, build):
    X, y, group = stained
    new = group == 3
    plain = build().fit(X[~new], y[~new], groups=group[~new])
    centred = build().fit(X[~new], y[~new], groups=group[~new], center=group[~new])
    assert (centred.predict(X[new], group[new]) == y[new]).mean() > 0.85
    assert (centred.predict(X[new], group[new]) == y[new]).mean() > (plain.predict(X[new]) == y[new]).mean()
    with pytest.raises(ValueError, match=r"80 rows without center"):
        centred.predict(X[new])


@pytest.mark.slow
@pytest.mark.parametrize("build", MODELS)
def test_brightness_of_an_image_does_not_matter_once_standardised(stained, build):
    X, y, group = stained
    model = build(per_image=True).fit(X, y, groups=group)
    brighter = X.copy()
    brighter[:, :12] = 2 * X[:, :12] + 5
    assert np.allclose(model.predict_proba(brighter), model.predict_proba(X), atol=1e-3)


def test_validation_is_aligned_as_training_is(stained):
    X, y, group = stained
    head = MLPHead(**QUICK)
    head.fit(X, y, X_val=X[:80], y_val=y[:80], center=group, center_val=group[:80])
    assert head.history_["val_accuracy"][head.best_epoch_] > 0.85
    with pytest.raises(ValueError, match="without center"):
        head.fit(X, y, X_val=X[:80], y_val=y[:80], center=group)
    with pytest.raises(ValueError, match="expected one a row"):
        head.fit(X, y, center=group[:9])


def test_views_of_an_ensemble_are_centred(stained):
    X, y, group = stained
    views = np.stack([X, X[:, ::-1]], 1)
    new = group == 3
    model = ViewEnsemble().fit(views[~new], y[~new], groups=group[~new], center=group[~new])
    assert (model.predict(views[new], group[new]) == y[new]).mean() > 0.85


def test_no_pipeline_does_what_alignment_does(stained):
    X, y, group = stained
    with pytest.raises(ValueError, match="got per_image or center"):
        GroupRobustLogistic(per_image=True).fit(X, y, groups=group).to_pipeline()


@pytest.fixture
def groups(small_cache, tmp_path):
    cache, path = read_cache(small_cache), tmp_path / "groups.csv"
    rows = [
        f"{name},{name},{label}-{number % 2},{number % 3}"
        for number, (name, label) in enumerate(zip(cache.path, cache.label, strict=True))
    ]
    path.write_text("path,group,series,stain\n" + "\n".join(rows), encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_a_run_centres_by_a_column_and_each_view_by_itself(small_cache, groups, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Alignment,
        "fit_transform",
        lambda self, X, center=None: seen.append(center) or setattr(self, "centers_", None) or X,
    )
    monkeypatch.setattr(Alignment, "transform", lambda self, X, center=None: seen.append(center) or X)
    config = FitConfig(
        models=("mlp",), repeats=1, head=HeadConfig(epochs=1), groups=groups, center="stain", tta=True, jobs=1
    )
    fit(small_cache, config, out_root=tmp_path)
    training, validation, *tests = seen
    assert len(np.unique(training)) == len(np.unique(validation)) == 6  # three stains, two views
    assert [set((center % 2).tolist()) for center in tests] == [{0}, {1}]
    monkeypatch.undo()
    assert fit(small_cache, replace(config, models=("mlp", "robust-logistic")), out_root=tmp_path).metrics


@pytest.mark.slow
def test_options_that_nothing_heeds_are_refused(small_cache, groups, tmp_path):
    def run(save="", **options):
        return fit(small_cache, FitConfig(repeats=1, **options), out_root=tmp_path, save=save)

    with pytest.raises(DataError, match="each of whose values holds one class"):
        run(models=("mlp",), groups=groups, center="series")
    with pytest.raises(ConfigError, match=r"center='.*' without groups"):
        run(models=("mlp",), center="stain")
    with pytest.raises(ConfigError, match="no bundle of mlp holds"):
        run(save="mlp", models=("mlp", "logistic"), groups=groups, center="stain")
    for models, head in ((("logistic",), {"consistency": 1.0}), (("knn",), {"per_image": True})):
        with pytest.raises(ConfigError, match=r"none of which heeds it"):
            run(models=models, head=HeadConfig(**head))
    with pytest.raises(ConfigError, match=r"Got hidden and epochs and batch_size and class_weight with"):
        head = HeadConfig(class_weight="balanced", epochs=3, hidden=(7,), batch_size=8)
        run(models=("logistic",), head=head)
    for models, views, option in (
        (("robust-views", "colour"), {"train_views": "0"}, "train_views"),
        (("colour",), {"test_views": "all"}, "test_views"),
        (("majority",), {"tta": True}, "tta"),
    ):
        with pytest.raises(ConfigError, match=rf"Got {option} with the models {', '.join(models)}, none of which"):
            run(models=models, **views)
    with pytest.raises(ConfigError, match="test_views"):
        run(models=("mlp",), tta=True, test_views="1")
