"""File formats of fitted estimators. None of them can run code but joblib's, which is read on trust only.

A new format is one record in `FORMATS`; a model's record in `models.registry` names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.bundles.skops_files import UnknownPartsError, load_parts, write_parts
from ball_features.errors import ConfigError, DataError
from ball_features.files import read_json
from ball_features.models.base import AlignedClassifier, PerViewClassifier, ViewRole

__all__ = ["FORMATS", "Format", "model_files", "read_model", "write_model"]

_PARAMETERS = "parameters.json"


@dataclass(frozen=True)
class Format:
    """How a fitted estimator is stored in a bundle.

    Attributes:
        file: name of the file in the bundle's folder.
        write: function from (folder, estimator) that writes the file.
        read: function from (folder, class numbers (C,)) that returns the estimator.
        trusted: True if reading the file can execute anything.
        parameters: whether `parameters.json` beside it belongs to it.
    """

    file: str
    write: Callable[[Path, Any], None]
    read: Callable[[Path, np.ndarray], Any]
    trusted: bool = False
    parameters: bool = False


def write_model(folder: Path, estimator: Any, file_format: str = "skops") -> str:
    """Write a fitted estimator into a folder and return the name of its file.

    Settings that the file does not hold are written to `parameters.json` beside it. An estimator of another library,
    which skops would not be allowed to read, is written by joblib.

    Args:
        folder: folder of the bundle.
        estimator: fitted estimator.
        file_format: key of `FORMATS`.

    Raises:
        ConfigError: The estimator aligns embeddings first, which its file would not say.
    """
    parts = estimator.models_ if isinstance(estimator, PerViewClassifier) else [estimator]
    if any(isinstance(part, AlignedClassifier) and part.aligns for part in parts):
        raise ConfigError(
            f"Got {type(estimator).__name__} with per_image or center, expected neither: a bundle holds no such "
            "alignment. Fit without them."
        )
    own = FORMATS[file_format]
    try:
        own.write(folder, estimator)
    except UnknownPartsError:
        own = FORMATS["joblib"]
        own.write(folder, estimator)
    return own.file


def read_model(folder: Path, file: str, classes: Sequence[int], trust: bool) -> Any:
    """Read the estimator of a bundle's folder.

    Args:
        folder: folder of the bundle.
        file: name of the model file.
        classes: class numbers that the estimator was fitted on.
        trust: True also reads joblib's format, which can execute anything.

    Raises:
        DataError: The file holds types that a classifier does not need, needs `trust`, or has an unknown format.
        AttributeError, ValueError: The file is damaged, or a tree or support vector machine in it has indices that lead
            out of its memory. Each format has its own exceptions for damage.
    """
    own = {item.file: item for item in FORMATS.values()}.get(file)
    if own is None:
        known = ", ".join(item.file for item in FORMATS.values())
        raise DataError(f"{folder} names the model file {file!r}, expected one of {known}. Update ball.")
    if own.trusted and not trust:
        raise DataError(
            f"{folder} holds its model as joblib, which can run any code when it is loaded. If you made it, or trust "
            "its maker with your account, read it with trust=True."
        )
    return own.read(folder, np.array(classes))


def model_files(file: str) -> tuple[str, ...]:
    """Names of the files that hold an estimator, by that of its model file; the second may be missing."""
    parameters = any(own.file == file and own.parameters for own in FORMATS.values())
    return (file, _PARAMETERS) if parameters else (file,)


def _write_safetensors(folder: Path, estimator: Any) -> None:
    from safetensors.numpy import save

    state = {key: np.ascontiguousarray(value) for key, value in estimator.state_.items()}
    parameters = {"parameters": json.dumps(estimator.get_params())}
    # Not `save_file`, whose files only their owner may read.
    (folder / "head.safetensors").write_bytes(save(state, metadata=parameters))


def _read_safetensors(folder: Path, classes: np.ndarray) -> Any:
    from safetensors import safe_open

    from ball_features.models.alignment import Alignment
    from ball_features.models.mlp import MLPHead

    with safe_open(folder / "head.safetensors", "numpy") as file:
        head: Any = MLPHead(**json.loads(file.metadata()["parameters"]))
        head.state_ = {key: file.get_tensor(key) for key in file.keys()}
    head.classes_, head.n_features_in_ = classes, len(head.state_["0.weight"])
    head.alignment_ = Alignment(per_image=False)  # a head that aligns is not written
    head.alignment_.centers_ = None
    return head


def _write_xgboost(folder: Path, estimator: Any) -> None:
    estimator.booster_.save_model(folder / "xgboost.json")
    _write_parameters(folder, estimator.get_params())


def _read_xgboost(folder: Path, classes: np.ndarray) -> Any:
    from xgboost import XGBClassifier

    from ball_features.bundles.booster_files import require_sound_booster
    from ball_features.models.boosting import XGBoost

    require_sound_booster(folder / "xgboost.json", len(classes))
    model: Any = XGBoost(**_read_parameters(folder))
    model.booster_ = XGBClassifier()
    model.booster_.load_model(folder / "xgboost.json")
    model.classes_, model.n_features_in_ = classes, int(model.booster_.n_features_in_)
    return model


def _write_skops(folder: Path, estimator: Any) -> None:
    write_parts(folder / "model.skops", estimator)


def _read_skops(folder: Path, classes: np.ndarray) -> Any:
    return load_parts(folder / "model.skops")


def _write_views(folder: Path, estimator: Any) -> None:
    write_parts(folder / "views.skops", list(estimator.models_))
    _write_parameters(folder, {"floor": estimator.floor, "whole_field": list(estimator.whole_field)})


def _read_views(folder: Path, classes: np.ndarray) -> Any:
    from ball_features.models.ensemble import ViewEnsemble

    loaded = load_parts(folder / "views.skops")
    ensemble: Any = ViewEnsemble(**_read_parameters(folder))
    ensemble.whole_field = tuple(ensemble.whole_field)
    _require_floor(ensemble.floor, classes)
    if len(ensemble.whole_field) not in (0, len(loaded)) or {type(own) for own in ensemble.whole_field} - {bool}:
        raise ValueError(f"whole_field is {ensemble.whole_field}, expected a truth value for each view")
    ensemble.models_, ensemble.classes_ = list(loaded), classes
    ensemble.n_features_in_ = len(loaded)
    return ensemble


def _write_recipes(folder: Path, estimator: Any) -> None:
    write_parts(folder / "recipes.skops", list(estimator.models_))
    _write_parameters(
        folder,
        {
            "roles": [asdict(role) for role in estimator.roles],
            "floor": estimator.floor,
            "members": [[member.recipe, *member.views] for member in estimator.members_],
            "weights": estimator.weights_.tolist(),
            "chosen": estimator.chosen_,
            "reason": estimator.reason_,
            "scores": estimator.scores_,
            "left_out": list(estimator.left_out_),
        },
    )


def _read_recipes(folder: Path, classes: np.ndarray) -> Any:
    from ball_features.models.recipe_choice import RecipeChoice
    from ball_features.models.recipe_members import Member

    loaded, own = load_parts(folder / "recipes.skops"), _read_parameters(folder)
    choice: Any = RecipeChoice(tuple(ViewRole(**role) for role in own["roles"]), floor=own["floor"])
    pairs = zip(own["members"], loaded, strict=True)
    choice.members_ = [Member(recipe, tuple(views), model) for (recipe, *views), model in pairs]
    choice.models_, choice.classes_ = [member.model for member in choice.members_], classes
    choice.weights_ = np.array(own["weights"], dtype=float)
    _require_floor(choice.floor, classes)
    if choice.weights_.shape != (len(loaded),) or not (choice.weights_ >= 0).all() or not choice.weights_.sum() > 0:
        raise ValueError("weights are out of range")
    choice.chosen_, choice.reason_, choice.scores_ = own["chosen"], own["reason"], own["scores"]
    choice.left_out_ = tuple(own["left_out"])
    choice.n_features_in_ = max(1, len(choice.roles))
    return choice


def _require_floor(floor: Any, classes: np.ndarray) -> None:
    if not isinstance(floor, float) or not 0 < floor < 1 / len(classes):
        raise ValueError(f"floor is {floor!r}, expected above 0 and below 1 / {len(classes)}")


def _write_joblib(folder: Path, estimator: Any) -> None:
    import joblib

    joblib.dump(estimator, folder / "model.joblib")


def _read_joblib(folder: Path, classes: np.ndarray) -> Any:
    import joblib

    return joblib.load(folder / "model.joblib")


FORMATS: dict[str, Format] = {
    "safetensors": Format("head.safetensors", _write_safetensors, _read_safetensors),
    "xgboost": Format("xgboost.json", _write_xgboost, _read_xgboost, parameters=True),
    "skops": Format("model.skops", _write_skops, _read_skops),
    "views": Format("views.skops", _write_views, _read_views, parameters=True),
    "recipes": Format("recipes.skops", _write_recipes, _read_recipes, parameters=True),
    "joblib": Format("model.joblib", _write_joblib, _read_joblib, trusted=True),
}


def _write_parameters(folder: Path, parameters: Mapping[str, object]) -> None:
    (folder / _PARAMETERS).write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")


def _read_parameters(folder: Path) -> dict[str, Any]:
    """Return nothing, that is the defaults, for bundles of earlier versions."""
    file = folder / _PARAMETERS
    return read_json(file) if file.exists() else {}
