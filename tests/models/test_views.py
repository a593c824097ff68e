"""A model a view, and training against groups."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.estimator_checks import check_estimator

from ball_features.bundles.bundle import read_bundle
from ball_features.cache import read_cache
from ball_features.config import ExtractConfig, FitConfig, HeadConfig
from ball_features.errors import ConfigError
from ball_features.evaluation.views import fixed_views, model_views
from ball_features.extraction.extract import extract
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.recipe import RECIPE_SETS, ViewPlan
from ball_features.models.ensemble import ViewEnsemble
from ball_features.models.mlp import MLPHead
from ball_features.models.registry import MODELS
from ball_features.models.robust import GroupRobustDiscriminant
from ball_features.reporting.card import write_card
from ball_features.runs.fit import fit


def data(seed=0, count=300, views=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    return (rng.normal(size=(count, views, 20)) + y[:, None, None] * rng.normal(size=(views, 20))).astype(np.float32), y


def test_views_are_pooled_by_their_logarithms():
    X, y = data()
    ensemble = ViewEnsemble().fit(X[:200], y[:200])
    each = [GroupRobustDiscriminant().fit(X[:200, v], y[:200]).predict_proba(X[200:, v]) for v in range(3)]
    expected = np.prod(np.clip(each, 1e-4, 1), axis=0) ** (1 / 3)
    expected /= expected.sum(1, keepdims=True)
    assert np.allclose(ensemble.predict_proba(X[200:]), expected)
    assert (ensemble.predict(X[200:]) == y[200:]).mean() > 0.9
    with pytest.raises(ValueError, match="2 features"):
        ensemble.predict(X[:, :2])


def test_one_view_may_come_flat():
    X, y = data(views=1)
    assert np.array_equal(
        ViewEnsemble().fit(X, y).predict_proba(X), ViewEnsemble().fit(X[:, 0], y).predict_proba(X[:, 0])
    )


def test_any_estimator_may_look_at_a_view():
    X, y = data()
    forest = RandomForestClassifier(5, random_state=0)  # an ensemble too: without a length before it is fitted
    model = ViewEnsemble(forest).fit(X, y)
    assert [type(own) for own in model.models_] == [RandomForestClassifier] * 3


@pytest.mark.parametrize("floor", [0, 0.34, -1e-4, float("nan")])
def test_a_floor_that_no_probability_fits_is_refused(floor):
    X, y = data()
    with pytest.raises(ValueError, match="floor"):
        ViewEnsemble(floor=floor).fit(X, y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_accepts_it():
    check_estimator(ViewEnsemble(), on_fail="raise")


@pytest.fixture(scope="module")
def robust_cache(smears, tmp_path_factory, tiny_densenet):
    out = tmp_path_factory.mktemp("robust") / "c.h5"
    settings = ExtractConfig(tiny_densenet, "robust", weights="random", input_px=96, precision="fp32")
    extract(smears, out, settings)
    return out


@pytest.mark.slow
def test_a_recipe_by_its_own_name(robust_cache):
    cache = read_cache(robust_cache)
    assert cache.attributes["recipe"] == RECIPE_SETS["fields"]  # whole fields have no single cell in the middle
    assert len(cache.view) == 5
    for name, recipe in RECIPE_SETS.items():
        plan = ViewPlan.parse(name)
        assert plan.recipe == recipe
        assert all(view.fixed for view in plan.views)
    assert fixed_views(cache) == (1, 2, 3, 4)


def test_whole_fields_get_another_model():
    views = ViewPlan.parse("fields").views
    assert [view.shows_whole_field for view in views] == [True, False, False, False, True]
    X, y = data()
    ensemble = ViewEnsemble(whole_field=(False, True, False)).fit(X, y)
    kinds = [type(model).__name__ for model in ensemble.models_]
    assert kinds == ["GroupRobustDiscriminant", "GroupRobustLogistic", "GroupRobustDiscriminant"]
    with pytest.raises(ValueError, match="one for each"):
        ViewEnsemble(whole_field=(True,)).fit(X, y)


def planned(backbone, **settings):
    plan = Preprocessing.from_config(ExtractConfig(backbone=backbone, **settings)).plan
    return plan.recipe, len(plan)


def test_what_is_made_when_nothing_is_said():
    assert planned("densenet201") == ("plain", 1)
    assert planned("vgg16") == ("plain", 1)
    assert planned("densenet201", channels=("original", "segmented")) == ("plain", 1)
    assert planned("densenet201", views=3) == ("report", 3)
    assert planned("densenet201", recipe="fields", views=3) == (RECIPE_SETS["fields"], 3)
    assert planned("vgg16", recipe="grey,blur") == ("grey,blur", 3)


@pytest.mark.slow
def test_fixed_views_train_what_they_test(robust_cache, small_cache):
    cache, spec = read_cache(robust_cache), MODELS["logistic"]
    assert model_views(spec, cache, FitConfig()).train == (0,)
    assert model_views(spec, cache, FitConfig(test_views="2")).train == (0, 2)
    assert model_views(spec, cache, FitConfig(train_views="all")).train == (0, 1, 2, 3, 4)
    assert model_views(spec, read_cache(small_cache), FitConfig()).train == (0, 1)


@pytest.mark.slow
def test_consistency_asks_for_views(robust_cache, tmp_path):
    head = HeadConfig(consistency=1.0, epochs=1)
    with pytest.raises(ConfigError, match="one view to train on"):
        fit(robust_cache, FitConfig(models=("mlp",), repeats=1, head=head), out_root=tmp_path)
    run = fit(robust_cache, FitConfig(models=("mlp",), repeats=1, head=head, train_views="all"), out_root=tmp_path)
    assert [row["model"] for row in run.metrics] == ["mlp"]


@pytest.mark.slow
def test_which_views_it_sees(robust_cache, small_cache):
    spec, cache = MODELS["robust-views"], read_cache(robust_cache)
    assert model_views(spec, cache, FitConfig()).test == (1, 2, 3, 4)
    assert model_views(spec, cache, FitConfig(test_views="1,3")).train == (1, 3)
    assert model_views(MODELS["logistic"], cache, FitConfig()).test == (0,)
    assert model_views(spec, read_cache(small_cache), FitConfig()).test == (0,)  # its second view is drawn


@pytest.mark.slow
def test_it_joins_the_table_where_views_are_fixed(robust_cache, small_cache, tmp_path):
    names = {row["model"] for row in fit(robust_cache, FitConfig(repeats=1), out_root=tmp_path).metrics}
    assert "robust-views" in names
    names = {row["model"] for row in fit(small_cache, FitConfig(repeats=1), out_root=tmp_path).metrics}
    assert "robust-views" not in names


@pytest.mark.slow
def test_its_bundle_predicts_what_the_run_predicted(robust_cache, tmp_path):
    import csv

    run = fit(robust_cache, FitConfig(models=("robust-views",), repeats=1), out_root=tmp_path, save="all")
    folder = run.folder / "models" / "robust-views"
    bundle, cache = read_bundle(folder), read_cache(robust_cache)
    assert (folder / "views.skops").exists()
    assert bundle.facts.preprocessing.plan.indices == [0, 1, 2, 3, 4]  # the plain view tells unusual images
    with (run.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    place = {path: row for row, path in enumerate(cache.path.tolist())}
    X = cache.embeddings[[place[row["path"]] for row in rows]]
    expected = np.array([[float(row[f"p_{name}"]) for name in bundle.classes] for row in rows])
    tempered = np.clip(expected, 1e-12, 1) ** (1 / bundle.facts.temperature)
    assert np.allclose(bundle.probability(X), tempered / tempered.sum(1, keepdims=True), atol=1e-5)
    card = write_card(bundle, folder, tmp_path / "card.md").read_text(encoding="utf-8")
    assert "embeddings of 4 views by" in card
    assert "a classifier of its own, and their log-probabilities are averaged" in card


@pytest.mark.slow
def test_its_graph_is_its_prediction(robust_cache, tmp_path):
    """Exported whole: one image and many, and the module against the prediction step by step."""
    import torch

    from ball_features.deployment.activation import activation_map
    from ball_features.deployment.onnx import TOLERANCE, BundleModule, export_onnx
    from ball_features.deployment.predict import Predictor

    run = fit(robust_cache, FitConfig(models=("robust-views",), repeats=1), out_root=tmp_path, save="all")
    predictor = Predictor(read_bundle(run.folder / "models" / "robust-views"), device="cpu", precision="fp32")
    images = torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = BundleModule(predictor.bundle, predictor.module).eval()(images.float() / 255)[0]
    assert np.abs(found.numpy() - predictor.bundle.probability(predictor.embed(images, [""] * 3))).max() < 1e-4
    assert export_onnx(predictor, tmp_path / "views.onnx") <= TOLERANCE
    assert activation_map(predictor, images[0], "", 0).shape == (28, 28)


@pytest.mark.slow
def test_group_losses_look_after_the_small_group():
    """Within class 0 a small group needs another column than the large one; weighting groups finds it."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 400)
    group = np.where((y == 0) & (np.arange(800) < 20), 1, 2 * y)
    X = rng.normal(size=(800, 10)).astype(np.float32)
    X[:, 0] += np.where(group == 0, 4, 0)
    X[:, 1] += np.where(group == 1, 2.5, 0)
    settings = {"learning_rate": 2e-3, "epochs": 12, "random_state": 0}
    recall = {}
    for way in (None, "balanced", "dro"):
        head = MLPHead(group_loss=way, group_step=0.2, **settings).fit(X, y, groups=group)
        recall[way] = (head.predict(X[group == 1]) == 0).mean()
    assert recall["balanced"] > recall[None]
    assert recall["dro"] > recall[None]
    plain = MLPHead(group_loss="dro", **settings).fit(X, y)
    assert np.array_equal(plain.predict_proba(X), MLPHead(**settings).fit(X, y).predict_proba(X))
    with pytest.raises(ValueError, match="group_loss"):
        MLPHead(group_loss="worst").fit(X, y)
    with pytest.raises(ConfigError, match="group_loss"):
        HeadConfig(group_loss="worst")


