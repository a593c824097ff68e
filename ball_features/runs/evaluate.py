"""`ball evaluate`: a fitted bundle on labelled images of elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ball_features import __version__
from ball_features.bundles.bundle import Bundle, read_bundle
from ball_features.bundles.recalibration import Recalibration, recalibrate
from ball_features.cache import Cache, read_cache
from ball_features.config import COVERAGE, CollectionConfig, EvaluateConfig
from ball_features.config.paths import is_address, named, shown_path, without_places
from ball_features.dataset.remarks import alike_ids_remark
from ball_features.dataset.units import merge_units
from ball_features.evaluation.external import (
    ExternalScores,
    ExternalTests,
    Share,
    difference_interval,
    measure_external,
)
from ball_features.evaluation.intervals import wilson
from ball_features.evaluation.patients import answer_patients, patient_columns, patient_rows
from ball_features.files import write_csv, write_json
from ball_features.outputs import remove_former, require_folder, require_own_files
from ball_features.reporting.evidence import Evidence, ExternalEvidence
from ball_features.reporting.external_page import write_evaluation_page
from ball_features.reporting.external_record import (
    EvaluatedBundle,
    Evaluation,
    LabelCounts,
    Published,
    ScoredImage,
    bundle_digest,
)
from ball_features.reporting.verdict import findings_to_json, verdict
from ball_features.runs.external_images import ExternalImages, predict_cache, predict_folder
from ball_features.runs.external_labels import known_labels

__all__ = ["evaluate", "keep_note"]

_COVERAGES = (0.9, COVERAGE, 0.99)
_PATIENTS = "patients.csv"
_FILES = ("evaluation.json", "verdict.json", "predictions.csv", _PATIENTS, "evaluation.html")
_TOGETHER = ("patient", "group", "series")  # columns whose values no interval takes apart


def evaluate(
    bundle: Path | str | Bundle,
    images: Path | str | Cache,
    config: EvaluateConfig | Mapping[str, Any] | None = None,
    *,
    out: Path | str | None = None,
    collection: CollectionConfig | None = None,
    sheet: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a fitted model on labelled images that took no part in it.

    Args:
        bundle: folder RUN/models/MODEL, or what `read_bundle` gave.
        images: folder, archive or address of images with their classes, or a cache (its path or address, ending in
            .h5, or what `read_cache` gave).
        config: coverage, share for recalibration, weights and device.
        out: folder for `evaluation.json`, `verdict.json`, `predictions.csv` and `evaluation.html`; None writes nothing.
        collection: layout of the folders, and path and columns of a sheet.
        sheet: a pandas or polars data frame, or the path of a sheet.
        progress: called with (images done, images in all).

    Raises:
        DataError: The folder is no bundle, or no image has a label that the bundle knows.
        CacheError: The cache was made with other settings than the bundle's.
        WeightsError: The weights are missing, or not those of the bundle.
    """
    config = EvaluateConfig.of(config)
    loaded = bundle if isinstance(bundle, Bundle) else read_bundle(bundle, trust=config.trust)
    if out is not None:
        require_folder(out)
        given = [*(collection.sheet if collection else ()), sheet, config.weights, images]
        inputs = [Path(one) for one in given if isinstance(one, str | Path) and not is_address(one)]
        kinds = {_PATIENTS: "patients table", "predictions.csv": "evaluated predictions"}
        require_own_files(Path(out), _FILES, "evaluation.json", "evaluation", kinds=kinds, inputs=inputs)
    if isinstance(images, Cache) or str(images).endswith(".h5"):
        cache = images if isinstance(images, Cache) else read_cache(images)
        source = "cache" if isinstance(images, Cache) else shown_path(images)
        found = predict_cache(loaded, cache, source, config, collection=collection, sheet=sheet)
    else:
        found = predict_folder(loaded, images, config, collection=collection, sheet=sheet, progress=progress)
    true, counts = known_labels(found, loaded.classes)
    rows = np.flatnonzero(true >= 0)
    tests = _tests(loaded, found, true, rows, config.coverage)
    scores = measure_external(tests)
    mended = recalibrate(
        tests.truth,
        tests.probability,
        tests.sets[config.coverage],
        tests.unit,
        coverage=config.coverage,
        share=config.recalibrate,
        seed=config.seed,
    )
    published = _published(loaded, scores)
    evidence = _evidence(scores, published, counts, config.coverage)
    evidence = replace(evidence, trained_on=int(found.trained_on[rows].sum()), expected_unusual=loaded.unusual_share)
    result = Evaluation(
        folder=None if out is None else Path(out),
        source=named(found.source),
        created=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        bundle=_about(loaded, bundle),
        classes=loaded.classes,
        coverage=config.coverage,
        counts=counts,
        scores=scores,
        recalibration=mended,
        published=published,
        findings=verdict(Evidence(external=evidence)),
        images=_images(found, true, loaded.classes, rows, mended),
        rejected=[(item.path, item.reason) for item in found.rejected],
        notes=[*map(without_places, found.notes), *_notes(found, counts, mended, config.recalibrate)],
    )
    if result.folder is not None:
        _write(result, tests, result.folder)
    return result


