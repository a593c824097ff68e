"""Model files: what the registry's models need is read, and nothing that could run code."""

import io
import json
import operator
import shutil
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ball_features.bundles.formats import FORMATS, model_files, read_model, write_model
from ball_features.bundles.skops_files import UnknownPartsError, scikit_learn_parts, write_parts
from ball_features.config import HeadConfig
from ball_features.errors import ConfigError, DataError
from ball_features.models.base import ViewRole
from ball_features.models.boosting import XGBoost
from ball_features.models.ensemble import ViewEnsemble
from ball_features.models.mlp import MLPHead
from ball_features.models.registry import MODELS
from ball_features.models.robust import GroupRobustLogistic


def read(folder, name, classes=(0, 1, 2, 3)):
    return read_model(folder, name, list(classes), trust=False)


def drawn(classes, dtype):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(classes), 60)
    return (rng.normal(size=(len(y), 30)) + 0.5 * y[:, None]).astype(dtype), y


def missing_parts(estimator):
    """Types that `bundles.skops_files` would have to know."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_parts(Path(folder) / "model.skops", estimator)
        except UnknownPartsError as error:
            return str(error)
    return "none"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_of_the_registry_is_read_without_trust(tmp_path, name, classes, dtype):
    X, y = drawn(classes, dtype)
    spec = MODELS[name]
    estimator = spec.build(0, HeadConfig(epochs=2))
    if spec.by_view:
        X = np.stack([X, X[:, ::-1]], 1)
        roles = (ViewRole("plain", "plain"), ViewRole("crop@block2-1", "cells", "crop"))
        estimator.set_params(**({"roles": roles} if spec.chooses else {"whole_field": (True, False)}))
    estimator.fit(X, y, **({"groups": np.tile(np.arange(3), len(y) // 3)} if spec.groups else {}))
    file = write_model(tmp_path, estimator, spec.file_format)
    assert file == FORMATS[spec.file_format].file != "model.joblib", f"missing in _PARTS: {missing_parts(estimator)}"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(model_files(file))
    again = read(tmp_path, file, range(classes))
    # A support vector machine is fitted again, on columns.
    assert np.allclose(again.predict_proba(X), estimator.predict_proba(X), atol=5e-3 if "svm" in name else 1e-6)
    assert again.classes_.tolist() == list(range(classes))


def forged(folder, estimator):
    """A model file made by hand: `write_model` would not."""
    import skops.io

    (folder / "model.skops").write_bytes(skops.io.dumps(estimator))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    """Every part of it is a public estimator or a function; predicting would write a file."""
    text = f"open({str(tmp_path / 'owned')!r}, 'w')"
    steps = [
        FunctionTransformer(np.full_like, kw_args={"fill_value": text, "dtype": object}),
        FunctionTransformer(np.ravel),
        FunctionTransformer(min),
        FunctionTransformer(exec),
        DummyClassifier().fit(np.zeros((4, 1)), range(4)),
    ]
    forged(tmp_path, Pipeline([(str(place), step) for place, step in enumerate(steps)]))
    with pytest.raises(DataError, match=r"no need of \(builtins\.exec.*It was not loaded"):
        read(tmp_path, "model.skops")
    assert not (tmp_path / "owned").exists()


CALLABLE = {
    "transformer": FunctionTransformer(),
    "ufunc": np.exp,
    "function of NumPy": np.full_like,
    "built-in": exec,
    "function of Python": shutil.rmtree,
    "partial": partial(int, "1"),
    "method": DummyClassifier().fit,
    "class": DummyClassifier,
    "operator": operator.attrgetter("a"),
}


@pytest.mark.parametrize("part", CALLABLE.values(), ids=CALLABLE)
def test_nothing_that_can_be_called_is_read(tmp_path, part):
    """Not within an estimator that is known either: a distance, a weight, a step."""
    forged(tmp_path, KNeighborsClassifier(metric=part))
    with pytest.raises(DataError, match="no need of"):
        read(tmp_path, "model.skops")
    forged(tmp_path, [{"a": (part,)}])
    with pytest.raises(DataError, match="no need of"):
        read(tmp_path, "model.skops")


def test_the_schema_is_judged_before_anything_is_imported(tmp_path):
    """A kind of node that names another module, a known name under another kind, another module called `_loss`."""
    X, y = drawn(4, np.float32)
    forged(tmp_path, DummyClassifier().fit(X, y))
    with zipfile.ZipFile(tmp_path / "model.skops") as file:
        members = {name: file.read(name) for name in file.namelist()}
    (tmp_path / "_evil.py").write_text("raise SystemExit")
    for change in (
        {"__module__": "_evil", "__class__": "Loss", "__loader__": "LossNode"},
        {"__loader__": "TypeNode"},
        {"__module__": "_loss", "__class__": "CyPinballLoss", "__loader__": "LossNode"},
    ):
        schema = json.loads(members["schema.json"]) | change
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for name, data in (members | {"schema.json": json.dumps(schema).encode()}).items():
                file.writestr(name, data)
        (tmp_path / "model.skops").write_bytes(packed.getvalue())
        with pytest.raises(DataError, match="no need of"):
            read(tmp_path, "model.skops")


class Own(ClassifierMixin, BaseEstimator):
    """Someone's own estimator."""

    classes_ = np.arange(4)


