"""Saving a fitted model as a bundle: calibration, thresholds, figures on its test images, and its files."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.bundles.bundle import UNUSUAL_SHARE, Bundle
from ball_features.bundles.calibration import (
    fit_temperature,
    mean_probability,
    neighbour_distance,
    tempered,
    unit_mean,
)
from ball_features.bundles.facts import BundleFacts, BundleFigures, SetFigures
from ball_features.bundles.formats import write_model
from ball_features.bundles.known_sites import Sites
from ball_features.bundles.left_out_sites import LabelledEmbeddings, score_left_out
from ball_features.bundles.novelty import Novelty
from ball_features.bundles.score_scale import Scale, fit_scale
from ball_features.bundles.sums import write_checksums
from ball_features.cache.places import to_stored
from ball_features.config import COVERAGE
from ball_features.evaluation.intervals import share_interval
from ball_features.evaluation.metrics import calibration_error, log_losses
from ball_features.models.registry import MODELS

__all__ = ["HeldOut", "calibrate", "measure_bundle", "write_bundle"]

_MEASURED = (0.9, COVERAGE, 0.99)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a model says of images that it was not fitted on, for calibration.

    Attributes:
        raw: uncalibrated probabilities, float64 (images, classes).
        truth: class numbers, int (images,).
        distances: distance of each image to the images that its model was fitted on, float64 (images,).
        fold: number of the fold that predicted each image, int (images,).
        novelty: scores of each image by `Measures` of the images that its model was fitted on, float64
            (images, scores); None for a flag by distance alone.
        unit: unit of each image, int (images,), as in `LabelledEmbeddings`.
        groups: groups of the scores, as in `Scale`; None where each is its own.
        elsewhere: the scores by `Measures` of images of other sites, for a site-adapted model; else None.
    """

    raw: np.ndarray
    truth: np.ndarray
    distances: np.ndarray
    fold: np.ndarray
    novelty: np.ndarray | None = None
    unit: np.ndarray | None = None
    groups: np.ndarray | None = None
    elsewhere: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> HeldOut:
        """These images alone; rows is bool (images,)."""
        novelty, unit = (None if part is None else part[rows] for part in (self.novelty, self.unit))
        raw, truth, distances, fold = (own[rows] for own in (self.raw, self.truth, self.distances, self.fold))
        return HeldOut(raw, truth, distances, fold, novelty, unit, self.groups)

    @property
    def scores(self) -> np.ndarray:
        """Scores of the flag for unusual images, float64 (images, scores)."""
        return self.distances[:, None] if self.novelty is None else self.novelty

    @property
    def scale(self) -> Scale:
        """The scale of these scores."""
        return fit_scale(self.scores, self.raw.argmax(1), self.groups)

    @property
    def scale_elsewhere(self) -> Scale | None:
        """The scale for sites that a model is adapted to."""
        return None if self.elsewhere is None else fit_scale(self.elsewhere, self.raw.argmax(1), self.groups)


def write_bundle(
    folder: Path,
    estimator: Any,
    facts: BundleFacts,
    *,
    train: LabelledEmbeddings,
    validation: LabelledEmbeddings | HeldOut,
    test: LabelledEmbeddings | None = None,
    sites: Sites | None = None,
) -> None:
    """Calibrate a fitted model and write its bundle.

    Args:
        folder: folder to make.
        estimator: classifier that was fitted on class numbers.
        facts: model, preprocessing, origin and notes; calibration, figures and further notes are added.
        train: training images.
        validation: images that set the temperature and the thresholds: validation images, or the images of the folds
            with their out-of-fold predictions.
        test: images that took no part; what the bundle does on them is noted in it. Without them, the figures of
            several folds are noted, each calibrated by the others.
        sites: sites of a site-adapted model; then all embeddings are less the offset of their site.

    Raises:
        ConfigError: The model cannot be written.
        FileExistsError: The folder exists.
    """
    from safetensors.numpy import save

    folder.mkdir(parents=True)
    own = list(facts.model_views) or list(range(train.X.shape[1]))
    reference = unit_mean(train.X[:, own]).astype(np.float16)  # distances are to what will be read back
    measures = train.measures()
    if isinstance(validation, LabelledEmbeddings):
        raw = mean_probability(estimator, validation.X[:, own], len(facts.classes))
        distances, _ = neighbour_distance(validation.X[:, own], reference.astype(np.float32))
        fold = np.zeros(len(raw), dtype=int)
        novelty, elsewhere = measures.score(validation.X, validation.histogram), score_left_out(train, validation)
        validation = HeldOut(raw, validation.truth, distances, fold, novelty, validation.unit, elsewhere=elsewhere)
    bundle = calibrate(estimator, facts, reference, validation)
    if validation.novelty is not None:
        validation = replace(validation, groups=measures.groups)
        bundle = replace(bundle, novelty=Novelty(measures, validation.scale, validation.scale_elsewhere))
    arrays = {"train": reference, "scores": bundle.scores, "distances": bundle.distances}
    arrays |= {"score_class": bundle.score_class, "train_class": train.truth.astype(np.int64)}
    arrays |= bundle.novelty.to_arrays() if bundle.novelty else {}
    arrays |= {} if sites is None else sites.to_arrays()
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}  # safetensors ignores strides
    # Not `save_file`, which makes files that only their owner may read.
    (folder / "reference.safetensors").write_bytes(save(arrays))
    figures = None
    if test is not None and len(test.X):
        figures = measure_bundle(bundle, test)
    elif len(np.unique(validation.fold)) > 1:
        figures = _measure_folds(facts, validation)
    file_format = MODELS[facts.model].file_format if facts.model in MODELS else "skops"
    own = replace(
        bundle.facts,
        model_file=write_model(folder, estimator, file_format),
        notes=(*facts.notes, *bundle.notes(COVERAGE)),
        test=figures,
    )
    (folder / "bundle.json").write_text(json.dumps(to_stored(own.to_json(), folder), indent=1) + "\n", encoding="utf-8")
    write_checksums(folder)


