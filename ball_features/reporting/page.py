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
from ball_features.errors import DataError
from ball_features.evaluation.uncertainty import wilson
from ball_features.reporting.figures import (
    PALETTE,
    bars,
    embedding_map,
    heat_table,
    lines,
    reliability_points,
    roc_points,
)
from ball_features.reporting.tables import SAME_MARK

__all__ = ["write_report"]

_FIGURES = 3  # models that get curves: the head, and the first of the others
_SHOWN = 40  # errors and uncertain images listed
_MAP_IMAGES = 5000
_COLUMNS = ("accuracy", "specificity", "precision", "recall", "f1", "auroc", "mcc", "log_loss", "ece", "fit_s")
_PERCENT = {"accuracy", "specificity", "precision", "recall", "f1"}

_STYLE = """
:root{color-scheme:light dark;--line:#8886}
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem}h2{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1rem}
.wide{overflow-x:auto}.wide td,.wide th{white-space:nowrap}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .7rem .2rem 0;text-align:right}td:first-child,th:first-child{text-align:left}
td.text,th.text{text-align:left}
th button{font:inherit;font-weight:bold;background:none;border:0;padding:0;color:inherit;cursor:pointer}
tr.head td{font-weight:bold}tr.shortcut td{font-style:italic}tbody tr:hover{background:#8882}
.figures{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;flex:1 1 20rem;max-width:28rem}
svg{width:100%;height:auto}svg text{font-size:12px;fill:currentColor}.frame{fill:none;stroke:var(--line)}
.guide{stroke:var(--line);stroke-dasharray:4}.whisker{stroke:currentColor;stroke-width:2}
figcaption,.legend,small,.note{font-size:.85rem}
figcaption i,.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
.heat{align-self:start}
.heat td{text-align:center;padding:.3rem .6rem;background:rgb(0 114 178/calc(var(--heat)*.55))}
.heat small{display:block}
.heat caption{text-align:left;font-weight:bold}#map{max-width:56rem;border:1px solid var(--line)}
#map circle{opacity:.75}#map circle:hover{stroke:currentColor;stroke-width:2;opacity:1}fieldset{border:0;padding:0}
code{overflow-wrap:anywhere}@media print{h2{break-after:avoid}figure,table{break-inside:avoid}}
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const x = key(a), y = key(b), order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
const map = document.getElementById("map");
if (map) {
  const palette = PALETTE;
  const paint = (way) => {
    map.querySelectorAll("circle").forEach((point) => {
      point.style.fill = palette[point.dataset.v.split(" ")[way] % palette.length];
    });
    document.querySelectorAll(".legend").forEach((item, number) => { item.hidden = number !== way; });
  };
  document.querySelectorAll("#colouring input").forEach((input) => {
    input.addEventListener("change", () => paint(Number(input.value)));
  });
  map.addEventListener("pointerover", (event) => {
    const title = event.target.querySelector && event.target.querySelector("title");
    if (event.target.tagName === "circle" && title) document.getElementById("pointed").textContent = title.textContent;
  });
  paint(0);
}
"""


@dataclass(frozen=True)
class _Predictions:
    """The predictions of one model."""

    path: list[str]
    split: list[tuple[str, str]]  # repeat and fold that tested it
    truth: np.ndarray
    probability: np.ndarray


def write_report(folder: Path, out: Path | None = None, cache: Cache | None = None) -> Path:
    """Write the page of a run from the run's own files.

    Args:
        folder: Written by `ball fit`.
        out: The page; `report.html` in the folder if None.
        cache: For the map of embeddings and the neighbours of errors; both are left out without it.

    Raises:
        DataError: The folder holds no run.
    """
    try:
        details = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        numbers = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        models = numbers["models"]
        predictions = _read_predictions(folder / "predictions.csv", numbers["classes"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no run ({error}). Expected a folder written by `ball fit`.") from error
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
        _groups(folder),
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
        parts.append(_images(folder, predictions[chosen[0]], classes, chosen[0], cache))
    parts.append(_provenance(details, folder))
    script = _SCRIPT.replace("PALETTE", json.dumps(PALETTE))
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(folder.name)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}<script>{script}</script></body></html>\n"
    )
    out = out or folder / "report.html"
    out.write_text(page, encoding="utf-8")
    return out


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


def _sortable(header: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, Any]]]], text: int) -> str:
    head = "".join(
        f'<th scope="col"{" class=text" if place < text else ""}>'
        f'<button type="button">{html.escape(name)}</button></th>'
        for place, name in enumerate(header)
    )
    body = "".join(
        f'<tr class="{kind}">'
        + "".join(
            f"<td{' class=text' if place < text else ''}"
            + (f' data-v="{value}"' if isinstance(value, float) else "")
            + f">{html.escape(shown)}</td>"
            for place, (shown, value) in enumerate(cells)
        )
        + "</tr>"
        for kind, cells in rows
    )
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


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
    return _sortable(header, rows, 2)


def _groups(folder: Path) -> str:
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
        rows.append(("", [*cells, (f"{100 * recall:.1f}", recall), (interval, float(row["recall_low"]))]))
    header = ("model", "group left out", "errors were taken for", "images", "recall", "95 %")
    return f"<h2>Groups left out</h2>{_sortable(header, rows, 3)}"


