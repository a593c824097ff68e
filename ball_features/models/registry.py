"""Every model of the comparison table, by name. Nothing heavy is imported until a model is built."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ball_features.config import HeadConfig
from ball_features.errors import ConfigError

__all__ = ["MODELS", "ModelSpec", "select"]


@dataclass(frozen=True)
class ModelSpec:
    """How one row of the table is made.

    Attributes:
        name: Key of `MODELS`.
        kind: "head", "baseline" or "shortcut".
        features: What the model is trained on: the embedding, a key of a cache's `shortcuts`, or "none", for a model
            that looks at labels only and takes any X of the right length.
        build: (seed, head settings) -> an unfitted scikit-learn classifier with `predict_proba`, on one thread.
        validates: Whether `fit` takes `X_val` and `y_val` and chooses by them.
        groups: Whether `fit` takes `groups`, the group of each training row, and `kinds` (with `validates` also
            `kinds_val`), what it is centred with; `predict_proba` takes `kinds` too.
        by_view: Whether it takes X (images, views, dim) and tells views apart.
        cost: Seconds to import and fit 2,084 x 1920 on one core, roughly; the long ones are best started first.
        shares: Whether it, or a step of it, takes a `memory`, so that it is best fitted in one process with others
            that do, on the same rows.
    """

    name: str
    kind: Literal["head", "baseline", "shortcut"]
    features: Literal["embedding", "colour", "histogram", "corner", "nuclei", "none"]
    build: Callable[[int, HeadConfig], Any]
    validates: bool
    cost: float
    groups: bool = False
    by_view: bool = False
    shares: bool = False


def _build_robust(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.robust import GroupRobustLogistic

    return GroupRobustLogistic(per_image=head.per_image)


def _build_views(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.robust import ViewEnsemble

    return ViewEnsemble(per_image=head.per_image)


def _build_mlp(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.mlp import MLPHead

    return MLPHead(**head.to_dict(), random_state=seed)


def _build_baseline(name: str, seed: int, head: HeadConfig) -> Any:
    from ball_features.models.baselines import BASELINES

    return BASELINES[name](seed)


def _build_shortcut(name: str, seed: int, head: HeadConfig) -> Any:
    from ball_features.models.shortcuts import SHORTCUT_MODELS

    return SHORTCUT_MODELS[name](seed)


def _baseline(name: str, cost: float, *, shares: bool = False) -> ModelSpec:
    return ModelSpec(name, "baseline", "embedding", partial(_build_baseline, name), False, cost, shares=shares)


MODELS: dict[str, ModelSpec] = {
    "mlp": ModelSpec("mlp", "head", "embedding", _build_mlp, True, 3.5, groups=True),
    "logistic": _baseline("logistic", 0.1, shares=True),
    "robust-logistic": ModelSpec("robust-logistic", "baseline", "embedding", _build_robust, False, 1.5, groups=True),
    "robust-views": ModelSpec(
        "robust-views", "baseline", "embedding", _build_views, False, 2.0, groups=True, by_view=True
    ),
    "linear-svm": _baseline("linear-svm", 0.3, shares=True),
    "rbf-svm": _baseline("rbf-svm", 0.4, shares=True),
    "knn": _baseline("knn", 0.1, shares=True),
    "lda": _baseline("lda", 1.2, shares=True),
    "random-forest": _baseline("random-forest", 1.2),
    "extra-trees": _baseline("extra-trees", 0.9),
    "hist-gradient-boosting": _baseline("hist-gradient-boosting", 2.3),
    "xgboost": _baseline("xgboost", 3.0),
    "majority": ModelSpec("majority", "shortcut", "none", partial(_build_shortcut, "majority"), False, 0.0),
    "colour": ModelSpec("colour", "shortcut", "colour", partial(_build_shortcut, "colour"), False, 0.5),
    "histogram": ModelSpec("histogram", "shortcut", "histogram", partial(_build_shortcut, "histogram"), False, 0.5),
    "nuclei": ModelSpec("nuclei", "shortcut", "nuclei", partial(_build_shortcut, "nuclei"), False, 0.5),
    "corner": ModelSpec("corner", "shortcut", "corner", partial(_build_shortcut, "corner"), False, 1.5),
}


def select(names: Sequence[str] = ()) -> list[ModelSpec]:
    """The models of these names, in the order asked for, each once; all of them where none is named.

    Args:
        names: Keys of `MODELS`.

    Raises:
        ConfigError: A name is unknown; the message lists the valid ones.
    """
    for name in names:
        if name not in MODELS:
            near = difflib.get_close_matches(name, MODELS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"Unknown model {name!r}.{hint} Valid: {', '.join(MODELS)}.")
    return [MODELS[name] for name in dict.fromkeys(names or MODELS)]
