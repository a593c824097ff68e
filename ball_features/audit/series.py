"""Likely batches of acquisition: images of one class, one overlay and one kind of file that share a stain.

Slides are stained and photographed one after another, so a batch is a stretch of the file order with a stain of its
own. A session that was resumed has the same stain in several stretches (`stain_batches` finds them). All of this is
inferred. Two acquisitions with the same overlay whose images alternate stay one batch, and a drifting stain may be
split into several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ball_features.audit.overlays import NO_OVERLAY
from ball_features.audit.stain_batches import LEAST_DENSITY, LEAST_IMAGES, stretches, whitening

__all__ = ["OTHER_ENCODING", "Series", "Trust", "find_series"]

ANY_OVERLAY = "any"  # in a name: overlays of the class do not separate series
OTHER_ENCODING = "other"  # name of all rare kinds of file
_NEAR = 10  # images on either side in file order that may share an image's batch
_VOTERS = 5
_VOTES = 4
_UNMARKED = 0.1  # share of a class's images that may lack an overlay that the others have
_STRAYS = 0.01  # share of images that may show another overlay than most images of their stain do
_TELLS = 0.5  # agreement of stain and order beyond chance from which overlays separate series


@dataclass(frozen=True)
class Trust:
    """Evidence for a series or batch, from images of its class that share no field.

    Attributes:
        images: number of its images.
        stain: share of its images most of whose five nearest images in stain belong to it.
        order: share of its neighbours in file order that belong to it.
        chance: value that either share would have for random assignment: its share of the class.
    """

    images: int
    stain: float
    order: float
    chance: float

    @property
    def confidence(self) -> float:
        """Agreement in stain beyond chance, from 0 to 1; 0 if the class has no other series or batch."""
        return 0.0 if self.chance >= 1 else max(0.0, (self.stain - self.chance) / (1 - self.chance))


@dataclass(frozen=True, eq=False)
class Series:
    """Inferred series and batches.

    Attributes:
        series: name of each image's series, the coarse unit, str (images,).
        batch: name of each image's batch, the fine unit, str (images,).
        series_trust: name of a series -> evidence for it.
        batch_trust: name of a batch -> evidence for it.
    """

    series: np.ndarray
    batch: np.ndarray
    series_trust: dict[str, Trust]
    batch_trust: dict[str, Trust]


def find_series(
    stain: np.ndarray, label: np.ndarray, overlay: np.ndarray, encoding: np.ndarray, group: np.ndarray
) -> Series:
    """Infer batches, and from them series.

    A series is a class with one overlay and one kind of file: coarse, but it keeps whole sessions together. If no class
    has two such combinations, no series could be left out, and each series is a batch. If the overlays of a class come
    and go within one stain ("any" in the name), they do not separate series, and a series is a batch there too. An
    image without overlay, or of a rare kind of file, joins the batch of the images in its group, else that of its
    neighbours in file order if it has their stain.

    Args:
        stain: stain values from `stain_batches.stain_numbers`, float (images, 9), in file order.
        label: class of each image, str (images,).
        overlay: overlay of each image, str (images,), "none" for images without one.
        encoding: kind of file of each image, str (images,), "other" for rare kinds.
        group: group of each image, int (images,); images of one group show the same, so they are in one batch and are
            no evidence for each other.
    """
    telling = _telling(stain, label, overlay, encoding)
    overlay = np.where(telling, overlay, ANY_OVERLAY)
    parts = (label, overlay, encoding) if len(np.unique(encoding)) > 1 else (label, overlay)
    kind = np.array(["/".join(part) for part in zip(*parts, strict=True)])
    stray = (overlay == NO_OVERLAY) & (overlay != NO_OVERLAY).any()
    stray |= (encoding == OTHER_ENCODING) & (encoding != OTHER_ENCODING).any()
    batch = np.full(len(kind), -1)  # numbers that continue from one combination to the next
    for name in np.unique(kind[~stray]):
        rows = np.flatnonzero((kind == name) & ~stray)
        batch[rows] = stretches(stain[rows]) + batch.max() + 1
    for name in np.unique(label):
        rows = np.flatnonzero(label == name)
        own = _join_by_field(batch[rows], group[rows])
        batch[rows] = _join_mates(stain[rows], own, overlay[rows], encoding[rows])
    for number in np.unique(batch[stray & (batch >= 0)]):
        kind[batch == number] = kind[(batch == number) & ~stray][0]
    for name in np.unique(kind[batch < 0]):
        rows = np.flatnonzero((kind == name) & (batch < 0))
        batch[rows] = stretches(stain[rows]) + batch.max() + 1
    names = _names(kind, batch)
    coarse = max(len(np.unique(kind[label == name])) for name in np.unique(label)) > 1
    series = np.where(telling, kind, names) if coarse else names
    mates = _mates(stain, label, batch, group)
    return Series(series, names, _trust(series, mates, label, group), _trust(names, mates, label, group))


def _telling(stain: np.ndarray, label: np.ndarray, overlay: np.ndarray, encoding: np.ndarray) -> np.ndarray:
    """Return the mask of images in whose class overlays separate series, bool (images,).

    Among images of one stain, neighbours in stain or in file order must show the same overlay more often than by
    chance; otherwise the overlay changes within a series. A few images without overlay, or with another, do not count.
    """
    telling = np.ones(len(label), dtype=bool)
    marked = overlay != NO_OVERLAY
    for name in np.unique(label):
        counts = (label == name) & (marked | ((~marked)[label == name].mean() > _UNMARKED))
        mixed = by_chance = by_stain = by_order = 0.0
        for file in np.unique(encoding[counts]):
            rows = np.flatnonzero(counts & (encoding == file))
            batch = stretches(stain[rows])
            for number in np.unique(batch):
                own = rows[batch == number]
                _, kind, count = np.unique(overlay[own], return_inverse=True, return_counts=True)
                if len(count) < 2:
                    continue
                unlike = 1 - (count * (count - 1)).sum() / (len(own) * (len(own) - 1))
                by_chance += len(own) * unlike
                mixed += len(own) - count.max()
                by_stain += len(own) * _unlike_nearest(stain[own], kind)
                by_order += len(own) * float((kind[1:] != kind[:-1]).mean())
        agreement = sum(max(0.0, by_chance - unlike) for unlike in (by_stain, by_order))
        if mixed > _STRAYS * counts.sum() and agreement < _TELLS * by_chance:
            telling[label == name] = False
    return telling


def _unlike_nearest(stain: np.ndarray, kind: np.ndarray) -> float:
    """Return the share of the five nearest images in stain that have another overlay."""
    from scipy.spatial import KDTree

    scaled = stain @ whitening(stain, np.zeros(len(stain)), LEAST_DENSITY**2)
    answer: Any = KDTree(scaled).query(scaled, k=min(len(stain), _VOTERS + 1))
    return float((kind[answer[1][:, 1:]] != kind[:, None]).mean())


def _join_by_field(batch: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Put images of a class without batch into the batch of images of their group."""
    joined = batch.copy()
    for row in np.flatnonzero(batch < 0):
        same = batch[(group == group[row]) & (batch >= 0)]
        if len(same):
            joined[row] = np.bincount(same).argmax()
    return joined


