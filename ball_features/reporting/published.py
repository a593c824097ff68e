"""Published figures beside those of a run, where its configuration is the publication's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.config import FitConfig, HeadConfig
from ball_features.evaluation.batch_average import COMPAT_BATCH, batch_averaged
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.results import ModelRow
from ball_features.files import json_text
from ball_features.reporting.markup import Cell, Row, Table
from ball_features.reporting.stored_run import StoredRun

__all__ = ["PUBLICATIONS", "Publication", "PublishedSection", "published_sections"]

_CLASSES = {"benign", "early", "pre", "pro"}
_LEAST_IMAGES = 3000  # of the public set of 3,256: a small part of it says nothing of the whole
_NETWORK = "densenet201"


@dataclass(frozen=True)
class Publication:
    """Figures that a publication states of its test set.

    Attributes:
        name: key of `PUBLICATIONS`.
        title: who published them.
        channels: channels of its pictures.
        model: model of a run that stands for its own.
        figures: name of a metric -> published value.
        averaged: whether its macro figures are averages over batches, an absent class counted as 0.
        differs: what a run does otherwise in any case.
    """

    name: str
    title: str
    channels: tuple[str, ...]
    model: str
    figures: Mapping[str, float]
    averaged: bool
    differs: str


PUBLICATIONS: dict[str, Publication] = {
    own.name: own
    for own in (
        Publication(
            "report",
            "The student report",
            ("original",),
            "mlp",
            {"accuracy": 0.996, "precision": 0.980, "recall": 0.978, "f1": 0.978},
            averaged=True,
            differs="copies of an image stay together, and the test images of all repeats are pooled",
        ),
        Publication(
            "paper",
            "Ghaderzadeh et al. 2021 (doi 10.1002/int.22753), DenseNet-201",
            ("original", "segmented"),
            "mlp",
            {"accuracy": 0.9985, "recall": 0.9952, "specificity": 0.9989},
            averaged=False,
            differs="the network is frozen instead of fine-tuned, copies of an image stay together, and the test "
            "images of all repeats are pooled",
        ),
    )
}


@dataclass(frozen=True)
class PublishedSection:
    """Published figures beside those of a run.

    Attributes:
        name: key of the publication.
        heading: whose figures.
        table: a row a figure.
        note: how they were compared, and what explains a difference.
        within: number of figures that lie within the 95 % interval of the run.
    """

    name: str
    heading: str
    table: Table
    note: str
    within: int


def published_sections(run: StoredRun) -> list[PublishedSection]:
    """Compare a run with the publications whose data, network, channels, splits and head it has; mostly none."""
    rows = {row.model: row for row in run.models}
    return [
        _section(own, run, rows[own.model])
        for own in PUBLICATIONS.values()
        if own.model in rows and _is_of(own, run.details)
    ]


def _is_of(own: Publication, details: Mapping[str, Any]) -> bool:
    config, cache = details["config"], details.get("cache_attributes", {})
    usual = json.loads(json_text(FitConfig().to_dict()))
    head = json.loads(json_text(HeadConfig().to_dict()))
    same = all(
        config.get(name) == usual[name] for name in ("test_size", "val_size", "train_views", "test_views", "tta")
    )
    used = tuple(cache.get("channels_used") or cache.get("channels") or ("original",))
    return (
        {str(name).casefold() for name in details["classes"]} == _CLASSES
        and details["images"] >= _LEAST_IMAGES
        and config["protocol"] == "holdout"
        and same
        and config["head"] == head
        and cache.get("backbone") == _NETWORK
        and cache.get("weights") != "random"
        and used == own.channels
    )


def _section(own: Publication, run: StoredRun, row: ModelRow) -> PublishedSection:
    found = run.predictions[row.model]
    order = np.random.default_rng(0).permutation(len(found.truth))
    truth, predicted = found.truth[order], found.probability.argmax(1)[order]
    averages = batch_averaged(truth, predicted, len(run.classes)) if own.averaged else {}
    rows, within = [], 0
    for name, published in own.figures.items():
        metric, (low, high) = METRICS[name], row.intervals.get(name, (float("nan"),) * 2)
        inside = low <= published <= high
        within += inside
        value = row.values[name]
        cells = [Cell(metric.title), _percent(published), _percent(value), Cell(metric.interval_text((low, high), 2))]
        cells += [_points(value - published), Cell("yes" if inside else "no")]
        if averages:
            cells += [_percent(averages[name]), _points(averages[name] - published)]
        rows.append(Row(tuple(cells)))
    header = ("figure, in %", "published", f"{row.model}, pooled", "95 %", "difference", "published within 95 %")
    batch = (f"{row.model}, averaged over batches", "difference of averages") if averages else ()
    weights = str(run.details["cache_attributes"].get("weights", "imagenet"))
    other = "" if weights == "imagenet" else f"its weights are those of the file {Path(weights).name}, "
    note = (
        f"The run differs: {other}{own.differs}. Differences are in percentage points, this run less the publication."
    )
    if averages:
        note += (
            f" The report averages its figures over batches of {COMPAT_BATCH} images, in which a class that is absent "
            "counts as 0. That alone lowers precision, recall and F1 by about two points and leaves the accuracy as it "
            "is: with the same averages the run comes to the figures at the right. The pooled ones are to be quoted."
        )
    table = Table((*header, *batch), tuple(rows), own.title, 1)
    return PublishedSection(own.name, f"{own.title}: published figures beside this run", table, note, within)


def _percent(value: float) -> Cell:
    return Cell(f"{100 * value:.2f}", value)


def _points(value: float) -> Cell:
    return Cell(f"{round(100 * value, 2) + 0.0:+.2f}", value)  # + 0.0 takes the sign from a difference of none
