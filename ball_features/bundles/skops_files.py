"""Files of scikit-learn estimators by skops, whose parts are checked before anything is imported or built."""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

from ball_features.errors import DataError
from ball_features.models.base import PipelineClassifier

__all__ = ["UnknownPartsError", "load_parts", "scikit_learn_parts", "write_parts"]

_LOSSES = {
    f"{module}.CyHalf{name}Loss" for module in ("sklearn._loss._loss", "_loss") for name in ("Binomial", "Multinomial")
}
_EXPANSION, _FREE_BYTES = 16, 1 << 26
# Parts of the models of `ball fit`: kinds of nodes in a skops file and the names each kind may have. Excluded are
# functions, methods, types other than those of a dictionary's keys, and whatever would call them. skops itself trusts
# more: NumPy's functions and all public estimators, among them FunctionTransformer, which calls what it is given.
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
            "sklearn.linear_model._stochastic_gradient.SGDClassifier",
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


class UnknownPartsError(ValueError):
    """An estimator has parts that a file of this format would not be allowed to build."""


def write_parts(path: Path, estimator: Any) -> None:
    """Write an estimator, or a list of estimators, as scikit-learn's own types.

    Raises:
        UnknownPartsError: The file would be refused by `load_parts`. Nothing is written.
    """
    import skops.io

    listed = isinstance(estimator, list)
    parts = [scikit_learn_parts(item) for item in estimator] if listed else scikit_learn_parts(estimator)
    packed = skops.io.dumps(parts)
    unknown = _unknown_parts(packed)
    if unknown:
        raise UnknownPartsError(", ".join(unknown))
    path.write_bytes(packed)


def load_parts(path: Path) -> Any:
    """Read what `write_parts` wrote.

    Raises:
        DataError: The file holds types that a classifier does not need.
        AttributeError, ValueError: See `soundness.require_sound`.
    """
    import skops.io

    from ball_features.bundles.soundness import require_sound

    packed = _packed(path)
    unknown = _unknown_parts(packed)
    if unknown:
        raise DataError(
            f"{path} holds parts that a classifier has no need of ({', '.join(unknown[:3])}), expected parts of the "
            "models of `ball fit`. It was not loaded. Get the bundle from its maker again."
        )
    loaded: Any = skops.io.loads(packed, trusted=sorted(frozenset().union(*_PARTS.values())))
    require_sound(loaded)
    return loaded


def scikit_learn_parts(estimator: Any) -> Any:
    """Return the same classifier built of scikit-learn's own types alone, if there is one."""
    from sklearn.pipeline import Pipeline, make_pipeline

    from ball_features.models.kernel import KernelSVM
    from ball_features.models.shrunk import ShrunkDiscriminant

    if isinstance(estimator, PipelineClassifier):
        return estimator.to_pipeline()
    last = estimator[-1] if isinstance(estimator, Pipeline) else None
    if isinstance(last, KernelSVM):
        return make_pipeline(*estimator[:-1], last.to_calibrated())
    if isinstance(last, ShrunkDiscriminant):
        return make_pipeline(*estimator[:-1], last.to_scikit_learn())
    return estimator


def _packed(path: Path) -> bytes:
    """The bytes of a file whose members together unpack to no more than ball's, which are not compressed."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path.name} is no skops file")
    with zipfile.ZipFile(path) as file:
        items = file.infolist()
        names = [item.filename for item in items]
        if len(set(names)) < len(names):
            raise ValueError(f"{path.name} holds two files of one name")
        if sum(item.file_size for item in items) > _EXPANSION * path.stat().st_size + _FREE_BYTES:
            raise ValueError(f"{path.name} unpacks to more than its size warrants")
    return path.read_bytes()


def _unknown_parts(packed: bytes) -> list[str]:
    """Return what a skops file would build that is not in `_PARTS`, sorted.

    It is read from the file's schema before skops sees it: older versions of skops import what a file names in order to
    judge it.
    """
    with zipfile.ZipFile(io.BytesIO(packed)) as file:
        rest: list[Any] = [json.loads(file.read("schema.json"))]
    unknown = set()
    while rest:
        item = rest.pop()
        if isinstance(item, list):
            rest += item
        elif isinstance(item, dict):
            rest += item.values()
            if "__loader__" in item:
                name = f"{item['__module__']}.{item['__class__']}"
                known = name in _PARTS.get(item["__loader__"], ()) and _is_scikit_learn_loss(item["__module__"])
                if not known:
                    unknown.add(name)
    return sorted(unknown)


def _is_scikit_learn_loss(module: str) -> bool:
    """Return False for a foreign module called `_loss`, the name of one of scikit-learn's own before 1.9."""
    own = importlib.import_module("sklearn._loss._loss") if module == "_loss" else None
    return own is sys.modules.get("_loss") if own else True
