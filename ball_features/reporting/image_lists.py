"""The images behind a run's figures: errors, the least certain ones, their neighbours, and the map of embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.cache import Cache
from ball_features.dataset.manifest import spread_rows
from ball_features.reporting.answer_colours import Answers
from ball_features.reporting.map_columns import known_columns, plane, unit_length
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails
from ball_features.reporting.nearest_images import Neighbours
from ball_features.reporting.scatter import EmbeddingMap, embedding_map, told_apart
from ball_features.reporting.stored_run import StoredPredictions, StoredRun

__all__ = ["ImageLists", "image_lists"]

_SHOWN = 40  # errors and uncertain images listed
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
        mapped_of: number of images of which the map shows some; 0 where it shows all.
    """

    model: str
    wrong: int
    wrong_images: int
    predictions: int
    errors: Table
    unsure: Table
    map: EmbeddingMap | None
    mapped_of: int = 0


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
    near = None if cache is None else Neighbours(cache, parts.trained)
    errors, doubtful = (
        _listing(found, run.classes, rows, near, pictures, f"{title} of {model}, {run.details['title']}")
        for rows, title in ((wrong, "Errors"), (unsure, "Least certain images"))
    )
    shown = None if cache is None or near is None else _map(run, model, cache, pictures, name)
    wrong_images = len({found.path[row] for row in wrong})
    some = len(cache.path) if cache is not None and len(cache.path) > _MAP_IMAGES else 0
    return ImageLists(model, len(wrong), wrong_images, len(found.path), errors, doubtful, shown, some)


def _listing(
    found: StoredPredictions,
    classes: list[str],
    rows: np.ndarray,
    near: Neighbours | None,
    pictures: Thumbnails,
    name: str,
) -> Table:
    chosen: dict[str, int] = {}
    for row in rows.tolist():
        if len(chosen) == _SHOWN:
            break
        chosen.setdefault(found.path[row], row)
    nearest = [] if near is None else near.of([(path, found.split[row]) for path, row in chosen.items()])
    listed = []
    for number, (path, row) in enumerate(chosen.items()):
        probability = found.probability[row]
        cells = [
            Cell(path, pictures=(pictures.picture(path),)),
            Cell(classes[int(found.truth[row])]),
            Cell(classes[int(probability.argmax())]),
            Cell(f"{probability.max():.3f}", float(probability.max())),
        ]
        if near is not None:
            cells.append(Cell(pictures=tuple(pictures.picture(other) for other in nearest[number])))
        listed.append(Row(tuple(cells)))
    header = ("image", "label", "predicted", "confidence", *(() if near is None else ("nearest training images",)))
    return Table(header, tuple(listed), name, 3, wrapped=4)


def _map(run: StoredRun, model: str, cache: Cache, pictures: Thumbnails, name: str) -> EmbeddingMap:
    parts, found = run.parts(), run.predictions[model]
    rows = spread_rows(len(cache.path), _MAP_IMAGES)
    place = plane(unit_length(cache, rows))
    names = [str(path) for path in cache.path[rows]]
    label, predicted = ([run.classes[code] for code in codes] for codes in (found.truth, found.probability.argmax(1)))
    answers = Answers.of(zip(found.path, label, predicted, strict=True))
    split = [parts.first.get(path, _NOT_USED) for path in names]
    colourings = {
        "class": told_apart(cache.label[rows]),
        "predicted class": answers.predicted(names, cache.label[rows]),
        "error": answers.errors(names),
        "split": told_apart(np.array(split)),
    }
    words = [
        f"{path}: {label}, {part}" + (f", predicted {answers.first[path]}" if path in answers.first else "")
        for path, label, part in zip(names, cache.label[rows], split, strict=True)
    ]
    for column, values in known_columns(cache, run.details["config"].get("groups"), parts.group).items():
        colourings[f"{column} (sheet)" if column in colourings else column] = told_apart(values[rows])
        words = [f"{word}, {column} {value}" for word, value in zip(words, values[rows], strict=True)]
    shown = [] if pictures.folder is None else [pictures.address(path) for path in names]
    return embedding_map(place, words, colourings, name=name, pictures=shown)
