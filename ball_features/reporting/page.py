"""`report.html`: one file that opens offline, with a run's table, figures, errors and provenance."""

from __future__ import annotations

import csv
import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.dataset.grouping import read_groups
from ball_features.dataset.manifest import spread_rows
from ball_features.errors import DataError
from ball_features.evaluation.metrics import calibration_error
from ball_features.reporting.figures import (
    LEAST_BIN,
    PALETTE,
    STYLES,
    bars,
    embedding_map,
    heat_table,
    lines,
    reliability,
    reliability_points,
    roc_points,
)
from ball_features.reporting.markup import Html, Thumbnails, sortable, write_page
from ball_features.reporting.provenance import provenance_block, require_cache_of
from ball_features.reporting.tables import SAME_MARK, few_units_note

__all__ = ["section", "told_apart", "write_report"]

_FIGURES = 3  # models that get curves: the head, and the first of the others
_SHOWN = 40  # errors and uncertain images listed
_MAP_IMAGES = 5000
_COLUMNS = ("accuracy", "specificity", "precision", "recall", "f1", "auroc", "mcc", "log_loss", "ece", "fit_s")
_PERCENT = {"accuracy", "specificity", "precision", "recall", "f1"}


@dataclass(frozen=True, eq=False)
class _Predictions:
    """The predictions of one model."""

    path: list[str]
    split: list[tuple[str, str]]  # repeat and fold that tested it
    truth: np.ndarray
    probability: np.ndarray


def write_report(
    folder: Path, out: Path | None = None, cache: Cache | None = None, thumbnails: Path | None = None
) -> Path:
    """Write the page of a run from the run's own files.

    Args:
        folder: Written by `ball fit`.
        out: The page; `report.html` in the folder if None.
        cache: For the map of embeddings and the neighbours of errors; both are left out without it.
        thumbnails: Folder of the images, to put small pictures of them into the page; none without it.

    Raises:
        CacheError: The cache is not that of the run.
        DataError: The folder holds no run.
    """
    part = section(folder, cache, Thumbnails(thumbnails), 0)
    # The folder has another name while it is written.
    title = json.loads((folder / "run.json").read_text(encoding="utf-8"))["title"]
    return write_page(out or folder / "report.html", title, [part])


