"""Images of elsewhere, from a folder or a cache, with their labels and what a bundle predicts of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.bundles.bundle import Bundle
from ball_features.bundles.calibration import unit_mean
from ball_features.bundles.prediction import Prediction, describe
from ball_features.bundles.predictor import Predictor
from ball_features.bundles.site_use import describe_sites
from ball_features.cache import Cache, choose_channels
from ball_features.config import CollectionConfig, EvaluateConfig
from ball_features.config.paths import shown_path
from ball_features.dataset.listing import Rejected
from ball_features.dataset.manifest import scan
from ball_features.dataset.sheet import read_sheet
from ball_features.errors import CacheError, DataError
from ball_features.extraction.engine.choose import COMPILE_FROM
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.runs.mixed_sites import mixed_note, mixed_sites

__all__ = ["ExternalImages", "predict_cache", "predict_folder"]

# Cosine distance to the nearest training image below which an image is one of them, but for rounding.
_SAME = 1e-5
_SAME_NAME = 2e-4  # the same for files of one name: another precision or batch moves an embedding by as much
_ROWS = 2000  # images of a cache that are predicted at once


@dataclass(frozen=True, eq=False)
class ExternalImages:
    """Images with their labels and predictions.

    Attributes:
        source: folder or cache, as it was given.
        path: ids of the images.
        label: class of each image as the source names it; "" where it is not known.
        sha256: content hash of each image.
        columns: further columns: name -> text of each image, "" where it is not known.
        predictions: prediction on each image.
        trained_on: images whose embedding is that of a training image, bool (images,).
        rejected: files that could not be used.
        notes: remarks for the user.
    """

    source: str
    path: tuple[str, ...]
    label: tuple[str, ...]
    sha256: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    predictions: list[Prediction]
    trained_on: np.ndarray
    rejected: list[Rejected]
    notes: list[str]


def predict_folder(
    bundle: Bundle,
    folder: Path | str,
    config: EvaluateConfig,
    *,
    collection: CollectionConfig | None = None,
    sheet: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExternalImages:
    """Read the labels of a folder, embed its images and predict them.

    Args:
        bundle: fitted model.
        folder: folder, archive or address of images.
        config: weights, device and coverage.
        collection: layout of the folders, and path and columns of a sheet.
        sheet: a data frame, or a path that goes before that of `collection`.
        progress: called with (images done, images in all).

    Raises:
        DataError: The folder holds no image that can be read, or no label.
        WeightsError: The weights are missing, or not those of the bundle.
    """
    manifest = scan(folder, collection=collection, sheet=sheet, least_classes=0, anywhere=True)
    named = shown_path(folder)
    _require_labels(manifest.label, named)
    predictor = Predictor(
        bundle,
        weights=config.weights,
        device=config.device,
        precision=config.precision,
        compiled=len(manifest.path) >= COMPILE_FROM,
    )
    files = [manifest.root / name for name in manifest.path]
    row_of = {str(file): row for row, file in enumerate(files)}
    found: dict[int, tuple[Prediction, bool]] = {}
    parts: dict[int, np.ndarray] = {}
    rejected = list(manifest.rejected)
    done = 0
    for part in predictor.embed_files(files):
        rejected += [replace(item, path=manifest.path[row_of[item.path]]) for item in part.rejected]
        if part.paths:
            rows = [row_of[name] for name in part.paths]
            items = describe(bundle, [manifest.path[row] for row in rows], part.X, config.coverage, part.histogram)
            parts |= {} if bundle.sites is None else dict(zip(rows, part.X, strict=True))
            same = _trained_on(bundle, part.paths, part.X)
            found |= dict(zip(rows, zip(items, same, strict=True), strict=True))
        done += len(part.paths) + len(part.rejected)
        if progress:
            progress(done, len(files))
    if not found:
        listed = "".join(f"\n  {item.path}: {item.reason}" for item in rejected[:5])
        raise DataError(f"No image of {named} can be read. Rejected files:{listed}")
    keep = sorted(found)
    notes = []
    if bundle.sites is not None and "site" in manifest.columns:
        paths, site = ([values[row] for row in keep] for values in (manifest.path, manifest.columns["site"]))
        X = np.stack([parts[row] for row in keep])
        mixed = mixed_sites(site, [manifest.label[row] for row in keep])
        items, notes = describe_sites(bundle, paths, X, config.coverage, site, mixed=mixed)
        notes += mixed_note(bundle, mixed)
        found = {row: (item, found[row][1]) for row, item in zip(keep, items, strict=True)}
    return ExternalImages(
        source=named,
        path=tuple(manifest.path[row] for row in keep),
        label=tuple(manifest.label[row] for row in keep),
        sha256=tuple(manifest.sha256[row] for row in keep),
        columns={name: tuple(cells[row] for row in keep) for name, cells in manifest.columns.items()},
        predictions=[found[row][0] for row in keep],
        trained_on=np.array([found[row][1] for row in keep]),
        rejected=rejected,
        notes=[
            *notes,
            *manifest.classes,
            *manifest.note.splitlines(),
            *([predictor.caveat] if predictor.caveat else []),
        ],
    )


def predict_cache(
    bundle: Bundle,
    cache: Cache,
    source: str,
    config: EvaluateConfig,
    *,
    collection: CollectionConfig | None = None,
    sheet: Any = None,
) -> ExternalImages:
    """Predict from the embeddings of a cache.

    Args:
        bundle: fitted model.
        cache: embeddings, made with the bundle's settings.
        source: name of the cache.
        config: coverage.
        collection: path and columns of a sheet.
        sheet: a data frame, or a path that goes before that of `collection`.

    Raises:
        CacheError: The cache was made with other settings, or lacks a view of the bundle.
        DataError: The images have no labels, or the sheet does not fit.
    """
    cache, views = _as_the_bundle(bundle, cache, source)
    rows = np.flatnonzero(cache.committed)
    path = cache.path[rows].tolist()
    label, columns = cache.label[rows].tolist(), {name: cells[rows].tolist() for name, cells in cache.columns.items()}
    table = sheet if sheet is not None else (collection and collection.sheet) or None
    notes = [] if cache.complete else [f"{source} is incomplete: {len(cache.path) - len(rows)} images are left out."]
    if table is not None:
        own = read_sheet(table, collection)
        own = (own if any(label) else own.with_marked_classes()).rows_of(path, columns.get("patient", ()))
        label = list(own.columns["label"]) if "label" in own.columns else label
        columns |= {name: list(cells) for name, cells in own.columns.items() if name != "label"}
        notes += own.remarks
    _require_labels(label, source)
    predictions: list[Prediction] = []
    adapts = bundle.sites is not None and "site" in columns
    if adapts:
        every = cache.embeddings[rows][:, views].astype(np.float32)
        mixed = mixed_sites(columns["site"], label)
        predictions, said = describe_sites(bundle, path, every, config.coverage, columns["site"], mixed=mixed)
        notes += [*said, *mixed_note(bundle, mixed)]
    same, colours = [], cache.shortcuts.get("histogram")
    for start in range(0, len(rows), _ROWS):
        block = slice(start, start + _ROWS)
        X = cache.embeddings[rows[block]][:, views].astype(np.float32)
        own = None if colours is None else colours[rows[block]]
        predictions += [] if adapts else describe(bundle, path[block], X, config.coverage, own)
        same.append(_trained_on(bundle, path[block], X))
    cache.require_unchanged()
    return ExternalImages(
        source=source,
        path=tuple(path),
        label=tuple(label),
        sha256=tuple(cache.sha256[rows].tolist()),
        columns={name: tuple(cells) for name, cells in columns.items()},
        predictions=predictions,
        trained_on=np.concatenate(same),
        rejected=list(cache.rejected),
        notes=notes,
    )


def _require_labels(label: Sequence[str], source: str) -> None:
    if not any(label):
        raise DataError(
            f"{source} has {len(label)} images without a class. An evaluation needs labels: class folders, or a sheet "
            "with a column label. Without labels, use `ball predict`."
        )


def _trained_on(bundle: Bundle, paths: Sequence[str], X: np.ndarray) -> np.ndarray:
    """Images whose embedding is that of a training image, bool (images,).

    A site-adapted bundle keeps each training image less the offset of its site, so that every training site is tried.
    """
    names = () if bundle.sites is None else bundle.sites.training
    tried = [own for name in names if (own := bundle.at_site(name)) is not None] or [bundle]
    return np.any([_same_embedding(own, paths, X) for own in tried], axis=0)


def _same_embedding(bundle: Bundle, paths: Sequence[str], X: np.ndarray) -> np.ndarray:
    """Images whose nearest training image has their embedding, bool (images,); under one name more may differ."""
    length = np.maximum(np.linalg.norm(bundle.train, axis=1), 1e-12)  # stored with 16 bits
    cosine = unit_mean(bundle.model_views(X)) @ bundle.train.T / length
    nearest = cosine.argmax(1)
    names = [bundle.train_path[row].rsplit("/", 1)[-1] for row in nearest]
    same_name = [path.rsplit("/", 1)[-1] == name for path, name in zip(paths, names, strict=True)]
    return 1 - cosine[np.arange(len(X)), nearest] < np.where(same_name, _SAME_NAME, _SAME)


def _as_the_bundle(bundle: Bundle, cache: Cache, source: str) -> tuple[Cache, list[int]]:
    """The cache with the bundle's channels, and positions of the bundle's views in it.

    Raises:
        CacheError: The embeddings are not those that the bundle takes.
    """
    own = bundle.facts.preprocessing
    remedy = "Extract the images with the settings of the bundle, or give their folder instead of a cache."
    if cache.channels != ("original",) or own.channels != ("original",):
        if set(own.channels) - set(cache.channels):
            raise CacheError(
                f"{source} has the channels {', '.join(cache.channels)}, expected those of the bundle: "
                f"{', '.join(own.channels)}. {remedy}"
            )
        cache = choose_channels(cache, own.channels, own.combine or "concat")
    found = Preprocessing.from_attributes(cache.attributes)
    names = ["backbone", "weights_sha256", "pooling", "input_px", "normalize"]
    if any(step.takes == "mask" for view in own.plan.views for step in view.steps):
        names.append("overlay_mask")
    if not all(view.fixed for view in own.plan.views):
        names.append("seed")
    theirs, ours = found.to_attributes(), own.to_attributes()
    other = [
        f"{name} {theirs.get(name)} (bundle: {ours.get(name)})" for name in names if theirs.get(name) != ours.get(name)
    ]
    place = {(view.steps, view.readout, view.number): number for number, view in enumerate(found.plan.views)}
    wanted = [(view.steps, view.readout, view.number) for view in own.plan.views]
    other += [f"no view {view.name}" for view, key in zip(own.plan.views, wanted, strict=True) if key not in place]
    if other:
        raise CacheError(f"{source} holds other embeddings than the bundle takes: {', '.join(other)}. {remedy}")
    return cache, [place[key] for key in wanted]
