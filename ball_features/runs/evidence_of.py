"""Collect what a verdict rests on from caches, runs, ladders and audits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ball_features.cache import Cache
from ball_features.config import PROTOCOLS, FitConfig
from ball_features.config.paths import shareable
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import MIN_NAMED_TRAIN, given_leaks
from ball_features.evaluation.results import ModelRow
from ball_features.evaluation.rows import LadderRow
from ball_features.extraction.backbones import BACKBONES
from ball_features.extraction.training_sets import TRAINING_SETS, recognise_training_sets
from ball_features.reporting.evidence import (
    DataEvidence,
    Evidence,
    ExtractionEvidence,
    ModelEvidence,
    ProtocolEvidence,
)
from ball_features.runs.checks import image_table
from ball_features.runs.chosen_here import chosen_here
from ball_features.runs.contents import Comparison, RunContents
from ball_features.runs.rungs import Rung
from ball_features.runs.sites import one_class_records

__all__ = ["cache_evidence", "comparison_evidence", "ladder_evidence"]

_UNITS = ("series", "patient", "site", "block")  # columns that the rules know by name
_SURE = 0.8  # mean probability of another class from which a label is doubtful
_MOST_DOUBTFUL = 0.1  # of the tested images; beyond it models are bad, not labels
_LEAST_PATIENTS = 3  # of a class, to train, validate and test on
_LEAST_IMAGES = 20  # a site, on average, from which the class that is most frequent in it is no chance
_NAMES = {"holdout": "random splits", "cv": "random folds", "given": "the given split"}


def comparison_evidence(contents: RunContents) -> Evidence:
    """Collect the evidence of a run of one protocol."""
    own = contents.comparison
    name, unit = protocol_words(own.config, "" if own.grouping is None else own.grouping.column)
    if unit == "image" and own.grouping is not None:
        name, unit = _kept_whole(name, own.grouping)
    tested = _tested_rows(own)
    if own.grouping is not None and _joins_groups(own.config, own.units[tested], own.grouping.group[tested]):
        unit = "patient"
    protocol = ProtocolEvidence(
        name=name,
        unit=unit,
        models=tuple(_model(row) for row in contents.models),
        tested=_tested(own),
        distinct=_distinct_of(own.cache, tested),
        groups=len(np.unique(own.units[tested])),
        adapted=own.grouping is not None and own.grouping.adapted_site is not None,
        cannot_tell=tuple(name for name, record in one_class_records(own.results).items() if not record.tells),
    )
    path = own.source if isinstance(own.source, str) else own.source[0]
    data, extraction = cache_evidence(own.cache, path)
    if own.grouping is not None:
        known = {name: _distinct(getattr(own.grouping, name)) for name in ("patient", "site")}
        data = replace(data, patients=known["patient"] or data.patients, sites=known["site"] or data.sites)
        data = _with_columns(data, own.cache.label, own.grouping)
    if own.config.groups is not None:
        data = replace(data, groups=shareable(own.config.groups))
    chosen = chosen_here(own.cache, [row.model for row in contents.models])
    data = replace(data, doubtful=_doubtful(own), views_chosen_here=chosen)
    if own.config.protocol == "given":
        data = replace(data, leaks=given_leaks(own.splits, image_table(own.cache, own.grouping)))
    return Evidence((protocol,), data, extraction)


def _doubtful(comparison: Comparison) -> tuple[tuple[str, str, str], ...]:
    """Images that all models but the shortcuts give one other class, surely; none where whole groups are left out.

    Where a group is left out, models are wrong of it as a whole, which says nothing of its labels.
    """
    cache = comparison.cache
    results = [result for result in comparison.results if result.fitted and result.spec.kind != "shortcut"]
    results = [result for result in results if result.spec.name != "majority"]
    if len(results) < 2 or PROTOCOLS[comparison.config.protocol].scheme not in ("holdout", "folds"):
        return ()
    classes, codes = np.unique(cache.label, return_inverse=True)
    total = np.zeros((len(results), len(codes), len(classes)))
    for number, result in enumerate(results):
        for item in result.fitted:
            total[number, item.split.test] += item.probability
    tested = total[0].sum(1) > 0
    answer = total.argmax(2)
    mean = total.mean(0) / np.maximum(total.mean(0).sum(1, keepdims=True), 1e-12)
    sure = mean.max(1)
    found = np.flatnonzero(tested & (answer == answer[:1]).all(0) & (answer[0] != codes) & (sure >= _SURE))
    if len(found) > _MOST_DOUBTFUL * tested.sum():
        return ()
    rows = found[np.argsort(-sure[found], kind="stable")]
    return tuple((str(cache.path[row]), str(cache.label[row]), str(classes[answer[0][row]])) for row in rows)


def _kept_whole(name: str, grouping: Grouping) -> tuple[str, str]:
    """Words and unit of a random protocol that divides whole patients, or whole groups of images."""
    if grouping.patient is not None and (grouping.patient != "").all():
        return f"{name} of whole patients", "patient"
    if len(np.unique(grouping.together)) < len(grouping.together):
        return f"{name} of whole groups", "group"
    return name, "image"


def _distinct(values: np.ndarray | None) -> int | None:
    """Number of names in a column, or None where there are none."""
    return None if values is None else len(np.unique(values[values != ""])) or None


def _joins_groups(config: FitConfig, units: np.ndarray, group: np.ndarray) -> bool:
    """Whether intervals rest on patients where groups of images, such as series of a patient, are left out."""
    left_out = PROTOCOLS[config.protocol].scheme == "leave-out"
    return left_out and len(np.unique(units)) < len(np.unique(group))


def protocol_words(config: FitConfig, column: str) -> tuple[str, str]:
    """Words for a protocol that complete "on ...", and what it never divides."""
    if config.protocol in _NAMES:
        return _NAMES[config.protocol], "split" if config.protocol == "given" else "image"
    unit = column if column in _UNITS else "group"
    if config.protocol == "block-cv":
        return "runs of neighbouring files kept together", "block"
    if config.protocol == "patient-cv":
        return "new patients", "patient"
    if config.protocol == "leave-site-out":
        return "sites left out", "site"
    if config.protocol == "leave-group-out":
        return f"{_plural(column)} left out", unit
    return f"{_plural(column)} kept together", unit


def _plural(column: str) -> str:
    return column if column.endswith("s") or not column.isalpha() else f"{column}s"


def _model(row: ModelRow) -> ModelEvidence:
    low, high = row.intervals["accuracy"]
    return ModelEvidence(
        name=row.model,
        kind=row.kind,
        accuracy=row.accuracy,
        low=low,
        high=high,
        balanced=row.values["recall"],
        ece=row.values["ece"],
        ties_best=row.ties_best,
    )


def _tested_rows(comparison: Comparison) -> np.ndarray:
    return np.unique(np.concatenate([split.test for split in comparison.splits]))


def _tested(comparison: Comparison) -> dict[str, int]:
    return dict(sorted(Counter(comparison.cache.label[_tested_rows(comparison)].tolist()).items()))


def _distinct_of(cache: Cache, rows: np.ndarray) -> dict[str, int]:
    """Class -> number of images of these rows that are not byte-identical."""
    pairs = set(zip(cache.label[rows].tolist(), cache.sha256[rows].tolist(), strict=True))
    return dict(sorted(Counter(label for label, _ in pairs).items()))


def _with_columns(data: DataEvidence, label: np.ndarray, grouping: Grouping) -> DataEvidence:
    """Add what patients and sites tell of the class."""
    patient, site = grouping.patient, grouping.site
    names = np.unique(label).tolist()
    fewest = {"group": min(len(np.unique(grouping.together[label == name])) for name in names)}
    few = {} if patient is None else {name: len(_units(patient[label == name])) for name in names}
    if few:
        fewest["patient"] = min(few.values())
    few = {name: count for name, count in few.items() if count < _LEAST_PATIENTS}
    untestable = [unit for unit, cannot in (("patient", bool(few)), ("site", not _testable(label, site))) if cannot]
    accuracy = float("nan")
    if site is not None and (site != "").all() and len(label) >= _LEAST_IMAGES * len(np.unique(site)):
        accuracy = sum(max(Counter(label[site == name].tolist()).values()) for name in np.unique(site)) / len(label)
    return replace(
        data,
        patients=data.patients or _distinct(patient),
        sites=data.sites or _distinct(site),
        site_accuracy=accuracy,
        few_patients=few,
        fewest=fewest,
        untestable=tuple(untestable),
    )


def _testable(label: np.ndarray, site: np.ndarray | None) -> bool:
    """Whether some site can be left out, so that each of its classes keeps enough images; True without sites."""
    if site is None or len(np.unique(site)) < 2:
        return True
    total = Counter(label.tolist())
    own = [Counter(label[site == name].tolist()) for name in np.unique(site)]
    return any(all(total[name] - count >= MIN_NAMED_TRAIN for name, count in there.items()) for there in own)


def _units(patient: np.ndarray) -> list[str]:
    """Patients of these images; an image that names none is one of its own."""
    return [*set(patient[patient != ""].tolist()), *patient[patient == ""].tolist()]


def ladder_evidence(
    rungs: Sequence[Rung],
    rows: Sequence[LadderRow],
    cache: Cache,
    cache_path: str,
    groups: str | None,
    columns: Grouping | None = None,
) -> Evidence:
    """Evidence of a ladder, its rungs from the most lenient to the strictest.

    Args:
        rungs: rungs that were climbed.
        rows: a row a rung and model.
        cache: the images.
        cache_path: path of the cache, for commands.
        groups: path of the groups file, or None.
        columns: patients and sites of the images, or None.
    """
    protocols = []
    for rung in rungs:
        own = sorted((row for row in rows if row.rung == rung.name), key=lambda row: -row.accuracy)
        tested = np.unique(np.concatenate([split.test for split in rung.splits]))
        name, unit = protocol_words(rung.config, rung.column)
        if _joins_groups(rung.config, rung.units[tested], rung.group[tested]):
            unit = "patient"
        if not rung.column and rung.name != "random":
            name, unit = "identical copies kept together", "copy"
        protocols.append(
            ProtocolEvidence(
                name=name,
                unit=unit,
                models=tuple(
                    ModelEvidence(
                        row.model, row.kind, row.accuracy, row.accuracy_low, row.accuracy_high, row.balanced_recall
                    )
                    for row in own
                ),
                tested=dict(sorted(Counter(cache.label[tested].tolist()).items())),
                distinct=_distinct_of(cache, tested),
                groups=len(np.unique(rung.units[tested])),
            )
        )
    data, extraction = cache_evidence(cache, cache_path)
    known = {rung.column: _distinct(rung.group) for rung in rungs if rung.column in ("patient", "site")}
    leaks = next((rung.leaks for rung in rungs if rung.leaks), {})
    data = replace(data, patients=known.get("patient") or data.patients, sites=known.get("site") or data.sites)
    data = replace(data, views_chosen_here=chosen_here(cache, {row.model for row in rows}))
    if columns is not None:
        data = _with_columns(data, cache.label, columns)
    return Evidence(tuple(protocols), replace(data, groups=shareable(groups) or "", leaks=leaks), extraction)


def cache_evidence(cache: Cache, cache_path: str) -> tuple[DataEvidence, ExtractionEvidence]:
    """What a cache says of its images and of its network."""
    labels: dict[str, dict[str, str]] = {}
    for digest, label, path in zip(cache.sha256.tolist(), cache.label.tolist(), cache.path.tolist(), strict=True):
        labels.setdefault(digest, {}).setdefault(label, path)
    conflicts = [tuple(own.values())[:2] for own in labels.values() if len(own) > 1]
    data = DataEvidence(
        images=len(cache.path),
        classes=dict(sorted(Counter(cache.label.tolist()).items())),
        copies=len(cache.path) - len(labels),
        conflicts=len(conflicts),
        conflict_example=conflicts[0] if conflicts else (),
        patients=_distinct(cache.columns.get("patient")),
        sites=_distinct(cache.columns.get("site")),
        cache=shareable(cache_path),
        folder=shareable(str(cache.attributes.get("images", ""))) or "IMAGES",
        sheet=_had_a_sheet(cache),
    )
    record = BACKBONES.get(cache.backbone)
    extraction = ExtractionEvidence(
        backbone=str(cache.attributes.get("backbone", "")),
        random_weights=cache.attributes.get("weights") == "random",
        cosine=float(cache.attributes.get("deviation_cosine", "nan")),
        precision=str(cache.attributes.get("precision", "")),
        trained_on=recognise_training_sets(
            cache.backbone, cache.path.tolist(), cache.columns["site"].tolist() if "site" in cache.columns else ()
        ),
        collections=record.collections if record else 0,
        recognised=tuple(TRAINING_SETS[key].title for key in record.trained_on) if record else (),
    )
    return data, extraction


def _had_a_sheet(cache: Cache) -> bool:
    """Whether something is known of an image that its path does not say."""
    paths = [path.casefold() for path in cache.path.tolist()]
    told = (cache.label, *cache.columns.values())
    return any(str(value).casefold() not in path for values in told for value, path in zip(values, paths, strict=True))