def section(folder: Path, cache: Cache | None, pictures: Thumbnails, number: int) -> str:
    """The part of a page that tells of one run, the `number`th of it; arguments as `write_report`."""
    try:
        details = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        numbers = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        models = numbers["models"]
        predictions = _read_predictions(folder / "predictions.csv", numbers["classes"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no run ({error}). Expected a folder written by `ball fit`.") from error
    if cache is not None:
        require_cache_of(details, cache)
    classes = numbers["classes"]
    first = [row["model"] for row in models if row["kind"] == "head"]
    chosen = (first + [row["model"] for row in models if row["kind"] == "baseline"])[:_FIGURES]
    chosen = chosen or [row["model"] for row in models[:1]]
    parts = [
        f"<h1>{html.escape(details['title'])}</h1>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in details["notes"]),
        "<h2>Comparison</h2>",
        _table(models),
        f'<p class="note">{html.escape(details["caption"])} Research use only; not a medical device.</p>',
        _intervals(models, numbers.get("units")),
        _groups(folder, chosen),
        "<h2>Confusion</h2><div class='figures'>",
        *(
            heat_table(np.array(row["confusion"]), classes, row["model"])
            for row in models
            if row["model"] in chosen or row["kind"] == "shortcut"
        ),
        "</div><h2>Recall of each class</h2><div class='figures'>",
        *(_class_bars(row) for row in models if row["model"] in chosen),
        "</div><h2>ROC and reliability</h2><div class='figures'>",
        *(part for name in chosen for part in _curves(predictions[name], classes, name)),
        "</div>",
        _training(folder),
    ]
    if chosen:
        found = predictions[chosen[0]]
        parts.append(_images(folder, found, classes, chosen[0], cache, pictures, details, f"map{number}"))
    parts.append(provenance_block(details))
    return f"<section>{''.join(parts)}</section>"


def _read_predictions(path: Path, classes: Sequence[str]) -> dict[str, _Predictions]:
    by_model: dict[str, tuple[list[str], list[tuple[str, str]], list[int], list[list[float]]]] = {}
    columns = [f"p_{name}" for name in classes]
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            paths, splits, truth, probability = by_model.setdefault(row["model"], ([], [], [], []))
            paths.append(row["path"])
            splits.append((row["repeat"], row["fold"]))
            truth.append(classes.index(row["label"]))
            probability.append([float(row[column]) for column in columns])
    return {name: _Predictions(p, s, np.array(t), np.array(q)) for name, (p, s, t, q) in by_model.items()}


def _table(models: Sequence[dict[str, Any]]) -> str:
    def cell(row: dict[str, Any], key: str) -> tuple[str, float]:
        value = math.nan if row[key] is None else float(row[key])
        if math.isnan(value):
            return "n/a", -1.0
        return (f"{100 * value:.2f}" if key in _PERCENT else f"{value:.3f}"), value

    header = ["model", "kind", "accuracy", "95 %", *(key.replace("_", " ") for key in _COLUMNS[1:])]
    rows = []
    for row in models:
        name = f"{row['model']} {SAME_MARK}" if row.get("ties_best") else row["model"]
        interval = f"{100 * row['accuracy_low']:.1f} - {100 * row['accuracy_high']:.1f}"
        cells: list[tuple[str, Any]] = [(name, None), (row["kind"], None), cell(row, "accuracy")]
        cells += [(interval, float(row["accuracy_low"])), *(cell(row, key) for key in _COLUMNS[1:])]
        rows.append((row["kind"], cells))
    return sortable(header, rows, 2)


def _intervals(models: Sequence[dict[str, Any]], units: int | None) -> str:
    """Every metric with its interval; runs of older versions have none, nor the number of what is drawn."""
    if not all("intervals" in row for row in models):
        return ""
    names = list(models[0]["intervals"]) if models else []

    def cell(row: dict[str, Any], name: str) -> tuple[str, float]:
        ends = [row["intervals"][name][end] for end in ("low", "high")]
        if any(end is None for end in ends):
            return "n/a", -1.0
        factor, form = (100, ".1f") if name in _PERCENT else (1, ".3f")
        return f"{factor * ends[0]:{form}} - {factor * ends[1]:{form}}", float(ends[0])

    rows = [
        (
            row["kind"],
            [
                (row["model"], None),
                *(cell(row, name) for name in names),
                (f"{row['mcnemar_p_against_best']:.3f}", float(row["mcnemar_p_against_best"])),
            ],
        )
        for row in models
    ]
    header = ["model", *(name.replace("_", " ") for name in names), "McNemar p"]
    note = f'<p class="note">{html.escape(few_units_note(units))}</p>' if units else ""
    return (
        "<details><summary>95 % intervals of every metric (accuracy: Wilson's on the effective sample size; others: "
        "bootstrap over groups); exact McNemar test against the best on the first repeat (Holm-corrected)</summary>"
        f"{sortable(header, rows, 1)}{note}</details>"
    )


def _groups(folder: Path, chosen: Sequence[str]) -> str:
    path = folder / "groups.csv"
    if not path.exists():
        return ""
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    rows: list[tuple[str, Sequence[tuple[str, Any]]]] = []
    for row in table:
        recall = float(row["recall"])
        interval = f"{100 * float(row['recall_low']):.0f} - {100 * float(row['recall_high']):.0f}"
        cells = [
            (row["model"], None),
            (row["group"], None),
            (row["taken_for"], None),
            (row["images"], float(row["images"])),
        ]
        cells += [(f"{100 * recall:.1f}", recall), (interval, float(row["recall_low"]))]
        for key in ("benign_malignant", "flip_rate"):
            share = float(row[key]) if row.get(key) else None
            cells.append(("" if share is None else f"{100 * share:.1f}", -1.0 if share is None else share))
        rows.append(("", cells))
    named = ("model", "group left out", "errors were taken for")
    header = (*named, "images", "recall", "95 %", "benign or not", "views differ")
    figures = [
        bars(
            [
                (row["group"], float(row["recall"]), float(row["recall_low"]), float(row["recall_high"]))
                for row in table
                if row["model"] == name
            ],
            f"{name}: recall in % of each group left out, with its 95 % interval",
        )
        for name in chosen
    ]
    return f"<h2>Groups left out</h2>{sortable(header, rows, 3)}<div class='figures'>{''.join(figures)}</div>"


def _class_bars(row: dict[str, Any]) -> str:
    values = []
    for name, own in row["per_class"].items():
        if own["recall"] is not None:
            values.append((name, own["recall"], own["recall_low"], own["recall_high"]))
    return bars(values, f"{row['model']}: recall in %, with its 95 % interval")


def _curves(found: _Predictions, classes: Sequence[str], name: str) -> list[str]:
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


def _training(folder: Path) -> str:
    """Curves of each model on the first split of the file: under leave-group-out that need not be fold 0."""
    by_model: dict[str, list[dict[str, str]]] = {}
    with (folder / "curves.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows = by_model.setdefault(row["model"], [])
            if not rows or (row["repeat"], row["fold"]) == (rows[0]["repeat"], rows[0]["fold"]):
                rows.append(row)
    if not by_model:
        return ""
    figures = []
    for name, rows in by_model.items():
        for kind in ("loss", "accuracy"):
            own = {
                part: np.array([[float(row["epoch"]), float(row[f"{short}_{kind}"])] for row in rows])
                for part, short in (("training", "train"), ("validation", "val"))
            }
            own = {key: value[np.isfinite(value).all(1)] for key, value in own.items()}
            figures.append(lines(own, f"{name}: {kind} of the first split", "epoch", kind))
    return f"<h2>Training</h2><div class='figures'>{''.join(figures)}</div>"


def _images(
    folder: Path,
    found: _Predictions,
    classes: Sequence[str],
    model: str,
    cache: Cache | None,
    pictures: Thumbnails,
    details: dict[str, Any],
    name: str,
) -> str:
    """The map, the errors and the least certain images, with their nearest training images."""
    part: dict[str, str] = {}
    trained: dict[tuple[str, str], list[str]] = {}
    with (folder / "splits.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not trained or (row["repeat"], row["fold"]) == next(iter(trained)):
                part[row["path"]] = row["split"]
            own = trained.setdefault((row["repeat"], row["fold"]), [])
            if row["split"] == "train":
                own.append(row["path"])
    predicted = found.probability.argmax(1)
    confidence = found.probability.max(1)
    wrong = np.flatnonzero(predicted != found.truth)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    unsure = np.flatnonzero(predicted == found.truth)
    unsure = unsure[np.argsort(confidence[unsure], kind="stable")]
    unit = None
    row_of: dict[str, int] = {}
    if cache is not None:
        unit = cache.embeddings[:, 0].astype(np.float32)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        row_of = {str(path): row for row, path in enumerate(cache.path)}

    def near(place: int) -> str:
        """The training images, of the split that tested it, that lie nearest."""
        train = [row_of[path] for path in trained.get(found.split[place], ()) if path in row_of]
        if cache is None or unit is None or found.path[place] not in row_of or not train:
            return ""
        rows = np.array(train)
        order = rows[np.argsort(-(unit[rows] @ unit[row_of[found.path[place]]]))[:3]]
        return Html((" " if pictures.folder else ", ").join(pictures.named(str(cache.path[row])) for row in order))

    def listing(rows: np.ndarray) -> str:
        seen: set[str] = set()
        cells = []
        for row in rows.tolist():
            if found.path[row] in seen or len(seen) == _SHOWN:
                continue
            seen.add(found.path[row])
            cells.append(
                (
                    "",
                    [
                        (pictures.named(found.path[row]), None),
                        (classes[int(found.truth[row])], None),
                        (classes[int(predicted[row])], None),
                        (f"{confidence[row]:.3f}", float(confidence[row])),
                        *([] if cache is None else [(near(int(row)), None)]),
                    ],
                )
            )
        header = ("image", "label", "predicted", "confidence", *([] if cache is None else ["nearest training images"]))
        return sortable(header, cells, 3, wrapped=4)

    text = (
        f"<h2>Errors of {html.escape(model)}</h2><p>{len(wrong)} of {len(found.path)} predictions; the most confident"
    )
    text += f" first.</p>{listing(wrong)}<h2>Right, but least certain</h2>{listing(unsure)}"
    if cache is None or unit is None:
        return text + "<p>The cache of this run was not at hand: no map of the embeddings, no neighbours.</p>"
    series = _series(details, cache)
    return text + _map(cache, unit, part, {found.path[row] for row in wrong}, series, pictures, name)


def _series(details: dict[str, Any], cache: Cache) -> np.ndarray | None:
    """The series of each image, where the run's groups file is still there and names them."""
    groups = details["config"].get("groups")
    if not groups:
        return None
    try:
        return read_groups(groups, "series", cache.path.tolist())
    except DataError:
        return None


def told_apart(series: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of series and the one of each image; as many as points can look unlike, the smallest ones together."""
    names, code, count = np.unique(series, return_inverse=True, return_counts=True)
    most = len(PALETTE) * STYLES
    if len(names) <= most:
        return [str(name) for name in names], code
    kept = np.sort(np.argsort(-count, kind="stable")[: most - 1])
    place = np.full(len(names), most - 1)
    place[kept] = np.arange(most - 1)
    return [*(str(names[number]) for number in kept), f"{len(names) - most + 1} smaller ones"], place[code]


def _map(
    cache: Cache,
    unit: np.ndarray,
    part: dict[str, str],
    wrong: set[str],
    series: np.ndarray | None,
    pictures: Thumbnails,
    name: str,
) -> str:
    from sklearn.decomposition import PCA

    rows = spread_rows(len(unit), _MAP_IMAGES)
    place = PCA(2, svd_solver="randomized", random_state=0).fit_transform(unit[rows])
    names = [str(path) for path in cache.path[rows]]
    classes, code = np.unique(cache.label[rows], return_inverse=True)
    parts = ["train", "val", "test", "not used"]
    split = np.array([parts.index(part.get(item, "not used")) for item in names])
    error = np.array([5 if item in wrong else 7 for item in names])
    words = [
        f"{item}: {label}, {parts[own]}{', wrong' if item in wrong else ''}"
        for item, label, own in zip(names, cache.label[rows], split, strict=True)
    ]
    colourings = {
        "class": ([str(item) for item in classes], code),
        "split": (parts, split),
        "error": (["", "", "", "", "", "wrong at least once", "", "not wrong"], error),
    }
    if series is not None:
        colourings["group"] = told_apart(series[rows])
        words = [f"{word}, {own}" for word, own in zip(words, series[rows], strict=True)]
    shown = [] if pictures.folder is None else [pictures.address(path) for path in names]
    return (
        "<h2>Map of the embeddings</h2><p>First two principal components of the plain view's embeddings at unit "
        "length; "
        "split of the first repeat and fold.</p>" + embedding_map(place, words, colourings, name=name, pictures=shown)
    )
