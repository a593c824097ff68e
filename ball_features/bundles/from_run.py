"""Bundles of the models of a run: the first split's model, or the final one, fitted on all labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ball_features import __version__
from ball_features.bundles.calibration import neighbour_distance, unit_mean
from ball_features.bundles.facts import BundleFacts
from ball_features.bundles.known_sites import Sites
from ball_features.bundles.left_out_sites import LabelledEmbeddings, score_left_out, score_within
from ball_features.bundles.saving import HeldOut, write_bundle
from ball_features.cache import Cache, read_rows
from ball_features.config import FitConfig
from ball_features.evaluation.final_fit import FinalFit
from ball_features.evaluation.fit_split import Fitted
from ball_features.evaluation.site_shift import used_views
from ball_features.evaluation.views import model_views
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.models.one_class import OneClassRecord
from ball_features.models.recipe_choice import RecipeChoice
from ball_features.models.registry import MODELS
from ball_features.models.row_stream import stratified

__all__ = ["Origin", "bundle_final", "bundle_fitted"]

PAST_MEMORY_IMAGES = 20_000  # of each part that calibrate a bundle where rows exceed the memory


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a bundle comes from.

    Attributes:
        cache: cache that the model was fitted on.
        config: settings of the run.
        conformal: one of `config.bundling.CONFORMAL`.
        site: site of each image to which models were adapted, (images,), or None.
        unit: unit of each image, int (images,), as in `LabelledEmbeddings`, or None.
        one_class: model -> what batches of one class did to it, on the sites that the run left out.
    """

    cache: Cache
    config: FitConfig
    conformal: str = "marginal"
    site: np.ndarray | None = None
    unit: np.ndarray | None = None
    one_class: Mapping[str, OneClassRecord] = field(default_factory=dict)


def bundle_fitted(folder: Path, origin: Origin, fitted: Fitted, name: str) -> None:
    """Write the bundle of a model that was fitted on the first split, whose validation images calibrate it.

    Args:
        folder: folder of the run's models; the bundle becomes the folder `name` in it.
        origin: cache and settings.
        fitted: fitted model with its estimator.
        name: name of the model.
    """
    cache, split = origin.cache, fitted.split
    estimator, views, own = _compact(origin, fitted, name)
    used = _Used(origin, fitted, name, views)
    share = 100 * len(split.train) / len(cache.path)
    note = (
        f"The bundle is the first split's model, fitted on {len(split.train)} of {len(cache.path)} images "
        f"({share:.0f} %): {len(split.val)} others calibrate it and {len(split.test)} test it."
    )
    codes = np.unique(cache.label, return_inverse=True)[1]
    parts = (split.train, split.val, split.test)
    if fitted.fitted_on:
        parts = tuple(stratified(rows, codes, PAST_MEMORY_IMAGES, origin.config.seed) for rows in parts)
        note += (
            f" Rows exceed the memory ({fitted.fitted_on}): {len(parts[0])} training, {len(parts[1])} validation and "
            f"{len(parts[2])} test images stand for all of them in its calibration and its flag for unusual images."
        )
    if split.name:
        note += f" It has seen nothing of {split.name}, the first group left out."
    facts = _facts(
        origin,
        name,
        views,
        (split.train, parts[0]),
        notes=(note,),
        model_views=own,
        left_out=split.name,
        one_class=origin.one_class.get(name),
        validation_images=len(split.val),
    )
    write_bundle(
        folder / name,
        estimator,
        facts,
        train=used(parts[0]),
        validation=used(parts[1]),
        test=used(parts[2]),
        sites=used.sites,
    )


def bundle_final(folder: Path, origin: Origin, final: FinalFit) -> None:
    """Write the bundle of a model that was fitted on all images, calibrated by out-of-fold predictions.

    Args:
        folder: folder of the run's models; the bundle becomes a folder of the model's name in it.
        origin: cache and settings.
        final: the fit, with its folds.
    """
    name = final.spec.name
    estimator, views, own = _compact(origin, final.fitted, name)
    train, held_out = final.fitted.split.train, [fold.split.test for fold in final.folds]
    shown = train
    codes = np.unique(origin.cache.label, return_inverse=True)[1]
    past = any(item.fitted_on for item in (final.fitted, *final.folds))

    def some(rows: np.ndarray, count: int) -> np.ndarray:
        return stratified(rows, codes, count, origin.config.seed) if past else rows

    trained = f" for {final.epochs} epochs, the median of its folds" if final.epochs else ""
    note = (
        f"The bundle is the final model, fitted on all {len(train)} labelled images{trained}. No image tested it: its "
        f"figures are those of {len(final.folds)} folds, whose models were fitted on the other images, and the "
        f"out-of-fold predictions on {sum(map(len, held_out))} images calibrate it."
    )
    if past:
        shown = some(train, PAST_MEMORY_IMAGES)
        count = PAST_MEMORY_IMAGES // len(held_out)
        held_out = [rows[np.isin(rows, some(rows, count))] for rows in held_out]
        words = ", ".join(dict.fromkeys(filter(None, (item.fitted_on for item in (final.fitted, *final.folds)))))
        note += (
            f" Rows exceed the memory ({words}): {len(shown)} training images and {sum(map(len, held_out))} images of "
            "the folds stand for all of them in its calibration and its flag for unusual images."
        )
    rows = np.concatenate(held_out)
    facts = _facts(
        origin,
        name,
        views,
        (train, shown),
        notes=(note,),
        model_views=own,
        final=True,
        folds=len(final.folds),
        epochs=final.epochs,
        one_class=OneClassRecord.joined([fold.one_class for fold in final.folds]) or origin.one_class.get(name),
        validation_images=len(rows),
    )
    distances, scores, truth, raw = [], [], [], []
    for fold, tested in zip(final.folds, held_out, strict=True):
        used = _Used(origin, fold, name, views)
        seen, held = used(some(fold.split.train, PAST_MEMORY_IMAGES)), used(tested)
        reference = unit_mean(_of(seen.X, own)).astype(np.float16).astype(np.float32)  # as a bundle keeps it
        distances.append(neighbour_distance(_of(held.X, own), reference)[0])
        scores.append(seen.measures().score(held.X, held.histogram))
        truth.append(held.truth)
        raw.append(fold.probability[np.isin(fold.split.test, tested)])
    truth, distances, scores, probability = (np.concatenate(part) for part in (truth, distances, scores, raw))
    fold_of = np.repeat(np.arange(len(held_out)), [len(part) for part in held_out])
    used = _Used(origin, final.fitted, name, views)
    reference, held = used(shown), used(rows)
    if any(fold.shifts for fold in final.folds):  # which left sites out; within known sites, images lie closer
        unit = np.arange(len(origin.cache.path)) if origin.unit is None else origin.unit
        scores = score_within(reference, held, (unit[shown], unit[rows]), origin.config.seed)
    seen = HeldOut(probability, truth, distances, fold_of, scores, _rows_of(origin.unit, rows))
    write_bundle(
        folder / name,
        estimator,
        facts,
        train=reference,
        validation=replace(seen, elsewhere=score_left_out(reference, held)),
        sites=used.sites,
    )


