"""Bundles: a fitted model with all that is needed to use it on new images, in files that cannot run code.

A bundle is a folder: `bundle.json` (`bundles.facts`), `reference.safetensors` (training embeddings, and the validation
scores that sets and thresholds come from) and the model: safetensors for the head, XGBoost's own JSON, skops for
scikit-learn, whose types are checked before anything is built. An estimator of another library is kept by joblib, which
is read only if the user trusts it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.bundles.calibration import (
    class_set_note,
    class_thresholds,
    conformal_threshold,
    mean_probability,
    neighbour_distance,
    outlier_threshold,
    set_note,
    tempered,
    unusual_note,
)
from ball_features.bundles.facts import FORMAT, BundleFacts
from ball_features.bundles.formats import read_model
from ball_features.bundles.ranges import require_ranges
from ball_features.bundles.sums import require_unchanged
from ball_features.cache.places import from_stored
from ball_features.errors import BallError, DataError

__all__ = ["COVERAGE", "Bundle", "read_bundle", "saved_notes"]

COVERAGE = 0.95  # default coverage of prediction sets
_UNUSUAL_SHARE = 0.01  # share of validation images that may lie beyond the threshold of unusual images


@dataclass(frozen=True, eq=False)  # arrays have no single truth to compare or hash by
class Bundle:
    """A model ready to predict.

    Attributes:
        estimator: fitted classifier of embeddings; its classes are numbers of `classes`.
        facts: content of `bundle.json`.
        train: mean over the tested views of each training image at unit length, float32 (train, dim).
        scores: 1 minus the calibrated probability of the true class of each validation image, increasing, float64
            (validation,).
        distances: distance of each validation image to the training embeddings, increasing, float64 (validation,).
        score_class: class number of the image of each score, int (validation,); empty in bundles of earlier versions.

    The images that calibrate a final model are not of validation but of its folds, each predicted by a model that has
    not seen it.
    """

    estimator: Any
    facts: BundleFacts
    train: np.ndarray
    scores: np.ndarray
    distances: np.ndarray
    score_class: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.facts.classes

    @property
    def train_path(self) -> tuple[str, ...]:
        """Ids of the training images."""
        return self.facts.train_path

    def probability(self, X: np.ndarray) -> np.ndarray:
        """Calibrated class probabilities, float64 (images, classes), of embeddings (images, views, dim)."""
        return tempered(mean_probability(self.estimator, X, len(self.classes)), self.facts.temperature)

    def distance(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean cosine distance to the nearest training images, (images,), and their rows, (images, neighbours).

        Distance to neighbours in a deep embedding detects unfamiliar input (Sun et al. 2022, "Out-of-distribution
        detection with deep nearest neighbors").
        """
        return neighbour_distance(X, self.train)

    def unusual(self, X: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Whether images are unlike the training images, bool (images,).

        Args:
            X: embeddings, float (images, views, dim).
            probability: result of `probability` on them, float (images, classes).
        """
        return self.distance(X)[0] > self.unusual_from

    @property
    def unusual_from(self) -> float:
        """Distance beyond which an image is called unusual."""
        return outlier_threshold(self.distances, _UNUSUAL_SHARE)[0]

    @property
    def unusual_share(self) -> float:
        """Largest share of images like the validation images that lies beyond that distance by chance."""
        return outlier_threshold(self.distances, _UNUSUAL_SHARE)[1]

    @property
    def mondrian(self) -> bool:
        """True if each class has a threshold of its own, so that the coverage holds within each class."""
        return self.facts.conformal == "mondrian"

    def thresholds(self, coverage: float) -> np.ndarray:
        """Largest 1 - p of each class in a set of this coverage, float64 (classes,); 1 for too few images."""
        count = len(self.classes)
        if self.mondrian:
            return np.minimum(class_thresholds(self.scores, self.score_class, count, coverage), 1.0)
        return np.full(count, min(conformal_threshold(self.scores, coverage), 1.0))

    def threshold(self, coverage: float) -> float:
        """Largest 1 - p of any class in the set of this coverage; 1 if there are too few validation images."""
        return float(self.thresholds(coverage).max())

    def notes(self, coverage: float) -> list[str]:
        """What a user must know about sets of this coverage and about the flag for unusual images."""
        unusual = unusual_note(self.distances, _UNUSUAL_SHARE)
        if not self.mondrian:
            sets = [set_note(self.scores, coverage)]
        else:
            own = {name: self.scores[self.score_class == code] for code, name in enumerate(self.classes)}
            sets = [class_set_note(own, coverage)]
        return [note for note in (*sets, unusual) if note]

    def sets(self, probability: np.ndarray, coverage: float) -> np.ndarray:
        """Prediction sets, bool (images, classes), that contain the true class with this probability.

        The probability holds for images exchangeable with the validation images. Method: split conformal prediction
        with the score 1 - p(true) (Sadinle et al. 2019, doi 10.1080/01621459.2017.1395341), of a final model
        `evaluation.final_fit`; the most probable class is always in the set.
        """
        inside = 1 - probability <= self.thresholds(coverage)
        inside[np.arange(len(probability)), probability.argmax(1)] = True
        return inside


def read_bundle(folder: Path | str, *, trust: bool = False) -> Bundle:
    """Read a bundle; nothing in it is executed unless `trust` is given.

    Args:
        folder: folder of the bundle, RUN/models/MODEL.
        trust: load a model in joblib's format too, which can execute any code.

    Raises:
        DataError: The folder is no bundle, is damaged, has another format, or holds types that no classifier needs.
    """
    from safetensors.numpy import load

    folder = Path(folder)
    try:
        values = _read_json(folder)
        if values["format"] != FORMAT:
            raise DataError(
                f"{folder} has bundle format {values['format']}, expected {FORMAT}. Use the version of ball that wrote "
                "it, or save the model again with `ball fit`."
            )
        facts = BundleFacts.from_json(from_stored(values, folder))
        arrays = load((folder / "reference.safetensors").read_bytes())
        require_ranges(values, facts, arrays)
        bundle = Bundle(
            estimator=read_model(folder, facts.model_file, facts.estimator_classes, trust),
            facts=facts,
            train=arrays["train"].astype(np.float32),
            scores=arrays["scores"],
            distances=arrays["distances"],
            score_class=arrays.get("score_class", np.empty(0, dtype=np.int64)),
        )
        if len(bundle.train) != len(facts.train_path) or not len(bundle.scores) == len(bundle.distances) > 0:
            raise ValueError("reference.safetensors and bundle.json belong to different images")
        require_unchanged(folder)
        if bundle.mondrian and len(bundle.score_class) != len(bundle.scores):
            raise ValueError("reference.safetensors names no class of its scores")
    except (BallError, ImportError):
        raise
    except Exception as error:  # each format raises its own errors for a truncated file
        first = next(iter(str(error).splitlines()), "")
        raise DataError(
            f"{folder} is a damaged bundle ({type(error).__name__}: {first}). Copy it again from its source, or save "
            "the model again with `ball fit`."
        ) from error
    return bundle


def saved_notes(folder: Path | str) -> list[str]:
    """Notes for the user of a bundle; empty in bundles of earlier versions.

    Raises:
        DataError: The folder is no bundle.
    """
    return list(_read_json(Path(folder)).get("notes", ()))


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} is not a bundle ({type(error).__name__}: {error}). Expected a folder RUN/models/MODEL, which "
            "`ball fit` writes when it saves a model."
        ) from error
