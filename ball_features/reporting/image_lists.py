"""The images behind a run's figures: errors, the least certain ones, their neighbours, and the map of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ball_features.cache import Cache
from ball_features.dataset.grouping import read_groups
from ball_features.dataset.manifest import spread_rows
from ball_features.errors import DataError
from ball_features.reporting.charts import PALETTE, STYLES
from ball_features.reporting.figures import EmbeddingMap, embedding_map
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails
from ball_features.reporting.stored_run import StoredPredictions, StoredRun

__all__ = ["ImageLists", "image_lists", "told_apart"]

_SHOWN = 40  # errors and uncertain images listed
_NEAREST = 3
_MAP_IMAGES = 5000
_PARTS = ("train", "val", "test", "not used")


@dataclass(frozen=True)
class ImageLists:
    """What a page shows of single images.

    Attributes:
        model: name of the model whose errors are listed.
        wrong: number of wrong predictions.
        predictions: number of predictions.
        errors: wrong predictions, the most confident first.
        unsure: right predictions, the least confident first.
        map: map of the embeddings; None without the cache.
    """

    model: str
    wrong: int
    predictions: int
    errors: Table
    unsure: Table
    map: EmbeddingMap | None


class _Neighbours:
    """The training images, of the split that tested an image, that lie nearest to it."""

    def __init__(self, cache: Cache, trained: Mapping[tuple[str, str], list[str]]) -> None:
        unit = cache.embeddings[:, 0].astype(np.float32)
        self.unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        self._path = cache.path
        self._row = {str(path): row for row, path in enumerate(cache.path)}
        self._trained = trained

    def of(self, path: str, split: tuple[str, str]) -> list[str]:
        train = [self._row[other] for other in self._trained.get(split, ()) if other in self._row]
        if path not in self._row or not train:
            return []
        rows = np.array(train)
        near = rows[np.argsort(-(self.unit[rows] @ self.unit[self._row[path]]))[:_NEAREST]]
        return [str(self._path[row]) for row in near]


def image_lists(run: StoredRun, model: str, cache: Cache | None, pictures: Thumbnails, name: str) -> ImageLists:
    """Errors and least certain images of a model, with their nearest training images, and the map.

    Args:
        run: run that is shown.
        model: name of the model.
        cache: cache of the run, for neighbours and map.
        pictures: thumbnails of the images.
        name: id of the map within the page.
    """
    parts, found = run.parts(), run.predictions[model]
    predicted, confidence = found.probability.argmax(1), found.probability.max(1)
    wrong = np.flatnonzero(predicted != found.truth)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    unsure = np.flatnonzero(predicted == found.truth)
    unsure = unsure[np.argsort(confidence[unsure], kind="stable")]
    near = None if cache is None else _Neighbours(cache, parts.trained)
    errors, doubtful = (
        _listing(found, run.classes, rows, near, pictures, f"{title} of {model}, {run.details['title']}")
        for rows, title in ((wrong, "Errors"), (unsure, "Least certain images"))
    )
    shown = None
    if cache is not None and near is not None:
        series = _series(run, cache)
        shown = _map(cache, near.unit, parts.first, {found.path[row] for row in wrong}, series, pictures, name)
    return ImageLists(model, len(wrong), len(found.path), errors, doubtful, shown)


def _listing(
    found: StoredPredictions,
    classes: list[str],
    rows: np.ndarray,
    near: _Neighbours | None,
    pictures: Thumbnails,
    name: str,
) -> Table:
    seen: set[str] = set()
    listed = []
    for row in rows.tolist():
        path, probability = found.path[row], found.probability[row]
        if path in seen or len(seen) == _SHOWN:
            continue
        seen.add(path)
        cells = [
            Cell(path, pictures=(pictures.picture(path),)),
            Cell(classes[int(found.truth[row])]),
            Cell(classes[int(probability.argmax())]),
            Cell(f"{probability.max():.3f}", float(probability.max())),
        ]
        if near is not None:
            cells.append(Cell(pictures=tuple(pictures.picture(other) for other in near.of(path, found.split[row]))))
        listed.append(Row(tuple(cells)))
    header = ("image", "label", "predicted", "confidence", *(() if near is None else ("nearest training images",)))
    return Table(header, tuple(listed), name, 3, wrapped=4)


def _series(run: StoredRun, cache: Cache) -> np.ndarray | None:
    """The series of each image, where the run's groups file is still there and names them."""
    groups = run.details["config"].get("groups")
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
    part: Mapping[str, str],
    wrong: set[str],
    series: np.ndarray | None,
    pictures: Thumbnails,
    name: str,
) -> EmbeddingMap:
    from sklearn.decomposition import PCA

    rows = spread_rows(len(unit), _MAP_IMAGES)
    place = PCA(2, svd_solver="randomized", random_state=0).fit_transform(unit[rows])
    names = [str(path) for path in cache.path[rows]]
    classes, code = np.unique(cache.label[rows], return_inverse=True)
    split = np.array([_PARTS.index(part.get(item, "not used")) for item in names])
    error = np.array([5 if item in wrong else 7 for item in names])
    words = [
        f"{item}: {label}, {_PARTS[own]}{', wrong' if item in wrong else ''}"
        for item, label, own in zip(names, cache.label[rows], split, strict=True)
    ]
    colourings = {
        "class": ([str(item) for item in classes], code),
        "split": (_PARTS, split),
        "error": (["", "", "", "", "", "wrong at least once", "", "not wrong"], error),
    }
    if series is not None:
        colourings["group"] = told_apart(series[rows])
        words = [f"{word}, {own}" for word, own in zip(words, series[rows], strict=True)]
    shown = [] if pictures.folder is None else [pictures.address(path) for path in names]
    return embedding_map(place, words, colourings, name=name, pictures=shown)