def _column(found: ExternalImages, name: str) -> np.ndarray | None:
    """A column of the images, str (images,); None where it is missing or empty."""
    cells = found.columns.get(name)
    return np.array(cells) if cells is not None and any(cells) else None


def _units(found: ExternalImages) -> np.ndarray:
    """Number of the unit of each image: copies, and images of one patient, group or series, belong together."""
    keys = [np.array(found.sha256)]
    for name in _TOGETHER:
        cells = _column(found, name)
        if cells is not None:
            alone = np.char.add("image ", np.arange(len(cells)).astype(str))
            keys.append(np.where(cells == "", alone, np.char.add("value ", cells)))
    return merge_units(*keys)


def _tests(bundle: Bundle, found: ExternalImages, true: np.ndarray, rows: np.ndarray, coverage: float) -> ExternalTests:
    """The predictions of the images whose label the bundle knows."""
    own = [found.predictions[row] for row in rows]
    probability = np.array([[item.probability[name] for name in bundle.classes] for item in own])
    patient, site = _column(found, "patient"), _column(found, "site")
    return ExternalTests(
        classes=bundle.classes,
        truth=true[rows],
        probability=probability,
        sets={share: bundle.sets(probability, share) for share in sorted({*_COVERAGES, coverage})},
        distance=np.array([item.distance for item in own]),
        unusual=np.array([item.unusual for item in own]),
        unit=_units(found)[rows],
        patient=None if patient is None else patient[rows],
        site=None if site is None else site[rows],
    )


def _published(bundle: Bundle, scores: ExternalScores) -> Published | None:
    """The figures that the bundle was sold with, and the accuracy lost since."""
    sold = bundle.facts.test
    if sold is None:
        return None
    ends = (sold.accuracy_low, sold.accuracy_high)
    if math.isnan(ends[0]):  # a bundle of an earlier version does not say which of its images belong together
        ends = wilson(sold.accuracy, sold.images)
    own = Share(sold.accuracy, *ends, sold.images)
    low, high = scores.intervals["accuracy"]
    here = Share(scores.values["accuracy"], low, high, scores.images)
    facts = bundle.facts
    source = f"its test images, all of {facts.left_out}" if facts.left_out else "the test images of its own split"
    if facts.final:
        source = f"its own images, in {facts.folds} folds, by models that had not seen them"
    difference = difference_interval(own, here)
    return Published(own, source, own.value - here.value, *difference, ece=sold.ece, unusual=sold.unusual)


def _evidence(
    scores: ExternalScores, published: Published | None, counts: LabelCounts, coverage: float
) -> ExternalEvidence:
    sets = next(row for row in scores.sets if row.coverage == coverage)
    low, high = scores.intervals["accuracy"]
    return ExternalEvidence(
        images=scores.images,
        accuracy=scores.values["accuracy"],
        low=low,
        high=high,
        sold=math.nan if published is None else published.accuracy.value,
        drop_low=math.nan if published is None else published.low,
        drop_high=math.nan if published is None else published.high,
        confidence=scores.confidence,
        coverage=coverage,
        covered=sets.covered.value,
        covered_high=sets.covered.high,
        unusual=scores.flagged.value,
        unknown=sum(counts.unknown.values()),
        tested={name: int(own["support"]) for name, own in scores.per_class.items()},
        patients=None if scores.patients is None else scores.patients.patients,
        sites=len(scores.sites) or None,
    )