def calibrate(estimator: Any, facts: BundleFacts, reference: np.ndarray, seen: HeldOut) -> Bundle:
    """The bundle with temperature and scores of these images."""
    temperature = fit_temperature(seen.raw, seen.truth)
    scores = 1 - tempered(seen.raw, temperature)[np.arange(len(seen.truth)), seen.truth]
    order = np.argsort(scores, kind="stable")
    known = () if estimator is None else tuple(int(code) for code in np.asarray(estimator.classes_))
    return Bundle(
        estimator=estimator,
        facts=replace(facts, temperature=temperature, estimator_classes=known),
        train=reference.astype(np.float32),
        scores=scores[order],
        distances=np.sort(seen.distances),
        score_class=seen.truth[order].astype(np.int64),
    )


def _measure_folds(facts: BundleFacts, seen: HeldOut) -> BundleFigures:
    """Figures of out-of-fold predictions; temperature and thresholds of each fold come from the others."""
    none = np.empty((0, 0), dtype=np.float16)
    raw, truth, probability, inside, unusual, unit = [], [], [], [], [], []
    for fold in np.unique(seen.fold):
        rest = seen.select(seen.fold != fold)
        bundle = calibrate(None, facts, none, rest)
        own = seen.select(seen.fold == fold)
        raw.append(own.raw)
        truth.append(own.truth)
        probability.append(tempered(own.raw, bundle.facts.temperature))
        inside.append(np.stack([bundle.sets(probability[-1], coverage) for coverage in _MEASURED], 1))
        unusual.append(rest.scale.flags(own.scores, own.raw.argmax(1), len(facts.classes), UNUSUAL_SHARE))
        unit += [] if own.unit is None else [own.unit]
    parts = (np.concatenate(part) for part in (truth, raw, probability, inside, unusual))
    return _figures(*parts, unit=np.concatenate(unit) if unit else None)


def _figures(
    truth: np.ndarray,
    raw: np.ndarray,
    probability: np.ndarray,
    inside: np.ndarray,
    unusual: np.ndarray,
    unit: np.ndarray | None,
) -> BundleFigures:
    """Figures of predictions.

    Args:
        truth: class numbers, int (images,).
        raw: probabilities before calibration, float (images, classes).
        probability: calibrated probabilities, float (images, classes).
        inside: sets of each coverage of `_MEASURED`, bool (images, coverages, classes).
        unusual: flags, bool (images,).
        unit: unit of each image, int (images,); None where each is its own.
    """
    unit = np.arange(len(truth)) if unit is None else unit
    hit = probability.argmax(1) == truth
    low, high = share_interval(hit, unit)
    rows = []
    for number, coverage in enumerate(_MEASURED):
        size = inside[:, number].sum(1)
        covered = float(inside[np.arange(len(truth)), number, truth].mean())
        rows.append(SetFigures(coverage, covered, float(size.mean()), float((size == 1).mean())))
    return BundleFigures(
        images=len(truth),
        accuracy=float(hit.mean()),
        log_loss=float(log_losses(truth, probability).mean()),
        ece=calibration_error(truth, probability),
        uncalibrated_log_loss=float(log_losses(truth, raw).mean()),
        uncalibrated_ece=calibration_error(truth, raw),
        sets=tuple(rows),
        unusual=float(unusual.mean()),
        units=len(np.unique(unit)),
        accuracy_low=low,
        accuracy_high=high,
    )


def measure_bundle(bundle: Bundle, test: LabelledEmbeddings) -> BundleFigures:
    """Measure a bundle on images that took no part in it.

    Args:
        bundle: bundle to measure.
        test: images and their classes.
    """
    raw = mean_probability(bundle.estimator, bundle.model_views(test.X), len(bundle.classes))
    probability = bundle.probability(test.X)
    inside = np.stack([bundle.sets(probability, coverage) for coverage in _MEASURED], 1)
    unusual = bundle.unusual(test.X, probability, test.histogram)
    return _figures(test.truth, raw, probability, inside, unusual, test.unit)
