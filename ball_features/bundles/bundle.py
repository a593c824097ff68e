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
from ball_features.bundles.calibration import (
    conformal_threshold,
    fit_temperature,
    mean_probability,
    neighbour_distance,
    outlier_threshold,
    set_note,
    tempered,
    unit_mean,
    unusual_note,
)
from ball_features.bundles.formats import read_model, write_model
from ball_features.errors import BallError, DataError
from ball_features.evaluation.metrics import calibration_error, log_losses
from ball_features.evaluation.views import model_views
from ball_features.models.registry import MODELS

if TYPE_CHECKING:
    from ball_features.cache import Cache
    from ball_features.config import FitConfig
    from ball_features.evaluation.fit_split import Fitted

__all__ = [
    "COVERAGE",
    "FORMAT",
    "Bundle",
    "bundle_fitted",
    "measure_bundle",
    "read_bundle",
    "saved_notes",
    "write_bundle",
]

FORMAT = 1
COVERAGE = 0.95  # of prediction sets, where nothing is said
_MEASURED = (0.9, COVERAGE, 0.99)
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


@dataclass(frozen=True, eq=False)  # arrays have no single truth to compare or hash by
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
        return outlier_threshold(self.distances, _UNUSUAL_SHARE)[0]

    @property
    def unusual_share(self) -> float:
        """Share of images like the validation images that lies further out all the same, at most."""
        return outlier_threshold(self.distances, _UNUSUAL_SHARE)[1]

    def threshold(self, coverage: float) -> float:
        """1 - p of a class up to which it belongs to the set of this coverage; 1 where validation is too small."""
        return min(conformal_threshold(self.scores, coverage), 1.0)

    def notes(self, coverage: float) -> list[str]:
        """What a reader of sets at this coverage, and of the flag for unusual images, must know."""
        notes = (set_note(self.scores, coverage), unusual_note(self.distances, _UNUSUAL_SHARE))
        return [note for note in notes if note]

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
    test: np.ndarray | None = None,
    test_truth: np.ndarray | None = None,
    notes: Sequence[str] = (),
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
        test: float (test, views, dim), images that took no part: what the bundle does on them is noted in it.
        test_truth: int (test,), class numbers.
        notes: What its user should know; what follows from few validation images is added.
    """
    from safetensors.numpy import save

    folder.mkdir(parents=True)
    raw = mean_probability(estimator, validation, len(classes))
    temperature = fit_temperature(raw, truth)
    scores = 1 - tempered(raw, temperature)[np.arange(len(truth)), truth]
    reference = unit_mean(train).astype(np.float16)  # distances are to what will be read back
    distances, _ = neighbour_distance(validation, reference.astype(np.float32))
    own = facts | {
        "format": FORMAT,
        "model": name,
        "classes": list(classes),
        "estimator_classes": np.asarray(estimator.classes_).tolist(),
        "temperature": temperature,
    }
    bundle = Bundle(
        estimator=estimator,
        classes=tuple(classes),
        facts=own,
        train=reference.astype(np.float32),
        train_path=tuple(train_path),
        scores=np.sort(scores),
        distances=np.sort(distances),
    )
    arrays = {"train": reference, "scores": bundle.scores, "distances": bundle.distances}
    # Not `save_file`, whose files only their owner may read.
    (folder / "reference.safetensors").write_bytes(save(arrays))
    own["model_file"] = write_model(folder, estimator, MODELS[name].file_format if name in MODELS else "skops")
    own["notes"] = [*notes, *bundle.notes(COVERAGE)]
    if test is not None and test_truth is not None and len(test):
        own["test"] = measure_bundle(bundle, test, test_truth)
    own["train_path"] = list(train_path)
    (folder / "bundle.json").write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")


def measure_bundle(bundle: Bundle, X: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """What a bundle does on images whose classes are known: its figures, its sets, its flags.

    Args:
        bundle: To measure.
        X: float (images, views, dim).
        truth: int (images,), class numbers.

    Returns:
        Shares of the images but for their count, the log losses and the mean sizes; "sets" has a row a coverage.
    """
    raw = mean_probability(bundle.estimator, X, len(bundle.classes))
    probability = bundle.probability(X)
    rows = []
    for coverage in _MEASURED:
        inside = bundle.sets(probability, coverage)
        size = inside.sum(1)
        covered = float(inside[np.arange(len(truth)), truth].mean())
        rows.append(
            {"coverage": coverage, "covered": covered, "size": float(size.mean()), "single": float((size == 1).mean())}
        )
    return {
        "images": len(truth),
        "accuracy": float((probability.argmax(1) == truth).mean()),
        "log_loss": float(log_losses(truth, probability).mean()),
        "ece": calibration_error(truth, probability),
        "uncalibrated_log_loss": float(log_losses(truth, raw).mean()),
        "uncalibrated_ece": calibration_error(truth, raw),
        "sets": rows,
        "unusual": float((bundle.distance(X)[0] > bundle.unusual_from).mean()),
    }


def bundle_fitted(folder: Path, cache: Cache, config: FitConfig, fitted: Fitted, name: str) -> None:
    """Write the bundle of a model fitted by `fit`: that of the first split, which its validation images calibrate.

    Args:
        folder: Of the run's models; the bundle is the folder `name` in it.
        cache: That the model was fitted on.
        config: Of the run.
        fitted: With its estimator.
        name: Of the model.
    """
    split = fitted.split
    classes, codes = np.unique(cache.label, return_inverse=True)
    views = list(model_views(MODELS[name], cache, config).test)
    own = cache.attributes
    facts = {key: own[key] for key in _FROM_CACHE if key in own}
    facts |= {
        "views": views,
        "view_seed": int(own["seed"]) if len(cache.view) > 1 else 0,
        "cache_fingerprint": own["fingerprint"],
        "protocol": config.protocol,
        "left_out": split.name,
        "train_images": len(split.train),
        "validation_images": len(split.val),
        "ball_version": __version__,
    }
    note = (
        f"The bundle is the first split's model, fitted on {len(split.train)} of {len(cache.path)} images: "
        f"{len(split.val)} others calibrate it and {len(split.test)} test it."
    )
    if split.name:
        note += f" It has seen nothing of {split.name}, the first group left out."
    write_bundle(
        folder / name,
        name=name,
        estimator=fitted.estimator,
        classes=[str(item) for item in classes],
        train=cache.embeddings[split.train][:, views],
        train_path=[str(path) for path in cache.path[split.train]],
        validation=cache.embeddings[split.val][:, views],
        truth=codes[split.val],
        facts=facts,
        test=cache.embeddings[split.test][:, views],
        test_truth=codes[split.test],
        notes=[note],
    )


def read_bundle(folder: Path | str, *, trust: bool = False) -> Bundle:
    """Read a bundle; nothing in it is executed.

    Args:
        folder: RUN/models/MODEL.
        trust: Load a model in joblib's format too, which can execute anything.

    Raises:
        DataError: No bundle, a damaged one, of another format, or with types that a classifier has no need of.
    """
    from safetensors.numpy import load

    folder = Path(folder)
    try:
        facts = _read_facts(folder)
        if facts["format"] != FORMAT:
            raise DataError(f"{folder} has bundle format {facts['format']}, expected {FORMAT}. Make it again.")
        arrays = load((folder / "reference.safetensors").read_bytes())
        bundle = Bundle(
            estimator=read_model(folder, facts["model_file"], facts["estimator_classes"], trust),
            classes=tuple(facts["classes"]),
            facts=facts,
            train=arrays["train"].astype(np.float32),
            train_path=tuple(facts["train_path"]),
            scores=arrays["scores"],
            distances=arrays["distances"],
        )
        if len(bundle.train) != len(bundle.train_path) or not len(bundle.scores) == len(bundle.distances) > 0:
            raise ValueError("reference.safetensors and bundle.json are of other images")
    except (BallError, ImportError):
        raise
    except Exception as error:  # each format has its own kinds for a file that is cut short
        first = next(iter(str(error).splitlines()), "")
        raise DataError(
            f"{folder} is a damaged bundle ({type(error).__name__}: {first}). Copy it again from its maker, or make it "
            "again: ball fit CACHE --save MODEL"
        ) from error
    return bundle


def saved_notes(folder: Path | str) -> list[str]:
    """What a bundle's user should know, as noted when it was made; nothing in bundles of earlier versions.

    Raises:
        DataError: No bundle.
    """
    return list(_read_facts(Path(folder)).get("notes", ()))


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} is not a bundle ({type(error).__name__}: {error}). Expected a folder made by "
            "`ball fit --save MODEL`: RUN/models/MODEL."
        ) from error