def _about(bundle: Bundle, given: Path | str | Bundle) -> EvaluatedBundle:
    facts = bundle.facts
    digest = "" if isinstance(given, Bundle) else bundle_digest(Path(given))
    return EvaluatedBundle(
        sha256=digest,
        model=facts.model,
        backbone=facts.preprocessing.backbone.name,
        weights_sha256=facts.preprocessing.weights_sha256,
        cache_fingerprint=facts.cache_fingerprint,
        train_images=facts.train_images,
        ball_version=__version__,
        name="" if isinstance(given, Bundle) else _bundle_name(Path(given)),
    )


def _bundle_name(folder: Path) -> str:
    """RUN/models/MODEL as RUN/MODEL, any other folder by its name."""
    place = folder.resolve()
    return f"{place.parent.parent.name}/{place.name}" if place.parent.name == "models" else place.name


def keep_note(done: Evaluation, note: str) -> Evaluation:
    """The evaluation with the user's note, also in its files, where `ball runs` finds it."""
    noted = replace(done, note=note, notes=[f"Note: {note}", *done.notes])
    if noted.folder is not None:
        write_json(noted.folder / "evaluation.json", noted)
        write_evaluation_page(noted, noted.folder / "evaluation.html")
    return noted


def _images(
    found: ExternalImages, true: np.ndarray, classes: tuple[str, ...], rows: np.ndarray, mended: Recalibration | None
) -> list[ScoredImage]:
    part = dict.fromkeys(range(len(true)), "")
    if mended is not None:
        names = np.where(mended.fitted, "fitted", "tested").tolist()
        part |= dict(zip(rows.tolist(), names, strict=True))
    blank = ("",) * len(true)
    patient, site = found.columns.get("patient", blank), found.columns.get("site", blank)
    return [
        ScoredImage(
            prediction=item,
            label=found.label[row],
            true=classes[int(true[row])] if true[row] >= 0 else "",
            status="scored" if true[row] >= 0 else "unknown label" if found.label[row] else "unlabelled",
            recalibration=part[row],
            patient=patient[row],
            site=site[row],
            trained_on=bool(found.trained_on[row]),
        )
        for row, item in enumerate(found.predictions)
    ]


def _notes(found: ExternalImages, counts: LabelCounts, mended: Recalibration | None, share: float) -> list[str]:
    notes = []
    if counts.matched:
        listed = ", ".join(f"{label} as {name}" for label, name in sorted(counts.matched.items()))
        notes.append(f"Labels were taken as classes of the bundle that read alike: {listed}.")
    if counts.unknown:
        listed = ", ".join(f"{name} {images}" for name, images in counts.unknown.items())
        notes.append(f"Labels that the bundle does not know are not scored: {listed}.")
    if counts.unlabelled:
        notes.append(f"{counts.unlabelled} images without a label were predicted and are not scored.")
    if mended is None and share:
        notes.append("The images are too few, or too much alike, to fit a temperature on some and test it on others.")
    alike = (alike_ids_remark(name, found.columns.get(name, ())) for name in ("patient", "site"))
    return [*notes, *filter(None, alike)]


def _write(result: Evaluation, tests: ExternalTests, folder: Path) -> None:
    write_json(folder / "evaluation.json", result)  # by which the other files are known as ball's own
    write_csv(folder / "predictions.csv", result.columns(), result.rows())
    write_json(folder / "verdict.json", findings_to_json(result.findings))
    if tests.patient is None:
        remove_former(folder / _PATIENTS, "patients table")
    else:
        answers = answer_patients(tests.patient, np.zeros_like(tests.truth), tests.truth, tests.probability)
        rows = patient_rows(result.bundle.model, answers, tests.classes)
        write_csv(folder / _PATIENTS, patient_columns(tests.classes), rows)
    write_evaluation_page(result, folder / "evaluation.html")