def _class_bars(row: dict[str, Any]) -> str:
    values = []
    for name, own in row["per_class"].items():
        if own["recall"] is not None:
            values.append((name, own["recall"], *wilson(own["recall"], own["support"])))
    return bars(values, f"{row['model']}: recall in %, Wilson interval on test images")


def _curves(found: _Predictions, classes: Sequence[str], name: str) -> list[str]:
    roc = {
        label: roc_points(found.truth == code, found.probability[:, code])
        for code, label in enumerate(classes)
        if 0 < (found.truth == code).sum() < len(found.truth)
    }
    return [
        lines(roc, f"{name}: ROC, each class against the rest", "false positives", "true positives", diagonal=True),
        lines(
            {name: reliability_points(found.truth, found.probability)},
            f"{name}: reliability of the predicted class",
            "confidence",
            "accuracy",
            diagonal=True,
        ),
    ]


def _training(folder: Path) -> str:
    with (folder / "curves.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["repeat"] == "0" and row["fold"] == "0"]
    if not rows:
        return ""
    figures = []
    for kind in ("loss", "accuracy"):
        own = {
            part: np.array([[float(row["epoch"]), float(row[f"{short}_{kind}"])] for row in rows])
            for part, short in (("training", "train"), ("validation", "val"))
        }
        own = {key: value[np.isfinite(value).all(1)] for key, value in own.items()}
        figures.append(lines(own, f"{rows[0]['model']}: {kind} of the first split", "epoch", kind))
    return f"<h2>Training</h2><div class='figures'>{''.join(figures)}</div>"


def _images(folder: Path, found: _Predictions, classes: Sequence[str], model: str, cache: Cache | None) -> str:
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
        return ", ".join(str(cache.path[row]) for row in order)

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
                        (found.path[row], None),
                        (classes[int(found.truth[row])], None),
                        (classes[int(predicted[row])], None),
                        (near(int(row)), None),
                        (f"{confidence[row]:.3f}", float(confidence[row])),
                    ],
                )
            )
        header = ("image", "label", "predicted", "nearest training images", "confidence")
        return _sortable(header, cells, 4)

    text = (
        f"<h2>Errors of {html.escape(model)}</h2><p>{len(wrong)} of {len(found.path)} predictions; the most confident"
    )
    text += f" first.</p>{listing(wrong)}<h2>Right, but least certain</h2>{listing(unsure)}"
    if cache is None or unit is None:
        return text + "<p>The cache was not at hand: no map of the embeddings, no neighbours.</p>"
    return text + _map(cache, unit, part, {found.path[row] for row in wrong})


def _map(cache: Cache, unit: np.ndarray, part: dict[str, str], wrong: set[str]) -> str:
    from sklearn.decomposition import PCA

    rows = np.unique(np.linspace(0, len(unit) - 1, min(len(unit), _MAP_IMAGES)).astype(int))
    place = PCA(2, svd_solver="randomized", random_state=0).fit_transform(unit[rows])
    names = [str(path) for path in cache.path[rows]]
    classes, code = np.unique(cache.label[rows], return_inverse=True)
    parts = ["train", "val", "test", "not used"]
    split = np.array([parts.index(part.get(name, "not used")) for name in names])
    error = np.array([5 if name in wrong else 7 for name in names])
    words = [
        f"{name}: {label}, {parts[own]}{', wrong' if name in wrong else ''}"
        for name, label, own in zip(names, cache.label[rows], split, strict=True)
    ]
    colourings = {
        "class": ([str(name) for name in classes], code),
        "split": (parts, split),
        "error": (["", "", "", "", "", "wrong at least once", "", "not wrong"], error),
    }
    return (
        "<h2>Map of the embeddings</h2><p>First two principal components of the plain view's embeddings at unit "
        "length; "
        f"split of the first repeat and fold.</p>{embedding_map(place, words, colourings)}"
    )


def _provenance(details: dict[str, Any], folder: Path) -> str:
    config, cache = details["config"], details["cache_attributes"]
    facts: dict[str, Any] = {
        "weights SHA-256": cache.get("weights_sha256"),
        "cache fingerprint": details["cache_fingerprint"],
        "backbone": cache.get("backbone"),
        "precision": cache.get("precision"),
        "cosine to float32, worst of a sample": cache.get("deviation_cosine"),
        "images": details["images"],
        "seed": config["seed"],
        "made": details["created"],
        "ball": details["ball_version"],
        **{f"{key} version": value for key, value in details["versions"].items()},
    }
    rows = "".join(
        f"<tr><td>{html.escape(k)}</td><td class=text>{html.escape(str(v))}</td></tr>" for k, v in facts.items()
    )
    options = " ".join(
        f"--{key.replace('_', '-')} {value}"
        for key, value in config.items()
        if key in ("protocol", "repeats", "folds", "test_size", "val_size", "seed", "groups", "group_column")
        and value is not None
    )
    command = f"ball fit {details['cache']} {options}"
    return (
        f"<h2>Provenance</h2><table>{rows}</table><p>To repeat it: <code>{html.escape(command)}</code>. "
        f"Every number can be recomputed from predictions.csv in {html.escape(folder.name)}.</p>"
    )
