"""Registry of the models of the comparison table. Nothing heavy is imported until a model is built.

A new model is one builder and one record in `MODELS`. The table, the help texts and the bundles follow from the record.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from ball_features.config import EVERY_MODEL, HeadConfig
from ball_features.errors import ConfigError

__all__ = ["MODELS", "Model", "select"]


_TREES_FOR = 100  # most classes for which a forest has all its trees, a gigabyte for 3,000 images
_LEAST_TREES = 20


@dataclass(frozen=True)
class Model:
    """One row of the comparison table: how the model is built, what it needs and how a bundle stores it.

    Attributes:
        name: name in the table, on the command line and in bundles.
        build: function from (seed, head settings) to an unfitted scikit-learn classifier that has `predict_proba`
            and uses one thread.
        cost: approximate seconds to import and fit 2,084 x 1,920 on one core (`benchmarks/fit.py`); slow models are
            started first.
        kind: "head", "baseline" or "shortcut". Shortcuts see no network and cannot be saved.
        features: "embedding", a key of `Cache.shortcuts`, or "none" for a model that uses the labels alone.
        file_format: key of `bundles.formats.FORMATS`.
        validates: True if `fit` takes `X_val` and `y_val` and chooses an epoch by them. The fitted model then has
            `history_` and `best_epoch_`.
        groups: True if `fit` takes `groups` (group of each training row) and `center` (what each row is centred with;
            with `validates` also `center_val`), and `predict_proba` takes `center`.
        by_view: True if X is (images, views, dim), that is if the estimator is a `PerViewClassifier` and has a
            parameter `whole_field`, or `roles` if `chooses`.
        chooses: True if the estimator chooses among recipes and has a parameter `roles`, a `ViewRole` for each view.
        min_class: least number of training images in each class.
        min_images: least number of training images in all.
        more_images_than_classes: True if one training image a class is not enough in all classes at once.
        max_classes: greatest number of classes, or None.
        usual_classes: greatest number of classes with which the model is fitted where the user did not name it, or
            None. More take many minutes.
        per_class: what the model does for each class, or pair of classes, which is why there is a greatest number.
        trees: parameter with the number of trees of a forest, of which many classes get fewer; "" for other models.
        most_trees: greatest number of trees, or None for all that `build` gives.
        streams: name of the function of `models.streamed` that fits the model on rows which exceed the memory, or "",
            where it is fitted on a stratified sample instead.
        most_rows: greatest number of rows of that sample, by the time that a fit and a million predictions take.
    """

    name: str
    build: Callable[[int, HeadConfig], Any]
    cost: float
    _: KW_ONLY
    kind: Literal["head", "baseline", "shortcut"] = "baseline"
    features: Literal["embedding", "colour", "histogram", "corner", "nuclei", "none"] = "embedding"
    file_format: str = "skops"
    validates: bool = False
    groups: bool = False
    by_view: bool = False
    chooses: bool = False
    min_class: int = 1
    min_images: int = 2
    more_images_than_classes: bool = False
    max_classes: int | None = None
    usual_classes: int | None = None
    per_class: str = ""
    trees: str = ""
    most_trees: int | None = None
    streams: str = ""
    most_rows: int = 50_000

    def obstacle(self, counts: Mapping[str, int], *, named: bool = True) -> str:
        """Return why the model cannot be fitted on these training images, or "".

        Args:
            counts: number of training images of each class.
            named: whether the user named the model, and so waits for it however long it takes.
        """
        images, classes = sum(counts.values()), len(counts)
        smallest = min(counts, key=lambda name: counts[name])
        if self.max_classes is not None and classes > self.max_classes:
            return f"{self.name} {self.per_class}, and takes at most {self.max_classes} classes, got {classes}."
        if self.usual_classes is not None and classes > self.usual_classes and not named:
            return (
                f"{self.name} {self.per_class}, which takes long for {classes} classes. By default it is fitted with "
                f"up to {self.usual_classes}; name it to have it fitted."
            )
        if counts[smallest] < self.min_class:
            return (
                f"{self.name} needs {self.min_class} training images of each class, got {counts[smallest]} of "
                f"{smallest}. Add images of {smallest}."
            )
        least = max(self.min_images, classes + 1 if self.more_images_than_classes else 0)
        if images < least:
            return f"{self.name} needs {least} training images of {classes} classes, got {images}. Add images."
        return ""

    def fewer_trees(self, estimator: Any, classes: int) -> None:
        """Give a forest fewer trees where classes are many: each leaf of each tree holds a number for each class."""
        if not self.trees:
            return
        usual = estimator.get_params()[self.trees]
        count = usual if self.most_trees is None else min(usual, self.most_trees)
        if classes > _TREES_FOR:
            count = max(_LEAST_TREES, count * _TREES_FOR // classes)
        estimator.set_params(**{self.trees: count})


def _mlp(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.mlp import MLPHead

    return MLPHead(**head.to_dict(), random_state=seed)


def _scaled(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


# Settings suit some thousands of rows of 1,000 to 2,000 columns, and save time where accuracy does not suffer:
# `benchmarks/fit.py` compares them with the defaults of the libraries.
def _logistic(seed: int, head: HeadConfig) -> Any:
    from sklearn.linear_model import LogisticRegression

    return _scaled(LogisticRegression(C=0.01, max_iter=200, tol=1e-3))


def _robust_logistic(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.robust import GroupRobustLogistic

    return GroupRobustLogistic(per_image=head.per_image)


def _robust_views(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.ensemble import ViewEnsemble

    return ViewEnsemble(per_image=head.per_image)


def _robust(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.recipe_choice import RecipeChoice

    return RecipeChoice()


def _linear_svm(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.kernel import KernelSVM

    return _scaled(KernelSVM("linear", C=0.01))


def _rbf_svm(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.kernel import KernelSVM

    return _scaled(KernelSVM("rbf", C=10.0))


def _knn(seed: int, head: HeadConfig) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return _scaled(KNeighborsClassifier(n_neighbors=5, weights="distance"))


def _lda(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.shrunk import ShrunkDiscriminant

    return _scaled(ShrunkDiscriminant())


def _random_forest(seed: int, head: HeadConfig) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer

    # Sorting a column for each split takes most of a forest's time, and is fast on 16 distinct values.
    levels = KBinsDiscretizer(16, encode="ordinal", strategy="uniform", random_state=seed)
    forest = RandomForestClassifier(100, max_features="sqrt", n_jobs=1, random_state=seed)
    return make_pipeline(VarianceThreshold(), levels, forest)


def _extra_trees(seed: int, head: HeadConfig) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(100, max_features="sqrt", n_jobs=1, random_state=seed)


def _hist_gradient_boosting(seed: int, head: HeadConfig) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    # Few bins, a tenth of the columns in each node and no inner validation take a tenth of the default's time.
    settings: dict[str, Any] = {"max_bins": 32, "max_features": 0.1, "early_stopping": False}
    return HistGradientBoostingClassifier(learning_rate=0.2, max_iter=60, max_depth=4, random_state=seed, **settings)


def _xgboost(seed: int, head: HeadConfig) -> Any:
    from ball_features.models.boosting import XGBoost

    return XGBoost(random_state=seed)


def _majority(seed: int, head: HeadConfig) -> Any:
    from sklearn.dummy import DummyClassifier

    # Probabilities are the shares of the classes, so that the log loss is finite.
    return DummyClassifier(strategy="prior")


def _pixel_trees(seed: int, head: HeadConfig) -> Any:
    """Extra trees (Geurts et al. 2006, doi 10.1007/s10994-006-6226-1), which need neither scaling nor tuning."""
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(n_estimators=200, n_jobs=1, random_state=seed)


_PAIRS = "compares each pair of classes"
_ROUNDS = "grows a tree for each class in each of its rounds"

# A network that does not beat the shortcuts, which see a few statistics of pixels or labels alone, has shown nothing
# about cells. `extraction.pixels` computes those statistics.
MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            "mlp",
            _mlp,
            3.5,
            kind="head",
            file_format="safetensors",
            validates=True,
            groups=True,
            streams="fit_head",
        ),
        Model("logistic", _logistic, 0.1, streams="fit_logistic"),
        Model("robust-logistic", _robust_logistic, 1.5, groups=True, most_rows=20_000),
        Model(
            "robust-views",
            _robust_views,
            2.0,
            file_format="views",
            groups=True,
            by_view=True,
            more_images_than_classes=True,
            most_rows=20_000,
        ),
        Model("robust", _robust, 6.0, file_format="recipes", groups=True, by_view=True, chooses=True, most_rows=20_000),
        Model("linear-svm", _linear_svm, 0.3, min_class=2, max_classes=300, per_class=_PAIRS, streams="fit_linear_svm"),
        Model("rbf-svm", _rbf_svm, 0.4, min_class=2, max_classes=300, per_class=_PAIRS, most_rows=6000),
        Model("knn", _knn, 0.1, min_images=5, most_rows=10_000),
        Model("lda", _lda, 1.2, more_images_than_classes=True),
        Model(
            "random-forest",
            _random_forest,
            1.2,
            trees="randomforestclassifier__n_estimators",
            usual_classes=300,
            per_class="counts each class at each threshold of each column",
        ),
        Model("extra-trees", _extra_trees, 0.9, trees="n_estimators"),
        Model("hist-gradient-boosting", _hist_gradient_boosting, 2.3, usual_classes=30, per_class=_ROUNDS),
        Model(
            "xgboost", _xgboost, 3.0, file_format="xgboost", streams="fit_xgboost", usual_classes=30, per_class=_ROUNDS
        ),
        Model("majority", _majority, 0.0, kind="shortcut", features="none"),
        Model("colour", _pixel_trees, 0.5, kind="shortcut", features="colour", trees="n_estimators"),
        Model("histogram", _pixel_trees, 0.5, kind="shortcut", features="histogram", trees="n_estimators"),
        Model("nuclei", _pixel_trees, 0.5, kind="shortcut", features="nuclei", trees="n_estimators"),
        Model("corner", _pixel_trees, 1.5, kind="shortcut", features="corner", trees="n_estimators"),
    )
}


def select(names: Sequence[str] = ()) -> list[Model]:
    """Return the models of these names in the order of the names, each once; all models if no name is given.

    Args:
        names: keys of `MODELS`, or "all".

    Raises:
        ConfigError: A name is unknown. The message lists the valid names.
    """
    if EVERY_MODEL in names:
        return list(MODELS.values())
    for name in names:
        if name not in MODELS:
            near = difflib.get_close_matches(name, MODELS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"Unknown model {name!r}.{hint} Valid: {', '.join(MODELS)}, {EVERY_MODEL}.")
    return [MODELS[name] for name in dict.fromkeys(names or MODELS)]
