"""Stain of an image in a few numbers, and stretches of the file order with one stain.

Each image is reduced to the optical density of its background, its darkest parts (nuclei) and its middle. The scatter
of that stain is measured between neighbours in file order; change points are those of a penalised least-squares
segmentation (Killick, Fearnhead and Eckley 2012, "Optimal detection of changepoints with a linear computational cost");
then stretches whose stains cannot be told apart are joined by average linkage. Where every image has a stain of its
own, neighbours differ as much as any two, and nothing is split.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["LEAST_DENSITY", "LEAST_IMAGES", "stain_numbers", "stretches", "whitening"]

_BRIGHT, _DARK = (0.05, 0.25), (0.93, 0.99)  # shares of the pixels by density: background, nuclei
_STEP_PX = 2  # every other pixel tells as much
_LEAST_PIXELS = 100  # of so few some of the shares above would be none
LEAST_IMAGES = 5  # of a stretch
LEAST_DENSITY = 0.01  # two or three grey levels: smaller scatter is rounding
_OUTLIER = 4.0  # sigmas from the running median, beyond which an image counts no more
_PENALTY = 4.0  # times log(images), for each number that a change point adds
_TELLS_APART = 5.0  # sigmas between two stains: a boundary half way gets 1 image in 160 wrong
_FLOOR = 0.05  # squared sigmas added to every variance, so that no direction counts without end
_NEAREST = 5
_FOUND_AGAIN = 0.6  # of a batch's images


def stain_numbers(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Median optical density in red, green and blue of background, nuclei and the whole, float32 (9,).

    Args:
        image: uint8 (height, width, 3).
        overlay: bool (height, width), places to leave out, unless next to nothing would be left.
    """
    every = image[::_STEP_PX, ::_STEP_PX]
    pixels = every[~overlay[::_STEP_PX, ::_STEP_PX]]
    if len(pixels) < _LEAST_PIXELS:
        pixels = every.reshape(-1, 3)
    table: np.ndarray = -np.log(np.arange(1, 257, dtype=np.float32) / 256)
    density = table[pixels]  # (pixels, 3)
    order = np.argsort(density.sum(1))
    parts = (_BRIGHT, _DARK, (0.0, 1.0))
    return np.concatenate(
        [np.median(density[order[int(low * len(order)) : int(high * len(order))]], axis=0) for low, high in parts]
    )


def stretches(stain: np.ndarray) -> np.ndarray:
    """Batch of each image of one kind, in file order: int (images,), numbered from 0."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    count, numbers = stain.shape
    if count < 2 * LEAST_IMAGES:
        return np.zeros(count, dtype=np.int64)
    scaled = _without_outliers(_by_neighbours(stain))
    ends = _change_points(scaled, _PENALTY * (numbers + 1) * np.log(count))
    size = np.diff(ends)
    stretch = np.repeat(np.arange(len(size)), size)
    if len(size) == 1:
        return stretch
    middle = np.add.reduceat(scaled, ends[:-1]) / size[:, None]  # (stretches, 9)
    middle = middle @ whitening(scaled, stretch, _FLOOR)
    # Two means of one stain differ by chance, the more the fewer images they are of.
    one, two = np.triu_indices(len(size), 1)
    chance = numbers * (1 / size[one] + 1 / size[two])
    distance = np.sqrt(np.maximum(pdist(middle, "sqeuclidean") - chance, 0))
    batch = fcluster(linkage(distance, "average"), _TELLS_APART, "distance")[stretch]
    return _found_again(scaled @ whitening(scaled, batch, _FLOOR), batch)


def _found_again(scaled: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Batches that their images' nearest in stain find again; each of the others goes to the one it is taken for."""
    from scipy.spatial import KDTree

    found: Any = KDTree(scaled).query(scaled, k=_NEAREST + 1)
    near = found[1]
    while True:
        number, code = np.unique(batch, return_inverse=True)
        votes = np.zeros((len(batch), len(number)))
        np.add.at(votes, (np.arange(len(batch))[:, None], code[near[:, 1:]]), 1)
        taken_for = np.zeros((len(number), len(number)))
        np.add.at(taken_for, (code, votes.argmax(1)), 1)
        share = taken_for.diagonal() / taken_for.sum(1)
        worst = int(share.argmin())
        if share[worst] >= _FOUND_AGAIN:
            return code
        taken_for[worst, worst] = -1
        batch = np.where(code == worst, int(taken_for[worst].argmax()), code)


def _by_neighbours(stain: np.ndarray) -> np.ndarray:
    """Stain in units in which neighbours in file order scatter by one in every direction."""
    from scipy.stats import chi2
    from sklearn.covariance import ledoit_wolf

    step = np.diff(stain, axis=0)
    sigma = np.maximum(1.4826 * np.median(np.abs(step - np.median(step, 0)), 0) / np.sqrt(2), LEAST_DENSITY)
    step = step / sigma
    length = np.linalg.norm(step, axis=1)
    usual = step[length <= np.quantile(length, 0.9)]  # most steps lie within a stain
    covariance = ledoit_wolf(usual)[0] / 2 + _FLOOR * np.eye(stain.shape[1])  # shrunk: few steps, nine numbers
    # The middle of all steps sets the size, since the longest were left out.
    squared = np.einsum("ij,jk,ik->i", step, np.linalg.inv(covariance), step) / 2
    covariance *= np.median(squared) / chi2.median(stain.shape[1])
    value, vector = np.linalg.eigh(covariance)
    return (stain / sigma) @ vector / np.sqrt(np.maximum(value, _FLOOR))


def _without_outliers(scaled: np.ndarray) -> np.ndarray:
    from scipy.ndimage import median_filter

    running = median_filter(scaled, size=(2 * LEAST_IMAGES + 1, 1), mode="nearest")
    return running + np.clip(scaled - running, -_OUTLIER, _OUTLIER)


def _change_points(scaled: np.ndarray, penalty: float) -> np.ndarray:
    """Starts of the stretches and the end of the last: least squares about their means, plus a penalty a stretch."""
    count = len(scaled)
    scaled = scaled - scaled.mean(0)
    total = np.concatenate([np.zeros((1, scaled.shape[1])), scaled.cumsum(0)])
    square = np.concatenate([[0.0], np.square(scaled).sum(1).cumsum()])
    best = np.full(count + 1, np.inf)
    best[0] = -penalty
    before = np.zeros(count + 1, dtype=np.int64)
    starts = np.zeros(0, dtype=np.int64)
    for end in range(LEAST_IMAGES, count + 1):
        starts = np.append(starts, end - LEAST_IMAGES)
        cost = best[starts] + square[end] - square[starts]
        cost -= np.square(total[end] - total[starts]).sum(1) / (end - starts)
        place = int(cost.argmin())
        best[end], before[end] = cost[place] + penalty, starts[place]
        starts = starts[cost <= best[end]]  # the others can never be best again
    ends = [count]
    while ends[-1]:
        ends.append(int(before[ends[-1]]))
    return np.array(ends[::-1])


def whitening(stain: np.ndarray, part: np.ndarray, floor: float) -> np.ndarray:
    """Matrix (9, 9) after which images scatter by one in every direction about the mean of their part."""
    _, code = np.unique(part, return_inverse=True)
    size = np.bincount(code)
    middle = np.stack([np.bincount(code, column) / size for column in stain.T], axis=1)  # (parts, 9)
    residual = stain - middle[code]
    covariance = residual.T @ residual / max(len(stain) - len(size), 1)
    return np.linalg.cholesky(np.linalg.inv(covariance + floor * np.eye(len(covariance))))