@pytest.mark.parametrize(
    "estimator", [Own(), Pipeline([("scale", FunctionTransformer(np.log1p)), ("model", DummyClassifier())])], ids=str
)
def test_other_estimators_go_to_joblib(tmp_path, estimator):
    assert write_model(tmp_path, estimator) == "model.joblib"
    assert type(estimator if isinstance(estimator, Own) else estimator[0]).__name__ in missing_parts(estimator)
    with pytest.raises(DataError, match="trust=True"):
        read(tmp_path, "model.joblib")


@pytest.mark.parametrize(
    ("estimator", "file_format"),
    [
        (MLPHead(epochs=1, per_image=True), "safetensors"),
        (GroupRobustLogistic(per_image=True), "skops"),
        (ViewEnsemble(per_image=True), "views"),
    ],
    ids=["head", "logistic", "ensemble"],
)
def test_a_model_that_aligns_embeddings_is_refused(tmp_path, estimator, file_format):
    """Read back without its alignment it would give other answers."""
    X, y = drawn(4, np.float32)
    center = np.tile(np.arange(3), 80)
    centred = estimator.__class__(**estimator.get_params() | {"per_image": False}).fit(X, y, center=center)
    for model in (estimator.fit(X, y), centred):
        with pytest.raises(ConfigError, match=r"expected neither.*Fit without them"):
            write_model(tmp_path, model, file_format)
    assert not list(tmp_path.iterdir())


def test_settings_that_a_file_does_not_hold_lie_beside_it(tmp_path):
    X, y = drawn(4, np.float32)
    views = np.stack([X, X[:, ::-1]], 1)
    ensemble = ViewEnsemble(floor=0.2, whole_field=(True, False)).fit(views, y)
    assert write_model(tmp_path, ensemble, "views") == "views.skops"
    again = read(tmp_path, "views.skops")
    assert (again.floor, again.whole_field) == (0.2, (True, False))
    assert np.allclose(again.predict_proba(views), ensemble.predict_proba(views), atol=1e-6)
    boosted = XGBoost(n_estimators=3, colsample_bytree=0.5, random_state=None).fit(X, y)
    assert write_model(tmp_path, boosted, "xgboost") == "xgboost.json"
    assert read(tmp_path, "xgboost.json").get_params() == boosted.get_params()
    # Bundles of earlier versions have none.
    (tmp_path / "parameters.json").unlink()
    assert read(tmp_path, "views.skops").get_params() == ViewEnsemble().get_params()
    assert read(tmp_path, "xgboost.json").get_params() == XGBoost().get_params()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extra-trees", "hist-gradient-boosting"])
@pytest.mark.parametrize("fault", ["child", "circle", "column", "width"])
def test_a_tree_that_leads_out_of_itself_is_refused(tmp_path, name, fault):
    """scikit-learn would read memory that is not the tree's, or never end."""
    X, y = drawn(2, np.float32)
    model = MODELS[name].build(0, HeadConfig()).fit(X, y)
    tree = state = None
    if name == "extra-trees":
        tree = model.estimators_[3].tree_
        state = tree.__getstate__()
        nodes, left, column = state["nodes"], "left_child", "feature"
    else:
        nodes, left, column = model._predictors[3][0].nodes, "left", "feature_idx"
    if fault == "width":
        del model.n_features_in_  # scikit-learn would not ask how many columns rows have
    else:
        field, value = {"child": (left, 2**30), "circle": (left, 0), "column": (column, 30)}[fault]
        nodes[field][0] = value
    if tree is not None:
        tree.__setstate__(state)
    assert write_model(tmp_path, model) == "model.skops"
    with pytest.raises((ValueError, AttributeError), match=r"out of range|n_features_in_"):
        read(tmp_path, "model.skops", range(2))


def disagree(svc, fault):
    """Arrays of a fitted machine that libsvm would follow out of memory."""
    if fault == "counts":
        svc._n_support = svc._n_support + np.array([10**7, -(10**7)], dtype=np.int32)
    elif fault == "kernel":
        svc.kernel, svc.support_ = "precomputed", svc.support_ + 10**8
    elif fault == "vectors":
        svc.support_vectors_ = svc.support_vectors_[:, :1].copy()
    elif fault == "coefficients":
        svc._dual_coef_ = svc._dual_coef_[:, :1].copy()
    else:
        svc._intercept_ = np.zeros(0)


@pytest.mark.parametrize("fault", ["counts", "kernel", "vectors", "coefficients", "intercept"])
def test_a_machine_whose_arrays_do_not_agree_is_refused(tmp_path, fault):
    X, y = drawn(2, np.float32)
    model = scikit_learn_parts(MODELS["rbf-svm"].build(0, HeadConfig()).fit(X, y))
    disagree(model[-1].calibrated_classifiers_[0].estimator, fault)
    assert write_model(tmp_path, model) == "model.skops"
    with pytest.raises(ValueError, match="do not agree"):
        read(tmp_path, "model.skops", range(2))


