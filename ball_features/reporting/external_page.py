"""The page of an external evaluation: verdict, accuracy by group of images, confusion, calibration, sets, distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.evaluation.external import Share
from ball_features.evaluation.metrics import METRICS, Metric
from ball_features.reporting.charts import Chart
from ball_features.reporting.dots import recalls
from ball_features.reporting.external_lists import unknown_labels, wrong_images
from ball_features.reporting.external_record import Evaluation, ScoredImage
from ball_features.reporting.figures import LEAST_BIN, reliability, reliability_points
from ball_features.reporting.heat import Heat, heat
from ball_features.reporting.markup import Cell, Row, Table, write_page

__all__ = ["level_shares", "write_evaluation_page"]

_SITES = 40  # sites of the figure


@dataclass(frozen=True, eq=False)
class _Mended:
    """Calibration before and after a temperature and a threshold fitted on these images."""

    fitted: int
    tested: int
    temperature: str
    table: Table
    charts: tuple[Chart, ...]


def write_evaluation_page(result: Evaluation, out: Path) -> Path:
    """Write the page.

    Raises:
        DataError: The file cannot be written.
    """
    unknown = [item for item in result.images if item.status == "unknown label"]
    return write_page(
        out,
        "evaluation.html",
        f"{result.bundle.model} on {Path(result.source).name}",
        named=False,
        result=result,
        source=Path(result.source).name,
        levels=recalls(level_shares(result), "Share of images that are right, in %, with its 95 % interval"),
        table=_metrics(result),
        classes=_classes(result),
        recalls=_recalls(result),
        confusion=_confusion(result),
        reliability=_reliability(result.images, "as the bundle gives them"),
        mended=_mended(result),
        sets=_sets(result),
        distance=_distance(result),
        flagged=_flagged(result),
        sites=_sites(result),
        patients=_patients(result),
        unknown=unknown_labels(unknown),
        errors=wrong_images(result.images),
        coverage=f"{100 * result.coverage:g}",
    )


def level_shares(result: Evaluation) -> list[tuple[str, float, float, float]]:
    """(name, share, low, high) of the accuracy: published, here, of patients, over sites, by site."""
    scores = result.scores
    rows = []
    if result.published is not None:
        own = result.published.accuracy
        rows.append((f"own test ({own.images})", own.value, own.low, own.high))
    rows.append((f"here ({scores.images})", result.accuracy, *scores.intervals["accuracy"]))
    if scores.patients is not None:
        low, high = scores.patients.intervals["accuracy"]
        rows.append((f"patients ({scores.patients.patients})", scores.patients.values["accuracy"], low, high))
    if scores.site_means is not None:
        low, high = scores.site_means.intervals["accuracy"]
        rows.append((f"mean of {scores.site_means.sites} sites", scores.site_means.values["accuracy"], low, high))
    if len(scores.sites) > 1:
        rows += [(f"{row.site} ({row.images})", row.accuracy, row.low, row.high) for row in scores.sites[:_SITES]]
    return [row if math.isfinite(row[2] + row[3]) else (*row[:2], row[1], row[1]) for row in rows]


def _heading(metric: Metric) -> str:
    """The name in words; an abbreviation such as AUROC stays one."""
    return metric.heading if metric.heading.isupper() else metric.title


def _text(share: float, digits: int = 1) -> str:
    return "n/a" if math.isnan(share) else f"{100 * share:.{digits}f}"


def _share(own: Share) -> tuple[Cell, Cell]:
    """A share in %, and its interval."""
    ends = "n/a" if math.isnan(own.low) else f"{_text(own.low)} - {_text(own.high)}"
    return Cell(_text(own.value), own.value), Cell(ends)


def _count(number: int) -> Cell:
    return Cell(str(number), float(number))


def _metrics(result: Evaluation) -> Table:
    scores = result.scores
    rows = []
    for name, metric in METRICS.items():
        digits = 1 if metric.percent else 3
        cells = [
            Cell(_heading(metric) + (" %" if metric.percent else "")),
            Cell(metric.text(scores.values[name], digits)),
        ]
        cells.append(Cell(metric.interval_text(scores.intervals.get(name, (math.nan, math.nan)), digits)))
        if scores.patients is not None:
            cells.append(Cell(metric.text(scores.patients.values[name], digits)))
            own = scores.patients.intervals.get(name, (math.nan, math.nan))
            cells.append(Cell(metric.interval_text(own, digits)))
        if scores.site_means is not None:
            cells.append(Cell(metric.text(scores.site_means.values[name], digits)))
            cells.append(Cell(metric.interval_text(scores.site_means.intervals[name], digits)))
        rows.append(Row(tuple(cells)))
    header = ["metric", "images", "95 %"]
    header += ["patients", "95 % "] if scores.patients is not None else []
    header += ["mean of sites", " 95 %"] if scores.site_means is not None else []
    return Table(tuple(header), tuple(rows), "Metrics on images, patients and sites")


def _classes(result: Evaluation) -> Table:
    rows = tuple(
        Row(
            (
                Cell(name),
                _count(int(own["support"])),
                Cell(_text(own["recall"]), own["recall"]),
                Cell(f"{_text(own['recall_low'])} - {_text(own['recall_high'])}" if own["support"] else "n/a"),
                Cell(_text(own["precision"]), own["precision"]),
                Cell(_text(own["f1"]), own["f1"]),
            )
        )
        for name, own in result.scores.per_class.items()
    )
    return Table(("class", "images", "recall", "95 %", "precision", "F1"), rows, "Figures of each class")


def _recalls(result: Evaluation) -> Chart:
    values = [
        (name, own["recall"], own["recall_low"], own["recall_high"])
        for name, own in result.scores.per_class.items()
        if own["support"]
    ]
    return recalls(values, "Recall of each class in %, with its 95 % interval")


def _confusion(result: Evaluation) -> Heat:
    return heat(np.array(result.scores.confusion), result.classes, f"{result.scores.images} images")


def _reliability(images: Sequence[ScoredImage], words: str) -> Chart:
    scored = [item for item in images if item.true]
    top = np.array([item.prediction.probability[item.prediction.predicted] for item in scored])
    hit = np.array([item.prediction.predicted == item.true for item in scored])
    return _reliability_chart(top, hit, f"Accuracy by confidence, {words}")


def _reliability_chart(top: np.ndarray, hit: np.ndarray, title: str) -> Chart:
    # Two columns that have the confidence and the correctness of the predicted class.
    points = reliability_points(np.where(hit, 0, 1), np.column_stack([top, np.zeros(len(top))]))
    note = f"Below the diagonal the model is too sure. Pale discs have fewer than {LEAST_BIN} images."
    return reliability(points, title, note)


def _mended(result: Evaluation) -> _Mended | None:
    own = result.recalibration
    if own is None:
        return None
    rows = tuple(
        Row((Cell(words), Cell(_text(found.confidence)), Cell(f"{found.ece:.3f}"), Cell(f"{found.log_loss:.3f}"),
             Cell(_text(found.covered)), Cell(f"{found.size:.2f}")))
        for words, found in (("as the bundle gives them", own.before), ("fitted here", own.after))
    )  # fmt: skip
    header = (
        "probabilities and sets",
        "mean probability %",
        "ECE",
        "log loss",
        "sets that hold the true class %",
        "size",
    )
    tested = [item for item in result.images if item.recalibration == "tested"]
    values = np.array([[item.prediction.probability[name] for name in result.classes] for item in tested])
    logits = np.log(np.clip(values, 1e-12, 1)) / own.temperature
    logits -= logits.max(1, keepdims=True)
    top = np.exp(logits).max(1) / np.exp(logits).sum(1)
    hit = np.array([item.prediction.predicted == item.true for item in tested])
    charts = (
        _reliability(tested, "as the bundle gives them"),
        _reliability_chart(top, hit, "Accuracy by confidence, temperature fitted here"),
    )
    counts = int(own.fitted.sum()), len(tested)
    return _Mended(*counts, f"{own.temperature:.2f}", Table(header, rows, "Calibration before and after"), charts)


def _sets(result: Evaluation) -> Table:
    rows = tuple(
        Row((Cell(f"{100 * row.coverage:g}", row.coverage), *_share(row.covered), Cell(f"{row.size:.2f}", row.size),
             Cell(_text(row.single), row.single)))
        for row in result.scores.sets
    )  # fmt: skip
    return Table(
        ("promised %", "true class in the set %", "95 %", "mean size", "one class %"), rows, "Prediction sets", 0
    )


def _distance(result: Evaluation) -> tuple[Chart, Table] | None:
    bins = result.scores.bins
    if not bins:
        return None
    values = [
        (f"{row.low:.3f} to {row.high:.3f}", row.accuracy.value, row.accuracy.low, row.accuracy.high) for row in bins
    ]
    rows = tuple(
        Row((Cell(f"{row.low:.4f} - {row.high:.4f}", row.low), _count(row.accuracy.images), *_share(row.accuracy),
             Cell(_text(row.confidence), row.confidence)))
        for row in bins
    )  # fmt: skip
    table = Table(("distance", "images", "accuracy %", "95 %", "mean probability %"), rows, "Accuracy by distance")
    return recalls(values, "Accuracy in % by distance to the training images, nearest first"), table


def _flagged(result: Evaluation) -> Table:
    scores = result.scores
    rows = [
        Row(
            (
                Cell("unlike the training images"),
                _count(scores.accuracy_flagged.images),
                *_share(scores.accuracy_flagged),
            )
        ),
        Row((Cell("not flagged"), _count(scores.accuracy_others.images), *_share(scores.accuracy_others))),
    ]
    return Table(("images", "number", "accuracy %", "95 %"), tuple(rows), "Accuracy of flagged images and of others")


def _sites(result: Evaluation) -> Table | None:
    if len(result.scores.sites) < 2:  # one site is all of the images
        return None
    rows = tuple(
        Row((Cell(row.site), _count(row.images), *_share(Share(row.accuracy, row.low, row.high, row.images)),
             *(Cell(METRICS[name].text(row.values[name])) for name in _SITE_METRICS),
             Cell(f"{100 * row.flagged:.1f}", row.flagged)))
        for row in result.scores.sites
    )  # fmt: skip
    names = tuple("mean recall %" if name == "recall" else _heading(METRICS[name]) for name in _SITE_METRICS)
    return Table(("site", "images", "accuracy %", "95 %", *names, "unusual %"), rows, "Each site")


_SITE_METRICS = ("recall", "f1", "log_loss", "ece")


def _patients(result: Evaluation) -> Table | None:
    own = result.scores.patients
    if own is None:
        return None
    rows = tuple(
        Row((Cell(name), _count(part.patients),
             *_share(Share(part.sensitivity, part.sensitivity_low, part.sensitivity_high, part.patients)),
             Cell(_text(part.specificity), part.specificity)))
        for name, part in own.per_class.items()
    )  # fmt: skip
    return Table(("class", "patients", "sensitivity %", "95 %", "specificity %"), rows, "Each class on patients")
