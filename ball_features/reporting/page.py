"""`report.html`: one file that opens offline, with a run's verdict, figures, table, errors and provenance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ball_features.cache import Cache
from ball_features.evaluation.intervals import Interval
from ball_features.evaluation.metrics import METRICS, Metric, calibration_error
from ball_features.evaluation.results import ModelRow
from ball_features.evaluation.rows import GroupRow
from ball_features.evaluation.stored_results import told_as_damage
from ball_features.reporting.charts import Chart
from ball_features.reporting.dots import model_dots, recalls
from ball_features.reporting.elsewhere_page import ElsewhereSection, elsewhere_section
from ball_features.reporting.figures import (
    LEAST_BIN,
    lines,
    reliability,
    reliability_points,
    roc,
    roc_points,
    roc_says_little,
)
from ball_features.reporting.finding import Finding
from ball_features.reporting.heat import Heat, heat
from ball_features.reporting.image_lists import ImageLists, image_lists
from ball_features.reporting.ladder_page import LadderSection, ladder_section
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails, write_page
from ball_features.reporting.patient_page import PatientSection, patient_section
from ball_features.reporting.provenance import Provenance, provenance_block, require_cache_of
from ball_features.reporting.published import PublishedSection, published_sections
from ball_features.reporting.stored_run import StoredRun, best_of_each_kind, read_stored_run
from ball_features.reporting.tables import ALL_ROWS, FITTED_ON, SAME_MARK, few_units_note
from ball_features.reporting.verdict import read_findings
from ball_features.reporting.words import counted

__all__ = ["RunSection", "run_section", "tell_of_pictures", "write_report"]

_NONE = Cell("n/a", -1.0)
_UNDEFINED: Interval = (float("nan"), float("nan"))


@dataclass(frozen=True, eq=False)
class RunSection:
    """The part of a page about one run; `template` renders it."""

    title: str
    verdict: list[Finding]
    wide: Chart
    narrow: Chart
    ladder: LadderSection | None
    table: Table
    caption: str
    notes: list[str]
    intervals: Table | None
    units_note: str
    groups: Table | None
    group_figures: list[Chart]
    confusions: list[Heat]
    recalls: list[Chart]
    reliability: list[Chart]
    roc: list[Chart]
    roc_left_out: list[str]
    training: list[Chart]
    images: ImageLists | None
    picture_notes: list[str]
    provenance: Provenance | None
    patients: PatientSection | None = None
    published: list[PublishedSection] = field(default_factory=list)
    elsewhere: ElsewhereSection | None = None
    template: str = "run_section.html"


def write_report(
    folder: Path,
    out: Path | None = None,
    cache: Cache | None = None,
    thumbnails: Path | None = None,
    ladder: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Write the page of a run from the run's own files.

    Args:
        folder: folder that `ball fit` wrote.
        out: file to write; `report.html` in the folder if None.
        cache: cache of the run, for the map of embeddings and the neighbours of errors; both are left out without it.
        thumbnails: folder of the images, to put small pictures of them into the page; none without it.
        ladder: folder of a run of the protocol ladder on the same images, which becomes the second figure.
        tell: called with each note on the pictures, which the page has too.

    Raises:
        CacheError: The cache is not that of the run.
        DataError: A folder holds no run or no ladder, or the page cannot be written.
    """
    place = out or folder / "report.html"
    with told_as_damage(folder, *([ladder] if ladder else [])):
        rungs = None if ladder is None else ladder_section(ladder)
        part = run_section(folder, cache, Thumbnails(thumbnails), 0, rungs)
        write_page(place, "report.html", part.title, named=out is not None, sections=[part], side_by_side=None)
    tell_of_pictures([part], tell)
    return place


def tell_of_pictures(sections: Sequence[object], tell: Callable[[str], None] | None) -> None:
    """Tell the notes on the pictures of sections, each once."""
    notes = [note for part in sections if isinstance(part, RunSection) for note in part.picture_notes]
    if tell is not None:
        for note in dict.fromkeys(notes):
            tell(note)


def run_section(
    folder: Path, cache: Cache | None, pictures: Thumbnails, number: int, ladder: LadderSection | None = None
) -> RunSection:
    """The part of a page about one run; other arguments as `write_report`.

    Args:
        folder: folder that `ball fit` wrote.
        cache: cache of the run, or None.
        pictures: thumbnails of the images.
        number: position of the run on the page.
        ladder: the ladder on the same images, or None.
    """
    run = read_stored_run(folder)
    if cache is not None:
        require_cache_of(run.details, cache)
    title, models = run.details["title"], run.models
    chosen = best_of_each_kind(models)
    networks = [row for row in chosen if row.kind != "shortcut"] or chosen
    head = next((row for row in networks if row.kind == "head"), networks[0] if networks else None)
    curves, left_out = _roc(run, networks)
    patients = patient_section(folder, run.measurement.patients, networks[0].model if networks else "", title)
    said = () if patients is None else patients.notes
    pictures = pictures.of(cache)
    images = None if head is None else image_lists(run, head.model, cache, pictures, f"map{number}")
    has_intervals = all("f1" in row.intervals for row in models)  # runs before 0.2 have that of the accuracy only
    return RunSection(
        title=title,
        verdict=read_findings(folder),
        wide=model_dots(models),
        narrow=model_dots(models, brief=True),
        ladder=ladder,
        table=_table(models, title),
        caption=run.details["caption"],
        notes=[note for note in run.details["notes"] if note not in said],
        intervals=_intervals(models, title) if has_intervals else None,
        units_note=few_units_note(run.measurement.units) if has_intervals and run.measurement.units else "",
        groups=_groups(run.groups, title),
        group_figures=_group_figures(run.groups, networks),
        confusions=[_confusion(run, row) for row in chosen],
        recalls=[_class_recalls(row) for row in chosen],
        reliability=[_reliability(run, row) for row in networks],
        roc=curves,
        roc_left_out=left_out,
        training=_training(run),
        images=images,
        picture_notes=pictures.notes(),
        provenance=provenance_block(run.details),
        patients=patients,
        published=published_sections(run),
        elsewhere=elsewhere_section(folder, networks[0].model if networks else ""),
    )