@pytest.mark.slow
def test_a_group_loss_asks_for_groups(robust_cache, tmp_path):
    with pytest.raises(ConfigError, match="without groups"):
        fit(robust_cache, FitConfig(models=("mlp",), head=HeadConfig(group_loss="dro")), out_root=tmp_path)


@pytest.mark.slow
def test_views_that_differ_are_counted(robust_cache, tmp_path):
    cache = read_cache(robust_cache)
    groups = tmp_path / "groups.csv"
    lines = [
        f"{path},{label}-{number % 3}" for number, (path, label) in enumerate(zip(cache.path, cache.label, strict=True))
    ]
    groups.write_text("path,series\n" + "\n".join(lines) + "\n")
    import ball_features.dataset.splits as splits

    config = FitConfig(
        protocol="leave-group-out", groups=str(groups), group_column="series", repeats=1,
        models=("logistic", "robust-views", "colour"),
    )  # fmt: skip
    least, splits.MIN_CLASS_TRAIN = splits.MIN_CLASS_TRAIN, 4
    try:
        run = fit(robust_cache, config, out_root=tmp_path)
    finally:
        splits.MIN_CLASS_TRAIN = least
    for row in run.groups:
        assert (row.flip_rate is None) == (row.model != "robust-views")  # the others see one view
    assert any(row.flip_rate for row in run.groups if row.model == "robust-views")
