"""What a run measures of sites and of distance: how much views tell of the site, accuracy of far images left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ball_features.bundles.calibration import neighbour_distance, unit_mean
from ball_features.cache import Cache
from ball_features.config import PROTOCOLS, FitConfig
from ball_features.errors import DataError
from ball_features.evaluation.elsewhere_rows import DistanceRow, SiteRow
from ball_features.evaluation.external import distance_bins
from ball_features.evaluation.protocols import ModelResult
from ball_features.evaluation.site_measures import measure_sites
from ball_features.evaluation.views import model_views

__all__ = ["distance_rows", "site_rows"]

_MOST_IMAGES = 1000  # of the sample on which sites are measured: a run should not wait for it
_MOST_SITES = 20  # that a linear model is asked to name


def site_rows(
    cache: Cache, config: FitConfig, results: Sequence[ModelResult], site: np.ndarray | None, unit: np.ndarray
) -> list[SiteRow]:
    """Measure what each view that the models used tells of the site; no rows without two sites and two classes.

    Args:
        cache: images with their embeddings.
        config: settings of the run.
        results: a result a model.
        site: site of each image, str (images,), "" where unknown, or None.
        unit: int (images,); images of one unit are no neighbours of each other.
    """
    specs = [item.spec for item in results if item.fitted and item.spec.features == "embedding"]
    if site is None or not specs:
        return []
    used = sorted({view for spec in specs for view in (0, *model_views(spec, cache, config).test)})
    names = [cache.view[view] for view in used]
    try:
        measured = measure_sites(
            cache.embeddings[:, used],
            names,
            cache.label,
            site,
            unit,
            most=_MOST_IMAGES,
            linear=len(np.unique(site[site != ""])) <= _MOST_SITES,
        )
    except DataError:
        return []
    return [
        SiteRow(
            **vars(own),
            chance_index=measured.chance_index,
            chance_accuracy=measured.chance_accuracy,
            images=measured.images,
            sites=len(measured.sites),
        )
        for own in measured.views
    ]


def distance_rows(
    cache: Cache, config: FitConfig, results: Sequence[ModelResult], unit: np.ndarray
) -> list[DistanceRow]:
    """Measure accuracy by distance to the training images, where groups are left out; no rows for few images.

    The distance is a bundle's: the mean cosine distance to the nearest training images, on the plain view.

    Args:
        cache: images with their embeddings.
        config: settings of the run.
        results: a result a model.
        unit: int (images,); images of one unit count as little more than one image in intervals.
    """
    fitted = [item for item in results if item.fitted]
    if PROTOCOLS[config.protocol].scheme != "leave-out" or not fitted:
        return []
    plain = cache.embeddings[:, :1]
    codes = np.unique(cache.label, return_inverse=True)[1]
    splits = [item.split for item in fitted[0].fitted]
    apart = np.concatenate([neighbour_distance(plain[s.test], unit_mean(plain[s.train]))[0] for s in splits])
    tested = np.concatenate([split.test for split in splits])
    rows = []
    for result in fitted:
        probability = np.concatenate([item.probability for item in result.fitted])
        bins = distance_bins(apart, probability.argmax(1) == codes[tested], probability.max(1), unit[tested])
        rows += [
            DistanceRow(
                model=result.spec.name,
                low=own.low,
                high=own.high,
                images=own.accuracy.images,
                accuracy=own.accuracy.value,
                accuracy_low=own.accuracy.low,
                accuracy_high=own.accuracy.high,
                confidence=own.confidence,
            )
            for own in bins
        ]
    return rows
