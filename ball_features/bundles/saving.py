"""Saving a fitted model as a bundle: calibration, thresholds, figures on its test images, and its files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features import __version__
from ball_features.bundles.bundle import COVERAGE, Bundle
from ball_features.bundles.calibration import (
    fit_temperature,
    mean_probability,
    neighbour_distance,
    tempered,
    unit_mean,
)
from ball_features.bundles.facts import BundleFacts, BundleFigures, SetFigures
from ball_features.bundles.formats import write_model
from ball_features.evaluation.metrics import calibration_error, log_losses
from ball_features.evaluation.views import model_views
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.models.recipe_choice import RecipeChoice
from ball_features.models.registry import MODELS

if TYPE_CHECKING:
    from ball_features.cache import Cache
    from ball_features.config import FitConfig
    from ball_features.evaluation.fit_split import Fitted

__all__ = ["LabelledEmbeddings", "bundle_fitted", "measure_bundle", "write_bundle"]

_MEASURED = (0.9, COVERAGE, 0.99)


@dataclass(frozen=True, eq=False)
class LabelledEmbeddings:
    """Embeddings of images whose classes are known.

    Attributes:
        X: embeddings of the tested views, float (images, views, dim).
        truth: class numbers, int (images,).
    """

    X: np.ndarray = field(default_factory=lambda: np.empty((0, 1, 0)))
    truth: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))


def write_bundle(
    folder: Path,
    estimator: Any,
    facts: BundleFacts,
    *,
    train: np.ndarray,
    validation: LabelledEmbeddings,
    test: LabelledEmbeddings | None = None,
) -> None:
    """Calibrate a fitted model and write its bundle.

    Args:
        folder: folder to make.
        estimator: classifier that was fitted on class numbers.
        facts: model, preprocessing, origin and notes; calibration, figures and further notes are added.
        train: embeddings of the training images, float (train, views, dim).
        validation: images that set the temperature and the thresholds.
        test: images that took no part; what the bundle does on them is noted in it.

    Raises:
        ConfigError: The model cannot be written.
        FileExistsError: The folder exists.
    """
    from safetensors.numpy import save

    folder.mkdir(parents=True)
    truth = validation.truth
    raw = mean_probability(estimator, validation.X, len(facts.classes))
    temperature = fit_temperature(raw, truth)
    scores = 1 - tempered(raw, temperature)[np.arange(len(truth)), truth]
    reference = unit_mean(train).astype(np.float16)  # distances are to what will be read back
    distances, _ = neighbour_distance(validation.X, reference.astype(np.float32))
    known = tuple(int(code) for code in np.asarray(estimator.classes_))
    bundle = Bundle(
        estimator=estimator,
        facts=replace(facts, temperature=temperature, estimator_classes=known),
        train=reference.astype(np.float32),
        scores=np.sort(scores),
        distances=np.sort(distances),
    )
    arrays = {"train": reference, "scores": bundle.scores, "distances": bundle.distances}
    # Not `save_file`, which makes files that only their owner may read.
    (folder / "reference.safetensors").write_bytes(save(arrays))
    file_format = MODELS[facts.model].file_format if facts.model in MODELS else "skops"
    own = replace(
        bundle.facts,
        model_file=write_model(folder, estimator, file_format),
        notes=(*facts.notes, *bundle.notes(COVERAGE)),
        test=measure_bundle(bundle, test) if test is not None and len(test.X) else None,
    )
    (folder / "bundle.json").write_text(json.dumps(own.to_json(), indent=1) + "\n", encoding="utf-8")


def measure_bundle(bundle: Bundle, test: LabelledEmbeddings) -> BundleFigures:
    """Measure a bundle on images that took no part in it.

    Args:
        bundle: bundle to measure.
        test: images and their classes.
    """
    X, truth = test.X, test.truth
    raw = mean_probability(bundle.estimator, X, len(bundle.classes))
    probability = bundle.probability(X)
    rows = []
    for coverage in _MEASURED:
        inside = bundle.sets(probability, coverage)
        size = inside.sum(1)
        covered = float(inside[np.arange(len(truth)), truth].mean())
        rows.append(SetFigures(coverage, covered, float(size.mean()), float((size == 1).mean())))
    return BundleFigures(
        images=len(truth),
        accuracy=float((probability.argmax(1) == truth).mean()),
        log_loss=float(log_losses(truth, probability).mean()),
        ece=calibration_error(truth, probability),
        uncalibrated_log_loss=float(log_losses(truth, raw).mean()),
        uncalibrated_ece=calibration_error(truth, raw),
        sets=tuple(rows),
        unusual=float(bundle.unusual(X, probability).mean()),
    )


def bundle_fitted(folder: Path, cache: Cache, config: FitConfig, fitted: Fitted, name: str) -> None:
    """Write the bundle of a model that was fitted on the first split, whose validation images calibrate it.

    Args:
        folder: folder of the run's models; the bundle becomes the folder `name` in it.
        cache: cache that the model was fitted on.
        config: settings of the run.
        fitted: fitted model with its estimator.
        name: name of the model.
    """
    split = fitted.split
    classes, codes = np.unique(cache.label, return_inverse=True)
    views = list(model_views(MODELS[name], cache, config).test)
    estimator = fitted.estimator
    if isinstance(estimator, RecipeChoice):  # a bundle makes the views that it needs
        used, estimator = estimator.compact()
        views = [views[position] for position in used]
    joined = len(cache.channels_used) if cache.combine == "concat" else 1
    preprocessing = Preprocessing.from_attributes(cache.attributes, dim=cache.embeddings.shape[2] // joined)
    note = (
        f"The bundle is the first split's model, fitted on {len(split.train)} of {len(cache.path)} images: "
        f"{len(split.val)} others calibrate it and {len(split.test)} test it."
    )
    if split.name:
        note += f" It has seen nothing of {split.name}, the first group left out."
    facts = BundleFacts(
        model=name,
        classes=tuple(str(item) for item in classes),
        preprocessing=preprocessing.select(views),
        train_path=tuple(str(path) for path in cache.path[split.train]),
        cache_fingerprint=cache.fingerprint,
        protocol=config.protocol,
        left_out=split.name,
        train_images=len(split.train),
        validation_images=len(split.val),
        ball_version=__version__,
        notes=(note,),
    )
    write_bundle(
        folder / name,
        estimator,
        facts,
        train=cache.embeddings[split.train][:, views],
        validation=LabelledEmbeddings(cache.embeddings[split.val][:, views], codes[split.val]),
        test=LabelledEmbeddings(cache.embeddings[split.test][:, views], codes[split.test]),
    )
