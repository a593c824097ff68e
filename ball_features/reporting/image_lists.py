"""The images behind a run's figures: errors, the least certain ones, their neighbours, and the map of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ball_features.cache import Cache
from ball_features.dataset.manifest import spread_rows
from ball_features.reporting.map_columns import known_columns, plane, unit_length
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails
from ball_features.reporting.scatter import EmbeddingMap, embedding_map, told_apart
from ball_features.reporting.stored_run import StoredPredictions, StoredRun

__all__ = ["ImageLists", "image_lists"]

_SHOWN = 40  # errors and uncertain images listed
_NEAREST = 3
_MAP_IMAGES = 5000
_NOT_USED = "not used"


@dataclass(frozen=True)
class ImageLists:
    """What a page shows of single images.

    Attributes:
        model: name of the model whose errors are listed.
        wrong: number of wrong predictions.
        wrong_images: number of distinct images that they are of.
        predictions: number of predictions.
        errors: wrong predictions, the most confident first.
        unsure: right predictions, the least confident first.
        map: map of the embeddings; None without the cache.
    """

    model: str
    wrong: int
    wrong_images: int
    predictions: int
    errors: Table
    unsure: Table
    map: EmbeddingMap | None


class _Neighbours:
    """The training images, of the split that tested an image, that lie nearest to it."""

    def __init__(self, cache: Cache, trained: Mapping[tuple[str, str], list[str]]) -> None:
        self.unit = unit_length(cache)
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
    shown = None if cache is None or near is None else _map(run, model, cache, near.unit, pictures, name)
    wrong_images = len({found.path[row] for row in wrong})
    return ImageLists(model, len(wrong), wrong_images, len(found.path), errors, doubtful, shown)


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


def _map(run: StoredRun, model: str, cache: Cache, unit: np.ndarray, pictures: Thumbnails, name: str) -> EmbeddingMap:
    parts, found = run.parts(), run.predictions[model]
    rows = spread_rows(len(unit), _MAP_IMAGES)
    place = plane(unit[rows])
    names = [str(path) for path in cache.path[rows]]
    predicted = found.probability.argmax(1)
    first: dict[str, str] = {}
    for path, code in zip(found.path, predicted.tolist(), strict=True):
        first.setdefault(path, run.classes[code])
    wrong = {path for path, bad in zip(found.path, predicted != found.truth, strict=True) if bad}
    split = [parts.first.get(path, _NOT_USED) for path in names]
    colourings = {
        "class": told_apart(cache.label[rows]),
        "predicted class": told_apart(np.array([first.get(path, "not tested") for path in names])),
        # The looks of the sixth and the eighth colour: an error stands out of grey.
        "error": (
            ["", "", "", "", "", "wrong at least once", "", "not wrong"],
            np.array([5 if path in wrong else 7 for path in names]),
        ),
        "split": told_apart(np.array(split)),
    }
    words = [
        f"{path}: {label}, {part}" + (f", predicted {first[path]}" if path in first else "")
        for path, label, part in zip(names, cache.label[rows], split, strict=True)
    ]
    for column, values in known_columns(cache, run.details["config"].get("groups"), parts.group).items():
        colourings[f"{column} (sheet)" if column in colourings else column] = told_apart(values[rows])
        words = [f"{word}, {column} {value}" for word, value in zip(words, values[rows], strict=True)]
    shown = [] if pictures.folder is None else [pictures.address(path) for path in names]
    return embedding_map(place, words, colourings, name=name, pictures=shown)