def _join_mates(stain: np.ndarray, batch: np.ndarray, overlay: np.ndarray, encoding: np.ndarray) -> np.ndarray:
    """Put images of a class without batch into the batch of their neighbours in file order, if they share its stain.

    Of the five nearest in stain among the ten images before and the ten after, four must be of one batch and as near as
    that batch's own images are to theirs. The same rule must also find most of the batch's own images.
    """
    known = np.flatnonzero(batch >= 0)
    if len(known) < 2 * LEAST_IMAGES or len(known) == len(batch):
        return batch
    scaled = stain @ whitening(stain[known], batch[known], LEAST_DENSITY**2)
    chosen, distance = np.full(len(batch), -1), np.full(len(batch), np.inf)
    for row in range(len(batch)):
        position = int(np.searchsorted(known, row))
        near = known[max(0, position - _NEAR) : position + _NEAR + 1]
        alike = (encoding[near] == encoding[row]) | (encoding[row] == OTHER_ENCODING)
        if batch[row] < 0 and overlay[row] != NO_OVERLAY:
            alike &= overlay[near] == overlay[row]
        near = near[(near != row) & alike]
        away = np.linalg.norm(scaled[near] - scaled[row], axis=1)
        nearest = np.argsort(away, kind="stable")[:_VOTERS]
        value, votes = np.unique(batch[near[nearest]], return_counts=True)
        if len(value) and votes.max() >= _VOTES:
            chosen[row], distance[row] = value[votes.argmax()], away[nearest].mean()
    joined = batch.copy()
    for number in np.unique(batch[known]):
        own = known[batch[known] == number]
        found = own[chosen[own] == number]
        if len(found) >= 0.8 * len(own):
            own_reach = 2 * np.quantile(distance[found], 0.95)
            joined[(batch < 0) & (chosen == number) & (distance <= own_reach)] = number
    return joined


def _names(kind: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Name batches by their class, overlay and kind of file, and a number in order of appearance."""
    names = np.empty(len(kind), dtype=object)
    for name in np.unique(kind):
        rows = np.flatnonzero(kind == name)
        _, first, code = np.unique(batch[rows], return_index=True, return_inverse=True)
        for row, number in zip(rows, np.argsort(np.argsort(first))[code], strict=True):
            names[row] = f"{name}/batch-{number + 1}"
    return names.astype(str)


def _mates(stain: np.ndarray, label: np.ndarray, batch: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the rows nearest in stain within the class, without the image's group, int (images, 5); -1 if too few."""
    from scipy.spatial import KDTree

    found = np.full((len(stain), _VOTERS), -1)
    for name in np.unique(label):
        rows = np.flatnonzero(label == name)
        scaled = stain[rows] @ whitening(stain[rows], batch[rows], LEAST_DENSITY**2)
        asked = min(len(rows), 4 * _VOTERS)
        answer: Any = KDTree(scaled).query(scaled, k=asked, workers=-1)
        for row, others in zip(rows, rows[np.reshape(answer[1], (len(rows), asked))], strict=True):
            others = others[group[others] != group[row]][:_VOTERS]
            found[row, : len(others)] = others
    return found


def _trust(part: np.ndarray, mates: np.ndarray, label: np.ndarray, group: np.ndarray) -> dict[str, Trust]:
    same = (part[mates] == part[:, None]) & (mates >= 0)
    by_stain = same.sum(1) * 2 > np.maximum((mates >= 0).sum(1), 1)
    # Neighbours in file order of one class and of two groups.
    following = np.flatnonzero((label[1:] == label[:-1]) & (group[1:] != group[:-1]))
    agrees = part[following] == part[following + 1]
    trust: dict[str, Trust] = {}
    for name in np.unique(part):
        own = part == name
        touching = own[following] | own[following + 1]
        kept = float(agrees[touching].mean()) if touching.any() else 1.0
        chance = float(own.sum() / (label == label[own.argmax()]).sum())
        trust[str(name)] = Trust(int(own.sum()), float(by_stain[own].mean()), kept, chance)
    return trust
