"""Fitted estimators in files that cannot run code, and back."""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.errors import ConfigError, DataError

__all__ = ["read_model", "write_model"]

_LOSSES = {
    f"{module}.CyHalf{name}Loss" for module in ("sklearn._loss._loss", "_loss") for name in ("Binomial", "Multinomial")
}
# What the models of `ball fit` are made of: kinds of nodes of a skops file, and what each may name. Functions, methods
# and types other than those of a dictionary's keys are in none of them, nor is what would call them. skops itself
# trusts more: NumPy's functions, and all public estimators, of which FunctionTransformer calls what it is given.
_PARTS: dict[str, frozenset[str]] = {
    "DictNode": frozenset({"builtins.dict"}),
    "JsonNode": frozenset({"builtins.str"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "TypeNode": frozenset({"builtins.str", "builtins.int"}),
    "NdArrayNode": frozenset(
        {"numpy.bool", "numpy.float32", "numpy.float64", "numpy.int32", "numpy.int64", "numpy.ndarray", "numpy.uint64"}
    ),
    "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
    "LossNode": frozenset(_LOSSES),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    "ObjectNode": frozenset(
        {
            *_LOSSES,  # of skops before 0.16
            "sklearn._loss.link.Interval",
            "sklearn._loss.link.LogitLink",
            "sklearn._loss.link.MultinomialLogit",
            "sklearn._loss.loss.HalfBinomialLoss",
            "sklearn._loss.loss.HalfMultinomialLoss",
            "sklearn.calibration.CalibratedClassifierCV",
            "sklearn.calibration._CalibratedClassifier",
            "sklearn.calibration._SigmoidCalibration",
            "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
            "sklearn.dummy.DummyClassifier",
            "sklearn.ensemble._forest.ExtraTreesClassifier",
            "sklearn.ensemble._forest.RandomForestClassifier",
            "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
            "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
            "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
            "sklearn.feature_selection._variance_threshold.VarianceThreshold",
            "sklearn.linear_model._logistic.LogisticRegression",
            "sklearn.neighbors._classification.KNeighborsClassifier",
            "sklearn.pipeline.Pipeline",
            "sklearn.preprocessing._data.StandardScaler",
            "sklearn.preprocessing._discretization.KBinsDiscretizer",
            "sklearn.preprocessing._label.LabelEncoder",
            "sklearn.svm._classes.SVC",
            "sklearn.tree._classes.DecisionTreeClassifier",
            "sklearn.tree._classes.ExtraTreeClassifier",
        }
    ),
}


def write_model(folder: Path, estimator: Any) -> str:
    """Write a fitted estimator into a folder and return the name of its file.

    Settings that the file does not hold go beside it, into `parameters.json`.

    Raises:
        ConfigError: It aligns embeddings first, which its file would not say.
    """
    for part in (estimator, *getattr(estimator, "models_", ())):
        alignment = getattr(part, "alignment_", None)
        if alignment is not None and (alignment.per_image or alignment.centers_ is not None):
            raise ConfigError(
                f"Got {type(part).__name__} with per_image or kinds, expected neither: a bundle holds no such "
                "alignment. Fit without them."
            )
    if hasattr(estimator, "state_"):
        from safetensors.numpy import save

        state = {key: np.ascontiguousarray(value) for key, value in estimator.state_.items()}
        parameters = {"parameters": json.dumps(estimator.get_params())}
        (folder / "head.safetensors").write_bytes(save(state, metadata=parameters))
        return "head.safetensors"
    if hasattr(estimator, "booster_"):
        estimator.booster_.save_model(folder / "xgboost.json")
        _write_parameters(folder, estimator.get_params())
        return "xgboost.json"
    import skops.io

    by_view = getattr(estimator, "by_view", False)
    packed = skops.io.dumps([_parts(model) for model in estimator.models_] if by_view else _parts(estimator))
    if _strange(packed):  # someone's own estimator
        import joblib

        joblib.dump(estimator, folder / "model.joblib")
        return "model.joblib"
    name = "views.skops" if by_view else "model.skops"
    (folder / name).write_bytes(packed)
    if by_view:
        _write_parameters(folder, {"floor": estimator.floor, "whole_field": list(estimator.whole_field)})
    return name


def _write_parameters(folder: Path, parameters: dict[str, Any]) -> None:
    (folder / "parameters.json").write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")


def _read_parameters(folder: Path) -> dict[str, Any]:
    """Nothing, that is the defaults, of bundles of earlier versions."""
    file = folder / "parameters.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _parts(estimator: Any) -> Any:
    """The same classifier as scikit-learn's own types only, where it can be had."""
    from sklearn.pipeline import Pipeline, make_pipeline

    from ball_features.models.kernel import KernelSVM

    if hasattr(estimator, "to_pipeline"):
        return estimator.to_pipeline()
    if isinstance(estimator, Pipeline) and isinstance(last := estimator[-1], KernelSVM):
        return make_pipeline(*estimator[:-1], last.to_calibrated())
    return estimator


def _strange(packed: bytes) -> list[str]:
    """What a skops file would build that is in none of `_PARTS`, sorted.

    Read off its schema, before skops sees it: older ones import what a file names in order to judge it.
    """
    with zipfile.ZipFile(io.BytesIO(packed)) as file:
        rest: list[Any] = [json.loads(file.read("schema.json"))]
    strange = set()
    while rest:
        item = rest.pop()
        if isinstance(item, list):
            rest += item
        elif isinstance(item, dict):
            rest += item.values()
            if "__loader__" in item:
                name = f"{item['__module__']}.{item['__class__']}"
                if name not in _PARTS.get(item["__loader__"], ()) or not _is_scikit_learn_s(item["__module__"]):
                    strange.add(name)
    return sorted(strange)


def _is_scikit_learn_s(module: str) -> bool:
    """Whether a module `_loss`, as scikit-learn before 1.9 calls one of its own, is that one and not another's."""
    own = importlib.import_module("sklearn._loss._loss") if module == "_loss" else None
    return own is sys.modules.get("_loss") if own else True


def read_model(folder: Path, facts: dict[str, Any], trust: bool) -> Any:
    """Read the estimator of a bundle's folder.

    Args:
        folder: Of the bundle.
        facts: `bundle.json`.
        trust: Load joblib's format too, which can execute anything.

    Raises:
        DataError: The file holds types that a classifier has no need of, or needs `trust`.
        AttributeError, ValueError: A tree or machine in it would be followed out of its memory; so does each format in
            its own way, where it is damaged.
    """
    kind, classes = facts["model_file"], np.array(facts["estimator_classes"])
    if kind == "head.safetensors":
        from safetensors import safe_open

        from ball_features.models.alignment import Alignment
        from ball_features.models.mlp import MLPHead

        with safe_open(folder / kind, "numpy") as file:
            head: Any = MLPHead(**json.loads(file.metadata()["parameters"]))
            head.state_ = {key: file.get_tensor(key) for key in file.keys()}
        head.classes_, head.n_features_in_ = classes, len(head.state_["0.weight"])
        head.alignment_ = Alignment(per_image=False)  # no other is written
        head.alignment_.centers_ = None
        return head
    if kind == "xgboost.json":
        from xgboost import XGBClassifier

        from ball_features.models.baselines import XGBoost

        model: Any = XGBoost(**_read_parameters(folder))
        model.booster_ = XGBClassifier()
        model.booster_.load_model(folder / kind)
        model.classes_, model.n_features_in_ = classes, int(model.booster_.n_features_in_)
        return model
    if kind in ("model.skops", "views.skops"):
        import skops.io

        packed = (folder / kind).read_bytes()
        strange = _strange(packed)
        if strange:
            raise DataError(
                f"{folder / kind} holds what a classifier has no need of ({', '.join(strange[:3])}), expected parts of "
                "the models of `ball fit`. It was not loaded; get the bundle from its maker again."
            )
        from ball_features.bundles.soundness import require_sound

        loaded: Any = skops.io.loads(packed, trusted=sorted(frozenset().union(*_PARTS.values())))
        require_sound(loaded)
        if kind == "model.skops":
            return loaded
        from ball_features.models.robust import ViewEnsemble

        ensemble: Any = ViewEnsemble(**_read_parameters(folder))
        ensemble.whole_field = tuple(ensemble.whole_field)
        ensemble.models_, ensemble.classes_ = list(loaded), classes
        ensemble.n_features_in_ = len(loaded)
        return ensemble
    if kind == "model.joblib":
        if not trust:
            raise DataError(
                f"{folder} holds its model as joblib, which can run any code when it is loaded. If you made it, or "
                "trust its maker with your account, add --trust."
            )
        import joblib

        return joblib.load(folder / kind)
    raise DataError(f"{folder} names the model file {kind!r}, which is not known. Update ball, or make it again.")
