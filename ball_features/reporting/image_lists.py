"""The images behind a run's figures: errors, the least certain ones, their neighbours, and the map of embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ball_features.cache import Cache
from ball_features.dataset.grouping import read_groups
from ball_features.dataset.manifest import spread_rows
from ball_features.errors import DataError
from ball_features.reporting.markup import Cell, Row, Table, Thumbnails
from ball_features.reporting.nearest_images import Neighbours
from ball_features.reporting.scatter import EmbeddingMap, embedding_map, told_apart
from ball_features.reporting.stored_run import Parts, StoredPredictions, StoredRun

__all__ = ["ImageLists", "image_lists"]

_SHOWN = 40  # errors and uncertain images listed
_MAP_IMAGES = 5000
_NOT_USED = "not used"
_KNOWN = ("group", "patient", "site", "series", "batch", "overlay", "encoding")  # columns that colour the map first
_COLUMNS = 10


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
    shown = None if cache is None or near is None else _map(run, model, cache, near, pictures, name)
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


def _columns(run: StoredRun, cache: Cache, parts: Parts) -> dict[str, np.ndarray]:
    """What is known of each image beside its class: columns of the cache and of the groups file, if still there."""
    groups = run.details["config"].get("groups")
    found: dict[str, np.ndarray] = {}
    for column in _KNOWN if groups else ():
        try:
            found[column] = read_groups(groups, column, cache.path.tolist())
        except DataError:  # no such file any more, or no such column
            continue
    if groups and "group" not in found and set(cache.path.tolist()) <= parts.group.keys():
        found["group"] = np.array([parts.group[path] for path in cache.path.tolist()])
    own = cache.columns
    for column in [*(name for name in _KNOWN if name in own), *(name for name in own if name not in _KNOWN)]:
        if column not in found:
            found[column] = np.where(own[column] == "", "(empty)", own[column])
    most = {name: len(cache.path) - 1 if name in _KNOWN else len(cache.path) // 2 for name in found}
    several = {name: values for name, values in found.items() if 1 < len(np.unique(values)) <= most[name]}
    return dict(list(several.items())[:_COLUMNS])


def _map(run: StoredRun, model: str, cache: Cache, near: Neighbours, pictures: Thumbnails, name: str) -> EmbeddingMap:
    from sklearn.decomposition import PCA

    parts, found = run.parts(), run.predictions[model]
    rows = spread_rows(len(cache.path), _MAP_IMAGES)
    with np.errstate(invalid="ignore", divide="ignore"):  # embeddings that are all the same have no variance
        place = PCA(2, svd_solver="randomized", random_state=0).fit_transform(near.unit(rows))
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
    for column, values in _columns(run, cache, parts).items():
        colourings[f"{column} (sheet)" if column in colourings else column] = told_apart(values[rows])
        words = [f"{word}, {column} {value}" for word, value in zip(words, values[rows], strict=True)]
    shown = [] if pictures.folder is None else [pictures.address(path) for path in names]
    return embedding_map(place, words, colourings, name=name, pictures=shown)
