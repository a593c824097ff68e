"""Fitted estimators in files that cannot run code, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.errors import DataError

__all__ = ["read_model", "write_model"]

_TRUSTED = ("sklearn.", "numpy.", "scipy.", "collections.", "builtins.")


def write_model(folder: Path, estimator: Any) -> str:
    """Write a fitted estimator into a folder and return the name of its file."""
    if hasattr(estimator, "state_"):
        from safetensors.numpy import save

        state = {key: np.ascontiguousarray(value) for key, value in estimator.state_.items()}
        parameters = {"parameters": json.dumps(estimator.get_params())}
        (folder / "head.safetensors").write_bytes(save(state, metadata=parameters))
        return "head.safetensors"
    if hasattr(estimator, "booster_"):
        estimator.booster_.save_model(folder / "xgboost.json")
        return "xgboost.json"
    from skops import io

    if getattr(estimator, "by_view", False):
        packed = io.dumps([model.to_pipeline() for model in estimator.models_])
        (folder / "views.skops").write_bytes(packed)
        return "views.skops"
    from sklearn.pipeline import Pipeline, make_pipeline

    from ball_features.heads.kernel import KernelSVM

    # A bundle holds scikit-learn's own types only, where it can.
    if hasattr(estimator, "to_pipeline"):
        estimator = estimator.to_pipeline()
    elif isinstance(estimator, Pipeline) and isinstance(last := estimator[-1], KernelSVM):
        estimator = make_pipeline(*estimator[:-1], last.to_calibrated())
    packed = io.dumps(estimator)
    if _strange(io.get_untrusted_types(data=packed)):  # someone's own estimator
        import joblib

        joblib.dump(estimator, folder / "model.joblib")
        return "model.joblib"
    (folder / "model.skops").write_bytes(packed)
    return "model.skops"


def _strange(types: Sequence[str]) -> list[str]:
    return [item for item in types if not item.startswith(_TRUSTED)]


def read_model(folder: Path, facts: dict[str, Any], trust: bool) -> Any:
    """Read the estimator of a bundle's folder.

    Args:
        folder: Of the bundle.
        facts: `bundle.json`.
        trust: Load joblib's format too, which can execute anything.

    Raises:
        DataError: The file holds types that a classifier has no need of, or needs `trust`.
    """
    kind, classes = facts["model_file"], np.array(facts["estimator_classes"])
    if kind == "head.safetensors":
        from safetensors import safe_open

        from ball_features.heads.alignment import Alignment
        from ball_features.heads.mlp import MLPHead

        with safe_open(folder / kind, "numpy") as file:
            head: Any = MLPHead(**json.loads(file.metadata()["parameters"]))
            head.state_ = {key: file.get_tensor(key) for key in file.keys()}
        head.classes_, head.n_features_in_ = classes, len(head.state_["0.weight"])
        head.alignment_ = Alignment(per_image=False)  # `fit` bundles no other
        head.alignment_.centers_ = None
        return head
    if kind == "xgboost.json":
        from xgboost import XGBClassifier

        from ball_features.heads.baselines import XGBoost

        model: Any = XGBoost()
        model.booster_ = XGBClassifier()
        model.booster_.load_model(folder / kind)
        model.classes_, model.n_features_in_ = classes, int(model.booster_.n_features_in_)
        return model
    if kind in ("model.skops", "views.skops"):
        from skops import io

        unknown = io.get_untrusted_types(file=folder / kind)
        strange = _strange(unknown)
        if strange:
            raise DataError(
                f"{folder / kind} holds types that a classifier has no need of ({', '.join(strange[:3])}), expected "
                "those of scikit-learn and NumPy. It was not loaded; get the bundle from its maker again."
            )
        loaded: Any = io.load(folder / kind, trusted=unknown)
        if kind == "model.skops":
            return loaded
        from ball_features.heads.robust import ViewEnsemble

        ensemble: Any = ViewEnsemble()
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
