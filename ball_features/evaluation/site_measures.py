"""How much embeddings tell of the site: robustness index, and a linear model that names the site.

Robustness index: de Jong et al. 2025, "Current pathology foundation models are unrobust to medical center differences"
(arXiv 2501.18055). Among the nearest neighbours of each image, those of its class from another site are counted against
those of its site with another class. 1: neighbours follow the class, 0: they follow the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from ball_features.errors import ConfigError, DataError
from ball_features.models.adaptation import SiteAdapter

__all__ = ["SiteMeasures", "ViewMeasures", "measure_sites", "robustness_index", "site_accuracy"]

NEIGHBOURS = 50  # as in the paper
MOST_IMAGES = 5000  # a larger collection is measured on a sample of its images
_FOLDS = 5
_BLOCK = 1000  # images whose similarities are held at a time
_DRAWS = 1000
_SEED = 0


@dataclass(frozen=True)
class ViewMeasures:
    """Measures of one view.

    Attributes:
        view: name of the view.
        index: robustness index, a share; NaN where no neighbour tells site from class.
        index_low: lower end of its 95 % interval by a bootstrap over patients, or over images where none are known.
        index_high: upper end.
        site_accuracy: balanced accuracy of logistic regression that names the site, cross-validated; NaN
            where it was not asked.
        adapted_index: robustness index of embeddings less the offset of their site; None where a site holds one class.
        adapted_site_accuracy: accuracy of the site's name on these.
    """

    view: str
    index: float
    index_low: float
    index_high: float
    site_accuracy: float
    adapted_index: float | None
    adapted_site_accuracy: float | None


@dataclass(frozen=True)
class SiteMeasures:
    """What the views of a cache tell of its sites.

    Attributes:
        images: number of images measured.
        sites: number of their images by site.
        chance_index: robustness index of embeddings that tell neither class nor site.
        chance_accuracy: balanced accuracy of guessing the site.
        views: measures of each view.
        note: why embeddings less the offset of their site were not measured, or "".
    """

    images: int
    sites: dict[str, int]
    chance_index: float
    chance_accuracy: float
    views: tuple[ViewMeasures, ...]
    note: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)


def measure_sites(
    embeddings: Shaped[np.ndarray, "images views dim"],
    views: Sequence[str],
    label: Shaped[np.ndarray, " images"],
    site: Shaped[np.ndarray, " images"],
    unit: Int[np.ndarray, " images"],
    most: int = MOST_IMAGES,
    linear: bool = True,
) -> SiteMeasures:
    """Measure what each view tells of the site.

    Args:
        embeddings: float (images, views, dim).
        views: names of the views.
        label: class of each image.
        site: site of each image; images of "" are left out.
        unit: patient of each image, or what else shows the same; neighbours of one unit do not count.
        most: number of images above which a sample of so many is measured.
        linear: False leaves out how well a linear model names the site, which takes long for many sites.

    Raises:
        DataError: There are fewer than two sites or classes.
    """
    rows = np.flatnonzero(site != "")
    for name, values in (("sites", site[rows]), ("classes", label[rows])):
        if len(np.unique(values)) < 2:
            raise DataError(f"Got {len(np.unique(values))} {name}, expected at least two to measure what sites change.")
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(_SEED).choice(rows, most, replace=False))
    codes, names = np.unique(label[rows], return_inverse=True)[1], site[rows]
    sites, place = np.unique(names, return_inverse=True)
    measured, note = [], ""
    for number, name in enumerate(views):
        X = np.asarray(embeddings[rows, number], dtype=np.float32)
        try:
            centred = SiteAdapter().fit(X[:, None], codes, names).center(X[:, None], names)[:, 0]
        except ConfigError as error:
            centred, note = None, str(error)
        index, low, high = robustness_index(X, codes, place, unit[rows])

        def told(Z: np.ndarray) -> float:
            return site_accuracy(Z, place, unit[rows]) if linear else float("nan")

        measured.append(
            ViewMeasures(
                view=name,
                index=index,
                index_low=low,
                index_high=high,
                site_accuracy=told(X),
                adapted_index=None if centred is None else robustness_index(centred, codes, place, unit[rows])[0],
                adapted_site_accuracy=None if centred is None else told(centred),
            )
        )
    pairs = np.zeros(2)
    for c, s in zip(codes.tolist(), place.tolist(), strict=True):
        pairs += ((codes == c) & (place != s)).sum(), ((codes != c) & (place == s)).sum()
    counts = dict(zip(sites.tolist(), np.bincount(place).tolist(), strict=True))
    return SiteMeasures(len(rows), counts, pairs[0] / pairs.sum(), 1 / len(sites), tuple(measured), note)


def robustness_index(
    X: Float[np.ndarray, "images dim"],
    label: Int[np.ndarray, " images"],
    site: Int[np.ndarray, " images"],
    unit: Int[np.ndarray, " images"],
    neighbours: int = NEIGHBOURS,
) -> tuple[float, float, float]:
    """Compute the robustness index with its 95 % interval (percentile bootstrap over units).

    Args:
        X: embeddings, compared by cosine.
        label: class of each image.
        site: site of each image.
        unit: images of one unit are no neighbours of each other.
        neighbours: number of nearest neighbours of each image.

    Returns:
        Index and both ends of its interval; NaN where no neighbour tells site from class.
    """
    X = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)
    by_class, by_site = np.zeros(len(X)), np.zeros(len(X))
    for start in range(0, len(X), _BLOCK):
        own = slice(start, start + _BLOCK)
        cosine = X[own] @ X.T
        cosine[unit[own, None] == unit] = -np.inf
        nearest = np.argpartition(-cosine, min(neighbours, len(X) - 1) - 1, axis=1)[:, :neighbours]
        there = np.isfinite(np.take_along_axis(cosine, nearest, 1))
        same_class, same_site = label[nearest] == label[own, None], site[nearest] == site[own, None]
        by_class[own] = (there & same_class & ~same_site).sum(1)
        by_site[own] = (there & ~same_class & same_site).sum(1)
    units = np.unique(unit, return_inverse=True)[1]
    counts = np.stack([np.bincount(units, by_class), np.bincount(units, by_site)], 1)
    drawn = (
        np.random.default_rng(_SEED).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), _DRAWS) @ counts
    )
    with np.errstate(invalid="ignore"):
        value = counts.sum(0)[0] / counts.sum()
        shares = drawn[:, 0] / drawn.sum(1)
    low, high = np.nanpercentile(shares, [2.5, 97.5]) if np.isfinite(shares).any() else (np.nan, np.nan)
    return float(value), float(low), float(high)


def site_accuracy(
    X: Float[np.ndarray, "images dim"], site: Int[np.ndarray, " images"], unit: Int[np.ndarray, " images"]
) -> float:
    """Balanced accuracy of logistic regression that names the site, cross-validated with units kept whole.

    Args:
        X: embeddings.
        site: site of each image.
        unit: images of one unit stay in one fold.

    Returns:
        Mean recall over sites; NaN where a site has fewer units than two.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fewest = min(len(np.unique(unit[site == name])) for name in np.unique(site))
    if fewest < 2:
        return float("nan")
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=_SEED)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=300))
    told = cross_val_predict(model, X, site, groups=unit, cv=folds)
    return float(balanced_accuracy_score(site, told))
