"""`report.html`: one file that opens offline, with a run's table, figures, errors and provenance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.cache import Cache
from ball_features.evaluation.metrics import METRICS, calibration_error
from ball_features.reporting.charts import Chart
from ball_features.reporting.figures import (
    LEAST_BIN,
    Heat,
    heat,
    lines,
    recalls,
    reliability,
    reliability_points,
    roc_points,
)
from ball_features.reporting.image_lists import ImageLists, image_lists
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails, write_page
from ball_features.reporting.provenance import Provenance, provenance_block, require_cache_of
from ball_features.reporting.stored_run import Model, StoredPredictions, StoredRun, read_stored_run, read_table
from ball_features.reporting.tables import SAME_MARK, few_units_note

__all__ = ["RunSection", "run_section", "write_report"]

_FIGURES = 3  # models that get curves: the head, and the first of the others
_COLUMNS = (*METRICS, "fit_s")
_PERCENT = {name for name, metric in METRICS.items() if metric.percent}


@dataclass(frozen=True, eq=False)
class RunSection:
    """The part of a page about one run; `template` renders it."""

    title: str
    notes: list[str]
    caption: str
    table: Table
    intervals: Table | None
    units_note: str
    groups: Table | None
    group_figures: list[Chart]
    confusions: list[Heat]
    recalls: list[Chart]
    curves: list[Chart]
    training: list[Chart]
    images: ImageLists | None
    provenance: Provenance | None
    template: str = "run_section.html"


def write_report(
    folder: Path, out: Path | None = None, cache: Cache | None = None, thumbnails: Path | None = None
) -> Path:
    """Write the page of a run from the run's own files.

    Args:
        folder: folder that `ball fit` wrote.
        out: file to write; `report.html` in the folder if None.
        cache: cache of the run, for the map of embeddings and the neighbours of errors; both are left out without it.
        thumbnails: folder of the images, to put small pictures of them into the page; none without it.

    Raises:
        CacheError: The cache is not that of the run.
        DataError: The folder holds no run, or the page cannot be written.
    """
    part = run_section(folder, cache, Thumbnails(thumbnails), 0)
    return write_page(out or folder / "report.html", "report.html", part.title, sections=[part], side_by_side=None)


def run_section(folder: Path, cache: Cache | None, pictures: Thumbnails, number: int) -> RunSection:
    """The part of a page about one run; other arguments as `write_report`.

    Args:
        folder: folder that `ball fit` wrote.
        cache: cache of the run, or None.
        pictures: thumbnails of the images.
        number: position of the run on the page.
    """
    run = read_stored_run(folder)
    if cache is not None:
        require_cache_of(run.details, cache)
    first = [model for model in run.models if model.kind == "head"]
    chosen = (first + [model for model in run.models if model.kind == "baseline"])[:_FIGURES] or run.models[:1]
    names = [model.name for model in chosen]
    has_intervals = all("intervals" in model.values for model in run.models)
    title = run.details["title"]
    return RunSection(
        title=title,
        notes=run.details["notes"],
        caption=run.details["caption"],
        table=_table(run.models, title),
        intervals=_intervals(run.models, title) if has_intervals else None,
        units_note=few_units_note(run.units) if has_intervals and run.units else "",
        groups=_groups(folder, title),
        group_figures=_group_figures(folder, names),
        confusions=[
            heat(np.array(model.values["confusion"]), run.classes, model.name)
            for model in run.models
            if model.name in names or model.kind == "shortcut"
        ],
        recalls=[_class_recalls(model) for model in chosen],
        curves=[figure for name in names for figure in _curves(run.predictions[name], run.classes, name)],
        training=_training(run),
        images=image_lists(run, names[0], cache, pictures, f"map{number}") if names else None,
        provenance=provenance_block(run.details),
    )


def _metric(model: Model, key: str) -> Cell:
    value = model.number(key)
    if math.isnan(value):
        return Cell("n/a", -1.0)
    return Cell(f"{100 * value:.2f}" if key in _PERCENT else f"{value:.3f}", value)


def _table(models: Sequence[Model], title: str) -> Table:
    header = ("model", "kind", "accuracy", "95 %", *(key.replace("_", " ") for key in _COLUMNS[1:]))
    rows = []
    for model in models:
        name = f"{model.name} {SAME_MARK}" if model.values.get("ties_best") else model.name
        cells = [Cell(name), Cell(model.kind), _metric(model, "accuracy")]
        cells += [Cell(model.interval, model.number("accuracy_low")), *(_metric(model, key) for key in _COLUMNS[1:])]
        rows.append(Row(tuple(cells), model.kind))
    return Table(header, tuple(rows), f"Comparison: {title}", 2)


def _intervals(models: Sequence[Model], title: str) -> Table:
    """Every metric with its interval."""
    names = list(models[0].values["intervals"]) if models else []

    def cell(model: Model, name: str) -> Cell:
        low, high = (model.values["intervals"][name][end] for end in ("low", "high"))
        if low is None or high is None:
            return Cell("n/a", -1.0)
        factor, form = (100, ".1f") if name in _PERCENT else (1, ".3f")
        return Cell(f"{factor * low:{form}} - {factor * high:{form}}", float(low))

    rows = []
    for model in models:
        chance = float(model.values["mcnemar_p_against_best"])
        cells = (Cell(model.name), *(cell(model, name) for name in names), Cell(f"{chance:.3f}", chance))
        rows.append(Row(cells, model.kind))
    return Table(
        ("model", *(name.replace("_", " ") for name in names), "McNemar p"), tuple(rows), f"Intervals: {title}", 1
    )


def _groups(folder: Path, title: str) -> Table | None:
    rows = []
    for row in read_table(folder / "groups.csv"):
        recall = float(row["recall"])
        interval = f"{100 * float(row['recall_low']):.0f} - {100 * float(row['recall_high']):.0f}"
        cells = [Cell(row["model"]), Cell(row["group"]), Cell(row["taken_for"])]
        cells += [Cell(row["images"], float(row["images"])), Cell(f"{100 * recall:.1f}", recall)]
        cells.append(Cell(interval, float(row["recall_low"])))
        for key in ("benign_malignant", "flip_rate"):
            share = float(row[key]) if row.get(key) else None
            cells.append(Cell("", -1.0) if share is None else Cell(f"{100 * share:.1f}", share))
        rows.append(Row(tuple(cells)))
    header = ("model", "group left out", "wrongly predicted as", "images", "recall", "95 %", "benign or not")
    return Table((*header, "views differ"), tuple(rows), f"Groups left out: {title}", 3) if rows else None


def _group_figures(folder: Path, names: Sequence[str]) -> list[Chart]:
    table = read_table(folder / "groups.csv")
    return [
        recalls(
            [
                (row["group"], float(row["recall"]), float(row["recall_low"]), float(row["recall_high"]))
                for row in table
                if row["model"] == name
            ],
            f"{name}: recall in % of each group left out, with its 95 % interval",
        )
        for name in names
        if table
    ]


def _class_recalls(model: Model) -> Chart:
    values = [
        (name, own["recall"], own["recall_low"], own["recall_high"])
        for name, own in model.values["per_class"].items()
        if own["recall"] is not None
    ]
    return recalls(values, f"{model.name}: recall in %, with its 95 % interval")


def _curves(found: StoredPredictions, classes: Sequence[str], name: str) -> list[Chart]:
    roc = {
        label: roc_points(found.truth == code, found.probability[:, code])
        for code, label in enumerate(classes)
        if 0 < (found.truth == code).sum() < len(found.truth)
    }
    error = calibration_error(found.truth, found.probability)
    return [
        lines(roc, f"{name}: ROC, each class against the rest", "false positives", "true positives", diagonal=True),
        reliability(
            reliability_points(found.truth, found.probability),
            f"{name}: reliability of the predicted class",
            f"ECE {error:.3f} over these bins; discs by images, pale ones of fewer than {LEAST_BIN}",
        ),
    ]


def _training(run: StoredRun) -> list[Chart]:
    figures = []
    for curve in run.curves():
        for kind in ("loss", "accuracy"):
            own = {
                part: np.array([[float(row["epoch"]), float(row[f"{short}_{kind}"])] for row in curve.rows])
                for part, short in (("training", "train"), ("validation", "val"))
            }
            own = {key: value[np.isfinite(value).all(1)] for key, value in own.items()}
            figures.append(lines(own, f"{curve.model}: {kind} of the first split", "epoch", kind))
    return figures