@dataclass(frozen=True, eq=False)
class _Used:
    """Embeddings of a bundle's views as a fitted model takes them: less the offset of their site if it is adapted."""

    origin: Origin
    fitted: Fitted
    name: str
    views: list[int]

    @property
    def _positions(self) -> list[int]:
        """Positions of the bundle's views among those that the adapter knows."""
        known = used_views(model_views(MODELS[self.name], self.origin.cache, self.origin.config))
        return [known.index(view) for view in self.views]

    @property
    def sites(self) -> Sites | None:
        """Offsets of the training sites, of the bundle's views."""
        adapter = self.fitted.adapter
        return None if adapter is None else Sites(adapter.select(self._positions))

    def __call__(self, rows: np.ndarray) -> LabelledEmbeddings:
        """These images with their classes; rows is int (images,)."""
        cache, sites, site = self.origin.cache, self.sites, self.origin.site
        X = read_rows(cache.embeddings, rows)[:, self.views]
        truth, unit = np.unique(cache.label, return_inverse=True)[1][rows], _rows_of(self.origin.unit, rows)
        if sites is None or site is None:
            return LabelledEmbeddings(X, truth, unit, _rows_of(cache.shortcuts.get("histogram"), rows))
        X = X.astype(np.float32)
        length = np.linalg.norm(X, axis=2).sum(0) / max(len(X), 1)
        for name in np.unique(site[rows]).tolist():
            X[site[rows] == name] -= self._offset(sites, str(name))
        # Sites differ in colour: to a model that is adapted to them, that is nothing unusual.
        return LabelledEmbeddings(X, truth, unit, None, site[rows], length)

    def _offset(self, sites: Sites, name: str) -> np.ndarray:
        known = sites.find(name)
        if known is not None:
            return known
        if name in self.fitted.shifts:
            return self.fitted.shifts[name].offset[self._positions]
        return sites.adapter.average


def _rows_of(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[rows]


def _of(X: np.ndarray, own: tuple[int, ...]) -> np.ndarray:
    """The views that the model sees."""
    return X[:, list(own)] if own else X


def _compact(origin: Origin, fitted: Fitted, name: str) -> tuple[Any, list[int], tuple[int, ...]]:
    """The estimator for the views that it needs, the views of its bundle, and the positions of the model's in them.

    Views are numbers in the cache. The plain one is always among those of the bundle, for the flag for unusual images.
    """
    views = list(model_views(MODELS[name], origin.cache, origin.config).test)
    estimator = fitted.estimator
    if isinstance(estimator, RecipeChoice):  # a bundle makes the views that it needs
        used, estimator = estimator.compact()
        views = [views[position] for position in used]
    if 0 in views:
        return estimator, views, ()
    return estimator, [0, *views], tuple(range(1, len(views) + 1))


def _facts(
    origin: Origin, name: str, views: list[int], rows: tuple[np.ndarray, np.ndarray], **more: Any
) -> BundleFacts:
    """What `bundle.json` says of a model of a run before it is calibrated.

    Args:
        origin: cache and settings.
        name: name of the model.
        views: views of the bundle, by their number in the cache.
        rows: training images, and those of them whose embeddings the bundle keeps, int (images,).
        more: further fields.
    """
    cache, (train, kept) = origin.cache, rows
    joined = len(cache.channels_used) if cache.combine == "concat" else 1
    preprocessing = Preprocessing.from_attributes(cache.attributes, dim=cache.embeddings.shape[2] // joined)
    return BundleFacts(
        model=name,
        classes=tuple(str(item) for item in np.unique(cache.label)),
        preprocessing=preprocessing.select(views),
        train_path=tuple(str(path) for path in cache.path[kept]),
        cache_fingerprint=cache.fingerprint,
        protocol=origin.config.protocol,
        train_images=len(train),
        ball_version=__version__,
        conformal=origin.conformal,
        forward_pass=cache.forward_pass,
        adapt="none" if origin.site is None else origin.config.adapt,
        sites=() if origin.site is None else tuple(str(name) for name in np.unique(origin.site[train])),
        **more,
    )
