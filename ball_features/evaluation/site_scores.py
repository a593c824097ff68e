"""Metrics of sites: each site on its own, and the mean over sites with an interval by a bootstrap over sites."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ball_features.evaluation.intervals import Interval, share_interval
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.resampling import draw_groups, widened_quantiles

__all__ = ["SiteMeans", "SiteScores", "measure_sites"]

_DRAWS = 1000


@dataclass(frozen=True)
class SiteScores:
    """A model on the images of one site.

    Attributes:
        site: name of the site.
        images: number of images.
        accuracy: share of correct predictions.
        low: lower end of its 95 % interval.
        high: upper end.
        values: name of a metric -> its value; means are over the classes that the site has.
        flagged: share of images that are flagged as unlike the training images.
    """

    site: str
    images: int
    accuracy: float
    low: float
    high: float
    values: dict[str, float]
    flagged: float

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class SiteMeans:
    """Means over sites, each site counting the same.

    Attributes:
        sites: number of sites.
        values: name of a metric -> its mean over the sites that have a value.
        intervals: name of a metric -> the 95 % interval of the mean: it covers chance in the choice of sites.
    """

    sites: int
    values: dict[str, float]
    intervals: dict[str, Interval]

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        ends = {name: {"low": low, "high": high} for name, (low, high) in self.intervals.items()}
        return {"sites": self.sites, "values": self.values, "intervals": ends}


def measure_sites(
    site: Shaped[np.ndarray, " images"],
    truth: Int[np.ndarray, " images"],
    probability: Float[np.ndarray, "images classes"],
    unit: Int[np.ndarray, " images"],
    unusual: Bool[np.ndarray, " images"],
) -> tuple[list[SiteScores], SiteMeans | None]:
    """Measure a model on each site.

    Args:
        site: site of each image, str (images,); images without a name ("") are left out.
        truth: true class indices, int (images,).
        probability: class probabilities, float (images, classes).
        unit: number of the unit of each image, int (images,).
        unusual: images that are flagged as unlike the training images, bool (images,).

    Returns:
        A row a site in the order of their names, and the means over them; None for fewer than two sites.
    """
    rows = []
    for name in np.unique(site[site != ""]).tolist():
        own = site == name
        scores = evaluate_predictions(truth[own], probability[own])
        low, high = share_interval(probability[own].argmax(1) == truth[own], unit[own])
        accuracy, flagged = scores.values["accuracy"], float(unusual[own].mean())
        rows.append(SiteScores(name, int(own.sum()), accuracy, low, high, scores.values, flagged))
    if len(rows) < 2:
        return rows, None
    values = {name: np.array([row.values[name] for row in rows]) for name in rows[0].values}
    means = {name: float(np.nanmean(own)) if np.isfinite(own).any() else float("nan") for name, own in values.items()}
    return rows, SiteMeans(len(rows), means, {name: _interval(own) for name, own in values.items()})


def _interval(values: np.ndarray) -> Interval:
    """95 % interval of the mean over sites, (sites,), NaN where a site has no value."""
    values = values[np.isfinite(values)]
    if len(values) < 2 or np.ptp(values) == 0:
        return float("nan"), float("nan")
    means = [(drawn @ values) / len(values) for drawn in draw_groups(len(values), _DRAWS, 0)]
    low, high = np.quantile(np.concatenate(means), widened_quantiles(np.ones(len(values)), 0.95))
    return float(low), float(high)
