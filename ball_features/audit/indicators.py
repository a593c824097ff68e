"""Indicators of an audit: unusual images, and how far colour, overlays or kinds of file alone predict the class."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ball_features.audit.traits import Traits
from ball_features.dataset.spread import spread_rows

__all__ = ["find_outliers", "mutual_information_bits", "shortcut_accuracy"]

_FOLDS = 5
_TREES = 200
_COMPARED = 20_000  # images with which the embedding of each is compared


def find_outliers(traits: Traits, embeddings: np.ndarray | None) -> dict[int, str]:
    """Find blank, blurred and oddly coloured images, and embeddings far from all others.

    Args:
        traits: traits of the images.
        embeddings: embeddings of the same images, float (images, dim), NaN where there is none; None without a cache.

    Returns:
        Row -> reason. Thresholds are on robust z-scores (median and median absolute deviation).
    """

    def robust(value: np.ndarray) -> np.ndarray:
        middle = np.median(value)
        return (value - middle) / max(1.4826 * float(np.median(np.abs(value - middle))), 1e-6)

    root = np.sqrt(traits.colour)
    far = robust(np.log(np.linalg.norm(root - np.median(root, axis=0), axis=1) + 1e-6))
    alone = np.zeros(len(root))
    if embeddings is not None:
        known = ~np.isnan(embeddings).any(1)
        known &= known.sum() > 1  # one alone is near nothing
        if known.any():
            alone[known] = robust(np.log(_neighbour_distance(embeddings[known]) + 1e-6))
    blurred = robust(np.log(traits.sharp + 1e-3)) < -3.5
    found: dict[int, str] = {}
    for row in range(len(root)):
        if traits.spread[row] < 4:
            found[row] = "blank"
        elif blurred[row]:
            found[row] = "blurred"
        elif far[row] > 4:
            found[row] = "unusual colour"
        elif alone[row] > 4:
            found[row] = "its embedding is far from all others"
    return found


def _neighbour_distance(embeddings: np.ndarray) -> np.ndarray:
    """Return the mean cosine distance to the five nearest other images, or those of a sample, float32 (images,)."""
    from sklearn.neighbors import NearestNeighbors

    unit = embeddings.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    count = min(5, len(unit) - 1)
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute")
    if len(unit) <= _COMPARED:
        return search.fit(unit).kneighbors()[0].mean(1)
    rows = spread_rows(len(unit), _COMPARED)
    distance, _ = search.fit(unit[rows]).kneighbors(unit, count + 1)
    among = np.isin(np.arange(len(unit)), rows)  # whose nearest is themselves
    return np.where(among[:, None], distance[:, 1:], distance[:, :-1]).mean(1)


def mutual_information_bits(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mutual information of two labellings, in bits."""
    from sklearn.metrics import mutual_info_score

    return float(mutual_info_score(a, b) / np.log(2))


def shortcut_accuracy(traits: Traits, label: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """Cross-validate models that see colour, overlay or kind of file alone.

    Args:
        traits: traits of the images.
        label: class of each image, str (images,).
        group: group of each image, int (images,).

    Returns:
        Name -> accuracy, on random and on grouped folds; without those that need more images or groups.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    overlays, files = ((own[:, None] == np.unique(own)).astype(np.float32) for own in (traits.overlay, traits.encoding))
    result = {"majority": float(max(Counter(label.tolist()).values()) / len(label))}
    # Each class must have an image, or a group, for each fold.
    images = min(_FOLDS, *Counter(label.tolist()).values())
    groups = min(_FOLDS, *(len(np.unique(group[label == name])) for name in np.unique(label)))
    # In one thread: those of scikit-learn 1.9 take each other's filters of warnings away, and then warn of that.
    for name, X, model in (
        ("colour", traits.moments, ExtraTreesClassifier(_TREES, random_state=0)),
        ("overlay", overlays, DecisionTreeClassifier(random_state=0)),
        ("kind of file", files, DecisionTreeClassifier(random_state=0)),
    ):
        if X.shape[1] == 1:
            continue
        for fold_name, folds, splitter, units in (
            ("random", images, StratifiedKFold, None),
            ("grouped", groups, StratifiedGroupKFold, group),
        ):
            if folds > 1:
                cv = splitter(folds, shuffle=True, random_state=0)
                score = cross_val_score(model, X, label, groups=units, cv=cv)
                result[f"{name}, {fold_name} folds"] = float(score.mean())
    return result