def at(values, path):
    """The mapping or list that a path of keys leads to, and its last key."""
    *first, last = path.split(".")
    for key in first:
        values = values[int(key) if key.isdigit() else key]
    return values, int(last) if last.isdigit() else last


TREES = "learner.gradient_booster.model.trees"
MODEL = "learner.gradient_booster.model"
PARAM = "learner.learner_model_param"
BOOSTER_FAULTS = {
    **{f"child {value}": (f"{TREES}.0.left_children.0", value) for value in (0, 10**8, -2, 2**31, 2**40, 1.0, "1")},
    "one child for two": (f"{TREES}.0.left_children.0", 2),
    "half a node": (f"{TREES}.0.right_children.0", -1),
    **{f"column {value}": (f"{TREES}.0.split_indices.0", value) for value in (30, 5 * 10**8, -1, True)},
    **{f"group {value}": (f"{MODEL}.tree_info.0", value) for value in (4, 10**6, 5 * 10**8, -(10**6), None)},
    **{f"columns {value}": (f"{PARAM}.num_feature", value) for value in ("2000000000", "0", "-1", "x", 30, " 30")},
    **{f"classes {value}": (f"{PARAM}.num_class", value) for value in ("1000000000", "3", "5", "0")},
    "targets": (f"{PARAM}.num_target", "7"),
    "classes of the objective": ("learner.objective.softmax_multiclass_param.num_class", "9"),
    "nodes": (f"{TREES}.0.tree_param.num_nodes", "2000000000"),
    "vectors in leaves": (f"{TREES}.0.tree_param.size_leaf_vector", "4"),
    "columns of a tree": (f"{TREES}.0.tree_param.num_feature", "31"),
    "a category": (f"{TREES}.0.split_type.0", 1),
    "categories": (f"{TREES}.0.categories", [1]),
    "sizes of categories": (f"{TREES}.0.categories_sizes", [10**7]),
    "kept categories": (f"{MODEL}.cats.enc", [1]),
    "a short list": (f"{TREES}.0.default_left", []),
    "a value": (f"{TREES}.0.split_conditions.0", float("nan")),
    "the last tree": (f"{MODEL}.iteration_indptr.5", 10**8),
    "no tree": (TREES, []),
    "number of trees": (f"{MODEL}.gbtree_model_param.num_trees", "21"),
    "parallel trees": (f"{MODEL}.gbtree_model_param.num_parallel_tree", "2"),
    "another booster": ("learner.gradient_booster.name", "dart"),
    "another objective": ("learner.objective.name", "multi:softmax"),
    "the best round": ("learner.attributes.best_iteration", "100000"),
    "names of columns": ("learner.feature_names", ["a"]),
}


@pytest.fixture(scope="module")
def boosted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boosted")
    write_model(folder, XGBoost(n_estimators=5).fit(*drawn(4, np.float32)), "xgboost")
    return folder


@pytest.mark.parametrize("fault", BOOSTER_FAULTS)
def test_a_booster_that_leads_out_of_itself_is_refused(boosted, tmp_path, fault):
    """XGBoost would read, and by a tree's group write, memory that is not its own."""
    shutil.copytree(boosted, tmp_path, dirs_exist_ok=True)
    values = json.loads((tmp_path / "xgboost.json").read_text())
    path, value = BOOSTER_FAULTS[fault]
    place, key = at(values, path)
    place[key] = value
    (tmp_path / "xgboost.json").write_text(json.dumps(values))
    with pytest.raises((ValueError, TypeError, KeyError)):
        read(tmp_path, "xgboost.json")


def test_a_booster_with_a_key_twice_is_refused(boosted, tmp_path):
    """The check would read one value, and XGBoost the other."""
    shutil.copytree(boosted, tmp_path, dirs_exist_ok=True)
    assert read(tmp_path, "xgboost.json").n_features_in_ == 30
    text = (tmp_path / "xgboost.json").read_text()
    for twice in ('"tree_info":[9],"tree_info":', '"tree_in\\u0066o":[9],"tree_info":'):
        (tmp_path / "xgboost.json").write_text(text.replace('"tree_info":', twice))
        with pytest.raises(ValueError, match="out of range"):
            read(tmp_path, "xgboost.json")


@pytest.mark.slow
def test_boosted_trees_that_would_not_count_columns_are_refused(tmp_path):
    X, y = drawn(2, np.float32)
    model = MODELS["hist-gradient-boosting"].build(0, HeadConfig()).fit(X, y)
    model._preprocessor = StandardScaler().fit(X)
    assert write_model(tmp_path, model) == "model.skops"
    with pytest.raises(ValueError, match="no fit on numbers"):
        read(tmp_path, "model.skops", range(2))