def _heading(metric: Metric) -> str:
    """The name in words; an abbreviation such as AUROC stays one."""
    return metric.heading if metric.heading.isupper() else metric.title


def _metric(row: ModelRow, name: str) -> Cell:
    value = row.values[name]
    return Cell(METRICS[name].text(value, 2 if METRICS[name].percent else 3), value) if value == value else _NONE


def _table(models: Sequence[ModelRow], title: str) -> Table:
    others = [name for name in METRICS if name != "accuracy"]
    past = any(row.fitted_on for row in models)  # rows that exceeded the memory
    rows = []
    for row in models:
        ends = row.intervals.get("accuracy", _UNDEFINED)
        cells = [Cell(f"{row.model} {SAME_MARK}" if row.ties_best else row.model), Cell(row.kind)]
        cells += [_metric(row, "accuracy"), Cell(METRICS["accuracy"].interval_text(ends, 1), ends[0])]
        cells += [*(_metric(row, name) for name in others), Cell(f"{row.fit_s:.3f}", row.fit_s)]
        cells += [Cell(row.fitted_on or ALL_ROWS)] if past else []
        rows.append(Row(tuple(cells), row.kind))
    header = ("model", "kind", "accuracy", "95 %", *(_heading(METRICS[name]) for name in others), "fit s")
    header += (FITTED_ON,) if past else ()
    return Table(header, tuple(rows), f"Comparison: {title}", 2)


def _intervals(models: Sequence[ModelRow], title: str) -> Table:
    """Every metric with its interval."""
    rows = []
    for row in models:
        cells = [Cell(row.model)]
        for name, metric in METRICS.items():
            ends = row.intervals.get(name, _UNDEFINED)
            text = metric.interval_text(ends, 1 if metric.percent else 3)
            cells.append(_NONE if text == "n/a" else Cell(text, ends[0]))
        cells.append(Cell(f"{row.mcnemar_p_against_best:.3f}", row.mcnemar_p_against_best))
        rows.append(Row(tuple(cells), row.kind))
    header = ("model", *(_heading(metric) for metric in METRICS.values()), "McNemar p")
    return Table(header, tuple(rows), f"Intervals: {title}", 1)


def _groups(groups: Sequence[GroupRow], title: str) -> Table | None:
    rows = []
    for row in groups:
        cells = [Cell(row.model), Cell(row.group), Cell(row.taken_for), Cell(str(row.images), float(row.images))]
        cells.append(Cell(f"{100 * row.recall:.1f}", row.recall))
        cells.append(Cell(f"{100 * row.recall_low:.0f} - {100 * row.recall_high:.0f}", row.recall_low))
        for share in (row.balanced_recall, row.benign_malignant, row.flip_rate):
            cells.append(Cell("", -1.0) if share is None else Cell(f"{100 * share:.1f}", share))
        rows.append(Row(tuple(cells)))
    header = ("model", "group left out", "wrong answers", "images", "% right", "95 %")
    sides = ("balanced recall, %", "% on the right side of benign and malignant", "% whose views disagree")
    return Table((*header, *sides), tuple(rows), f"Groups left out: {title}", 3) if rows else None


def _group_figures(groups: Sequence[GroupRow], models: Sequence[ModelRow]) -> list[Chart]:
    return [
        recalls(
            [(own.group, own.recall, own.recall_low, own.recall_high) for own in groups if own.model == row.model],
            f"{row.model}: images of each group left out that are right, in %, with the 95 % interval",
        )
        for row in models
        if any(own.model == row.model for own in groups)
    ]


def _confusion(run: StoredRun, row: ModelRow) -> Heat:
    counts = np.array(row.confusion)
    title = f"{row.model}: {counts.sum()} predictions of {counted(run.tests(row.model), 'test set')} added up"
    return heat(counts, run.classes, title)


def _class_recalls(row: ModelRow) -> Chart:
    values = [
        (name, own["recall"], own["recall_low"], own["recall_high"])
        for name, own in row.per_class.items()
        if own["recall"] == own["recall"]
    ]
    return recalls(values, f"{row.model}: recall of each class in %, with its 95 % interval")


def _reliability(run: StoredRun, row: ModelRow) -> Chart:
    found = run.predictions[row.model]
    error = calibration_error(found.truth, found.probability)
    return reliability(
        reliability_points(found.truth, found.probability),
        f"{row.model}: accuracy by confidence",
        f"Below the diagonal the model is too sure. Mean gap (ECE) {error:.3f}. The area of a disc is its share of "
        f"the images; pale ones have fewer than {LEAST_BIN}.",
    )


def _roc(run: StoredRun, models: Sequence[ModelRow]) -> tuple[list[Chart], list[str]]:
    """ROC curves of the models, and names of models whose curves show nothing."""
    figures, left_out = [], []
    for row in models:
        found = run.predictions[row.model]
        curves = {
            label: roc_points(found.truth == code, found.probability[:, code])
            for code, label in enumerate(run.classes)
            if 0 < (found.truth == code).sum() < len(found.truth)
        }
        if roc_says_little(curves):
            left_out.append(row.model)
            continue
        negatives = int(max((found.truth != code).sum() for code in range(len(run.classes))))
        figures.append(roc(curves, f"{row.model}: ROC, each class against the rest", negatives))
    return figures, left_out


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
