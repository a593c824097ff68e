"""A comparison, its measurement, and the files of its run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.cache.places import place_beside
from ball_features.config import FitConfig
from ball_features.config.paths import is_address, is_copy, without_places
from ball_features.config.toml import FILE, Repeat
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import Split
from ball_features.dataset.units import merge_units
from ball_features.evaluation.batch_average import compat_rows
from ball_features.evaluation.elsewhere_rows import DistanceRow, SiteRow
from ball_features.evaluation.left_out import group_rows
from ball_features.evaluation.measure import measure, patient_answers
from ball_features.evaluation.patients import patient_columns, patient_rows
from ball_features.evaluation.protocols import ModelResult, fit_notes, require_fitted
from ball_features.evaluation.results import Measurement, ModelRow
from ball_features.evaluation.rows import CompatRow, GroupRow, write_rows
from ball_features.files import escaped_controls, write_csv, write_json
from ball_features.reporting.patient_table import patient_notes, patient_table
from ball_features.reporting.provenance import provenance
from ball_features.reporting.tables import interval_table, markdown
from ball_features.reporting.words import caption_of, choice_note, left_out_note, title_of
from ball_features.runs.elsewhere import distance_rows, site_rows

__all__ = ["Comparison", "RunContents", "failures", "measure_comparison", "prediction_rows", "split_rows"]

_OWN = "Note: "  # what the user has written stays as it is

_CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models fitted on the splits of a cache, before they are measured.

    Attributes:
        cache: the images, their labels and origin.
        config: the configuration.
        splits: the splits.
        results: a result a model.
        grouping: columns of the groups file, or None.
        source: path of the cache, or paths of several.
        repeat: inputs and settings that repeat the run.
        folder: folder that the run will be written to.
        subject: the data in a few words, for the title.
        notes: notes for the reader.
        start: `time.perf_counter()` at the start of the work.
    """

    cache: Cache
    config: FitConfig
    splits: Sequence[Split]
    results: Sequence[ModelResult]
    grouping: Grouping | None
    source: str | list[str]
    repeat: Repeat
    folder: Path
    subject: str
    notes: Sequence[str]
    start: float

    @cached_property
    def copies(self) -> np.ndarray:
        """Number of the set of byte-identical copies that an image belongs to, int (images,)."""
        return merge_units(self.cache.sha256)

    @cached_property
    def units(self) -> np.ndarray:
        """Unit of each image, int (images,): images that count once in intervals and tests."""
        return self.copies if self.grouping is None else self.grouping.units(self.config.protocol, self.cache.sha256)

    @property
    def patient(self) -> np.ndarray | None:
        """Patient of each image, str (images,), "" where unknown; None where the data name none."""
        own = None if self.grouping is None else self.grouping.patient
        return own if own is not None else getattr(self.cache, "columns", {}).get("patient")

    @property
    def site(self) -> np.ndarray | None:
        """Site of each image, str (images,), "" where unknown; None where the data name none."""
        own = None if self.grouping is None else self.grouping.site
        return own if own is not None else getattr(self.cache, "columns", {}).get("site")

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of probabilities."""
        return sorted(set(self.cache.label.tolist()))


@dataclass(frozen=True, eq=False)
class RunContents:
    """A measured comparison: everything that the files of a run hold.

    Attributes:
        comparison: the comparison.
        measurement: the comparison table with its details.
        groups: a row a model and group left out; empty under other protocols.
        compat: a row a model in the student report's arithmetic, where that was asked for.
        sites: a row a view: what it tells of the site; empty where the data name fewer than two.
        distances: a row a model and range of distance to the training images; empty unless groups are left out.
        title: the protocol in a line.
        caption: explanation of intervals and marks.
        details: contents of `run.json`.
    """

    comparison: Comparison
    measurement: Measurement
    groups: list[GroupRow]
    compat: list[CompatRow]
    sites: list[SiteRow]
    distances: list[DistanceRow]
    title: str
    caption: str
    details: dict[str, Any]

    @property
    def models(self) -> list[ModelRow]:
        """Rows of the comparison table."""
        return self.measurement.models

    def write(self, folder: Path) -> None:
        """Write every file of the run but its page and its bundles."""
        own = self.comparison
        write_json(folder / "run.json", self.details)
        (folder / FILE).write_text(own.repeat.text(), encoding="utf-8")
        write_json(folder / "metrics.json", self.measurement)
        columns = (*ModelRow.columns(), *(["fitted_on"] if any(row.fitted_on for row in self.models) else []))
        write_csv(folder / "metrics.csv", columns, ([row[name] for name in columns] for row in self.models))
        header = ("path", "label", "group", "repeat", "split", "fold", "unit")
        group = own.units if own.grouping is None else own.grouping.group
        write_csv(folder / "splits.csv", header, split_rows(own.cache, own.splits, group, own.units))
        header = ("model", "repeat", "fold", "path", "label", "predicted", *(f"p_{name}" for name in own.classes))
        write_csv(folder / "predictions.csv", header, prediction_rows(own.cache, own.results, own.classes))
        write_csv(folder / "curves.csv", ("model", "repeat", "epoch", *_CURVES, "fold"), _curve_rows(own.results))
        intervals = _interval_rows(self.models)
        write_csv(folder / "intervals.csv", ("model", "metric", "value", "low", "high"), intervals)
        text = markdown(self.models, self.title, self.caption) + "\n" + interval_table(self.measurement)
        text += patient_table(self.measurement.patients)
        (folder / "table.md").write_text(escaped_controls(text, kept="\n"), encoding="utf-8")
        if own.patient is not None:
            write_csv(folder / "patients.csv", patient_columns(own.classes), _patient_rows(own, own.patient))
        tables = {"groups": self.groups, "compat": self.compat, "sites": self.sites, "distances": self.distances}
        for name, rows in tables.items():
            if rows:
                write_rows(folder / f"{name}.csv", rows)
        _save_heads(folder / "models", own)


def measure_comparison(comparison: Comparison) -> RunContents:
    """Measure a comparison.

    Raises:
        DataError: no model could be fitted.
    """
    own, grouping = comparison, comparison.grouping
    require_fitted(own.results)
    notes = [note if note.startswith(_OWN) else without_places(note) for note in own.notes] + fit_notes(own.results)
    notes += [
        f"{item.spec.name} {'failed' if item.traceback else 'was not fitted'} and is not in the table: {item.failure}"
        for item in own.results
        if item.failure
    ]
    measurement = measure(own.cache, own.results, own.units, own.patient)
    notes += patient_notes(measurement.patients)
    notes += choice_note(measurement.best_of)
    alike = own.copies if grouping is None else merge_units(own.cache.sha256, grouping.together)
    title = title_of(own.subject, own.config, grouping, own.splits)
    caption = caption_of(own.config, grouping, own.splits, own.cache.label)
    caption += left_out_note({item.spec.name: item.failure for item in own.results if item.failure})
    details = {"title": title, "caption": caption, "notes": notes, "failures": failures(own.results)}
    source = own.source if isinstance(own.source, str) and not is_address(own.source) else None
    if source is not None and is_copy(Path(source)) == is_copy(own.folder):  # for a report from another folder
        details |= {"cache_from_run": place_beside(source, own.folder)}
    details |= provenance(
        own.cache,
        own.config,
        source=own.source,
        start=own.start,
        repeats=[split.repeat for split in own.splits],
        again=own.repeat.command(own.folder),
        groups_sha256=None if grouping is None else grouping.sha256,
    )
    return RunContents(
        comparison=own,
        measurement=measurement,
        groups=group_rows(own.cache, own.results, alike),
        compat=compat_rows(own.cache, own.results) if own.config.compat_batch_metrics else [],
        sites=site_rows(own.cache, own.config, own.results, own.site, alike),
        distances=distance_rows(own.cache, own.config, own.results, alike),
        title=title,
        caption=caption,
        details=details,
    )


# Folders of files in a traceback, which would name a user; the last one stays.
_FOLDERS = re.compile(r'File "[^"]*[/\\](?=[^"/\\]+[/\\][^"/\\]+")')


def failures(results: Sequence[ModelResult]) -> list[dict[str, str]]:
    """List the models that failed, with reason and traceback, for `run.json`."""
    return [
        {"model": result.spec.name, "failure": result.failure, "traceback": _FOLDERS.sub('File "', result.traceback)}
        for result in results
        if result.failure
    ]


def split_rows(
    cache: Cache, splits: Sequence[Split], group: np.ndarray, units: np.ndarray
) -> Iterable[Sequence[object]]:
    """Yield the rows of `splits.csv`: path, label, group, repeat, split, fold, unit.

    Args:
        cache: the images.
        splits: the splits.
        group: group of each image, (images,).
        units: int (images,); images of one unit count once in intervals and tests.
    """
    for split in splits:
        for part in ("train", "val", "test"):
            for row in getattr(split, part):
                yield cache.path[row], cache.label[row], group[row], split.repeat, part, split.fold, units[row]


def prediction_rows(cache: Cache, results: Sequence[ModelResult], classes: Sequence[str]) -> Iterable[Sequence[object]]:
    """Yield the rows of `predictions.csv`: model, repeat, fold, path, label, predicted, the probability of each class.

    Args:
        cache: the images.
        results: a result a model.
        classes: names of the classes, in the order of probabilities.
    """
    for result in results:
        for item in result.fitted:
            predicted = item.probability.argmax(1)
            for number, row in enumerate(item.split.test):
                own = (result.spec.name, item.split.repeat, item.split.fold, cache.path[row], cache.label[row])
                yield *own, classes[predicted[number]], *item.probability[number].tolist()


def _interval_rows(models: Sequence[ModelRow]) -> Iterable[Sequence[object]]:
    for row in models:
        for name, (low, high) in row.intervals.items():
            yield row.model, name, row.values[name], low, high


def _patient_rows(comparison: Comparison, patient: np.ndarray) -> Iterable[Sequence[object]]:
    codes = np.unique(comparison.cache.label, return_inverse=True)[1]
    for result in comparison.results:
        if result.fitted:
            answers = patient_answers(result, codes, patient)
            yield from patient_rows(result.spec.name, answers, comparison.classes)


def _curve_rows(results: Sequence[ModelResult]) -> Iterable[Sequence[object]]:
    for result in results:
        for item in result.fitted:
            if not item.curves:
                continue
            for epoch in range(len(item.curves[_CURVES[0]])):
                values = (float(item.curves[name][epoch]) for name in _CURVES)
                yield result.spec.name, item.split.repeat, epoch + 1, *values, item.split.fold


def _save_heads(folder: Path, comparison: Comparison) -> None:
    """Write the heads of the first split: weights as safetensors, and a description beside them as JSON."""
    from safetensors.numpy import save

    folder.mkdir()
    for result in comparison.results:
        for item in result.fitted:
            if item.estimator is None or result.spec.kind != "head":
                continue
            name = result.spec.name
            state = {key: np.ascontiguousarray(v) for key, v in item.estimator.state_.items()}
            (folder / f"{name}.safetensors").write_bytes(save(state))  # `save_file` lets only the owner read it
            facts = {
                "model": name,
                "repeat": item.split.repeat,
                "fold": item.split.fold,
                "classes": [comparison.classes[code] for code in item.estimator.classes_],
                "parameters": item.estimator.get_params(),
                "best_epoch": item.best_epoch + 1,
                "cache_fingerprint": comparison.cache.fingerprint,
            }
            write_json(folder / f"{name}.json", facts)
