"""`ball labels`: which labels are doubtful, by models that have not seen the image and by its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import Cache, read_cache
from ball_features.config import FitConfig
from ball_features.dataset.grouping import read_grouping
from ball_features.dataset.manifest import open_images
from ball_features.dataset.units import merge_units
from ball_features.errors import ConfigError
from ball_features.evaluation.label_doubt import Doubts, doubts, neighbour_votes
from ball_features.evaluation.protocols import Progress, evaluate, fit_notes, require_fitted
from ball_features.evaluation.tasks import Evaluation
from ball_features.files import require_apart, write_csv
from ball_features.models.registry import select
from ball_features.outputs import require_free, require_writable
from ball_features.reporting.labels_page import LabelRow, write_labels_page
from ball_features.reporting.markup import Thumbnails
from ball_features.runs.checks import check_options, chosen_cache, require_unadapted, split_by

__all__ = ["LabelCheck", "check_labels"]

DEFAULT_MODELS = ("logistic", "lda")
_COLUMNS = ("path", "label", "suggested", "doubt", "flagged", "p_label", "p_suggested")


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """Doubt about every label of a cache.

    Attributes:
        rows: a row an image, the most doubtful first.
        flagged: number of labels that confident learning counts as wrong.
        notes: notes for the reader.
        out: file that was written.
        page: page that was written, or None.
    """

    rows: list[LabelRow]
    flagged: int
    notes: list[str]
    out: Path
    page: Path | None = None


def check_labels(
    cache_path: Path | str,
    out: Path | str,
    config: FitConfig | Mapping[str, Any] | None = None,
    *,
    page: Path | str | None = None,
    images: Path | str | None = None,
    progress: Progress | None = None,
) -> LabelCheck:
    """Rank the labels of a cache by doubt, and write them as a sheet to correct.

    Every model of a cross-validation judges images that it was not fitted on; groups and patients stay whole. The sheet
    has a row for each image: correct its column `label`, or empty it to leave the image out, and give the sheet to
    `ball extract`. Columns of the cache are kept in it.

    Args:
        cache_path: a complete cache, made by `extract`.
        out: sheet to write, a CSV; a file that exists is not replaced, since it may hold corrections.
        config: models (logistic regression and LDA if none is named), folds, groups, seed and number of processes.
        page: page to write with the most doubtful images, or None.
        images: folder, archive or address of the images, for pictures on the page; without it the page names files.
        progress: called with (fits done, all fits, model just done).

    Raises:
        CacheError: the cache is missing, incomplete or not finite.
        ConfigError: a model sees no embedding, or models are to be adapted to sites.
        DataError: the output exists or cannot be written, the groups file does not fit, or no model could be fitted.
        SplitError: a class is too small for the folds.
    """
    out, config = Path(out), FitConfig.of(config)
    require_free(out)
    place = None if images is None else open_images(images)
    page = None if page is None else Path(page)
    require_apart({"sheet": out, "page": page})
    require_writable(page, "page", kind="page", inputs=(cache_path,))
    specs = select(config.models or DEFAULT_MODELS)
    blind = [spec.name for spec in specs if spec.features != "embedding"]
    if blind:
        raise ConfigError(
            f"Got the models {', '.join(blind)}, which see no embedding of the image. Expected models on embeddings.",
            option="models",
        )
    require_unadapted(config, "a search for wrong labels")
    config = replace(config, protocol="cv", repeats=1)
    cache = chosen_cache(cache_path, config)
    check_options(config, specs, cache)
    grouping = read_grouping(config, cache.path, cache.label, cache.columns)
    splits, notes = split_by(config, cache, grouping)
    results = evaluate(Evaluation(cache, tuple(specs), tuple(splits), config, grouping), progress)
    require_fitted(results)
    notes += [*fit_notes(results), *(f"{own.spec.name} failed: {own.failure}" for own in results if own.failure)]
    classes, codes = np.unique(cache.label, return_inverse=True)
    probabilities = []
    for result in results:
        if result.fitted:
            probability = np.zeros((len(codes), len(classes)))
            for item in result.fitted:
                probability[item.split.test] = item.probability
            probabilities.append(probability)
    units = merge_units(cache.sha256) if grouping is None else grouping.units(config.protocol, cache.sha256)
    votes, neighbours = neighbour_votes(cache.embeddings[:, 0], codes, units, len(classes))
    cache.require_unchanged()
    found = doubts(probabilities, votes, neighbours, codes)
    rows = _rows(cache, classes, codes, found)
    flagged = int(found.flagged.sum())
    try:
        _write(out, rows, cache, found.order, read_cache(cache_path, embeddings=False))
    finally:  # the page is written too where something has come to the name of the sheet
        if page is not None:
            pictures, judges = Thumbnails(place, cache), [result.spec.name for result in results if result.fitted]
            write_labels_page(page, rows, flagged, pictures, judges)
            notes += pictures.notes()
    return LabelCheck(rows, flagged, notes, out, page)


def _rows(cache: Cache, classes: np.ndarray, codes: np.ndarray, found: Doubts) -> list[LabelRow]:
    return [
        LabelRow(
            path=str(cache.path[row]),
            label=str(cache.label[row]),
            suggested=str(classes[found.suggested[row]]),
            doubt=float(found.doubt[row]),
            flagged=bool(found.flagged[row]),
            p_label=float(found.probability[row, codes[row]]),
            p_suggested=float(found.probability[row, found.suggested[row]]),
            alike="" if found.nearest[row] < 0 else str(cache.path[found.nearest[row]]),
        )
        for row in found.order
    ]


def _write(out: Path, rows: list[LabelRow], cache: Cache, order: np.ndarray, whole: Cache) -> None:
    """Write the sheet: what is given, what is suggested, and the columns of the cache; images without a label last."""
    own = [name for name in cache.columns if name not in _COLUMNS]
    lines: list[tuple[object, ...]] = [
        (
            row.path,
            row.label,
            row.suggested,
            round(row.doubt, 4),
            "yes" if row.flagged else "",
            round(row.p_label, 4),
            round(row.p_suggested, 4),
            *(str(cache.columns[name][place]) for name in own),
        )
        for row, place in zip(rows, order, strict=True)
    ]
    # Without a row, an image that was left out earlier would get the class of its folder again.
    for place in np.flatnonzero(whole.label == ""):
        blank = ("",) * (len(_COLUMNS) - 1)
        lines.append((str(whole.path[place]), *blank, *(str(whole.columns[name][place]) for name in own)))
    write_csv(out, (*_COLUMNS, *own), lines)
