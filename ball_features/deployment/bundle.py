"""Bundles: a fitted model with all that is needed to use it on new images, in files that cannot run code.

A bundle is a folder: `bundle.json` (class names, network, preprocessing, calibration, provenance),
`reference.safetensors` (training embeddings, and the validation scores that sets and thresholds come from) and the
model: safetensors for the head, XGBoost's own JSON, skops for scikit-learn, whose types are checked before anything is
built. Another library's estimator is kept by joblib, and read only where the user trusts it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features import __version__
from ball_features.deployment.calibration import (
    conformal_threshold,
    fit_temperature,
    mean_probability,
    neighbour_distance,
    tempered,
    unit_mean,
)
from ball_features.deployment.estimators import read_model, write_model
from ball_features.errors import DataError
from ball_features.evaluation.protocols import model_views
from ball_features.heads.registry import MODELS

if TYPE_CHECKING:
    from ball_features.cache import Cache
    from ball_features.config import FitConfig
    from ball_features.evaluation.protocols import Fitted

__all__ = ["FORMAT", "Bundle", "bundle_fitted", "read_bundle", "write_bundle"]

FORMAT = 1
# Share of validation images that may lie further out than the threshold.
_UNUSUAL_SHARE = 0.01
# What a prediction must do as the extraction did.
_FROM_CACHE = (
    "backbone",
    "weights",
    "weights_sha256",
    "normalize",
    "input_px",
    "precision",
    "recipe",
    "seed",
    "resize",
    "overlay_mask",
    "channels_used",
    "combine",
    "segmentation",
)


@dataclass(frozen=True)
class Bundle:
    """A model ready to predict.

    Attributes:
        estimator: Fitted classifier on embeddings; its classes are numbers into `classes`.
        classes: Names of the classes.
        facts: `bundle.json`: backbone, weights, views, recipe, temperature ...
        train: float32 (train, dim), unit length: training embeddings of the tested views.
        train_path: Ids of the training images.
        scores: float64 (validation,), increasing: 1 less the calibrated probability of the true class.
        distances: float64 (validation,), increasing: distance to the training embeddings.
    """

    estimator: Any
    classes: tuple[str, ...]
    facts: dict[str, Any]
    train: np.ndarray
    train_path: tuple[str, ...]
    scores: np.ndarray
    distances: np.ndarray

    def probability(self, X: np.ndarray) -> np.ndarray:
        """Calibrated class probabilities, float64 (images, classes), of embeddings (images, views, dim)."""
        return tempered(mean_probability(self.estimator, X, len(self.classes)), self.facts["temperature"])

    def distance(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean cosine distance to the nearest training images, (images,), and their rows (images, neighbours).

        Distance to neighbours in a deep embedding tells unfamiliar input (Sun et al. 2022, "Out-of-distribution
        detection with deep nearest neighbors").
        """
        return neighbour_distance(X, self.train)

    @property
    def unusual_from(self) -> float:
        """Distance beyond which an image is unlike those that the model was made from."""
        return conformal_threshold(self.distances, 1 - _UNUSUAL_SHARE)

    def threshold(self, coverage: float) -> float:
        """1 - p of a class up to which it belongs to the set of this coverage."""
        return conformal_threshold(self.scores, coverage)

    def sets(self, probability: np.ndarray, coverage: float) -> np.ndarray:
        """Prediction sets, bool (images, classes), that hold the truth with this probability on images alike.

        Split conformal with 1 - p(true) as the score (Sadinle et al. 2019, doi 10.1080/01621459.2017.1395341); the most
        probable class is always in.
        """
        inside = 1 - probability <= self.threshold(coverage)
        inside[np.arange(len(probability)), probability.argmax(1)] = True
        return inside


def write_bundle(
    folder: Path,
    *,
    name: str,
    estimator: Any,
    classes: Sequence[str],
    train: np.ndarray,
    train_path: Sequence[str],
    validation: np.ndarray,
    truth: np.ndarray,
    facts: dict[str, Any],
) -> None:
    """Write a bundle.

    Args:
        folder: To make.
        name: Of the model.
        estimator: Fitted on class numbers.
        classes: Names.
        train: float (train, views, dim), of the views that test.
        train_path: Ids of the training images.
        validation: float (validation, views, dim); calibrates, and sets the thresholds.
        truth: int (validation,), class numbers.
        facts: Network, preprocessing and provenance.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    raw = mean_probability(estimator, validation, len(classes))
    temperature = fit_temperature(raw, truth)
    scores = 1 - tempered(raw, temperature)[np.arange(len(truth)), truth]
    reference = unit_mean(train)
    distances, _ = neighbour_distance(validation, reference)
    arrays = {"train": reference.astype(np.float16), "scores": np.sort(scores), "distances": np.sort(distances)}
    save_file(arrays, folder / "reference.safetensors")
    kind = write_model(folder, estimator)
    own = {
        "format": FORMAT,
        "model": name,
        "model_file": kind,
        "classes": list(classes),
        "estimator_classes": np.asarray(estimator.classes_).tolist(),
        "temperature": temperature,
        "train_path": list(train_path),
    }
    (folder / "bundle.json").write_text(json.dumps(own | facts, indent=1) + "\n", encoding="utf-8")


def bundle_fitted(folder: Path, cache: Cache, config: FitConfig, fitted: Fitted, name: str) -> None:
    """Write the bundle of a model fitted by `fit`: that of the first split, which its validation images calibrate.

    Args:
        folder: Of the run's models; the bundle is the folder `name` in it.
        cache: That the model was fitted on.
        config: Of the run.
        fitted: With its estimator.
        name: Of the model.
    """
    classes, codes = np.unique(cache.label, return_inverse=True)
    views = list(model_views(MODELS[name], cache, config).test)
    own = cache.attributes
    facts = {key: own[key] for key in _FROM_CACHE if key in own}
    facts |= {
        "views": views,
        "view_seed": int(own["seed"]) if len(cache.view) > 1 else 0,
        "cache_fingerprint": own["fingerprint"],
        "protocol": config.protocol,
        "train_images": len(fitted.split.train),
        "validation_images": len(fitted.split.val),
        "ball_version": __version__,
    }
    write_bundle(
        folder / name,
        name=name,
        estimator=fitted.estimator,
        classes=[str(item) for item in classes],
        train=cache.embeddings[fitted.split.train][:, views],
        train_path=[str(path) for path in cache.path[fitted.split.train]],
        validation=cache.embeddings[fitted.split.val][:, views],
        truth=codes[fitted.split.val],
        facts=facts,
    )


def read_bundle(folder: Path | str, *, trust: bool = False) -> Bundle:
    """Read a bundle; nothing in it is executed.

    Args:
        folder: RUN/models/MODEL.
        trust: Load a model in joblib's format too, which can execute anything.

    Raises:
        DataError: No bundle, of another format, or with types that a classifier has no need of.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    try:
        facts = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "reference.safetensors")
        if facts["format"] != FORMAT:
            raise DataError(f"{folder} has bundle format {facts['format']}, expected {FORMAT}. Make it again.")
        estimator = read_model(folder, facts, trust)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is not a bundle ({type(error).__name__}: {error}). Expected a folder made by "
            "`ball fit --save MODEL`: RUN/models/MODEL."
        ) from error
    return Bundle(
        estimator=estimator,
        classes=tuple(facts["classes"]),
        facts=facts,
        train=arrays["train"].astype(np.float32),
        train_path=tuple(facts["train_path"]),
        scores=arrays["scores"],
        distances=arrays["distances"],
    )
