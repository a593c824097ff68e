"""Stain of an image in a few numbers, and stretches of the file order with one stain.

The stain of an image is the optical density of its background, of its darkest parts (nuclei) and of the whole. Its
scatter is measured between neighbours in file order. A penalised least-squares segmentation finds change points
(Killick, Fearnhead and Eckley 2012, "Optimal detection of changepoints with a linear computational cost"), and average
linkage joins stretches with indistinguishable stains. If every image has a stain of its own, neighbours differ as much
as any two images, and nothing is split.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["LEAST_DENSITY", "LEAST_IMAGES", "stain_numbers", "stretches", "whitening"]

_BRIGHT, _DARK = (0.05, 0.25), (0.93, 0.99)  # shares of the pixels by density: background, nuclei
_STEP_PX = 2  # every other pixel is as informative
_LEAST_PIXELS = 100  # with fewer, some of the shares above would be empty
LEAST_IMAGES = 5  # least images of a stretch
LEAST_DENSITY = 0.01  # two or three grey levels; smaller scatter is rounding
_OUTLIER = 4.0  # sigmas from the running median at which an image is clipped
_PENALTY = 4.0  # times log(images), for each parameter that a change point adds
_TELLS_APART = 5.0  # sigmas between two stains: a boundary half way misplaces 1 image in 160
_FLOOR = 0.05  # squared sigmas added to every variance, to bound the weight of each direction
_NEAREST = 5
_FOUND_AGAIN = 0.6  # least share of a batch's images that their neighbours assign to it


def stain_numbers(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Return median optical densities in red, green and blue of background, nuclei and the whole, float32 (9,).

    Args:
        image: picture, uint8 (height, width, 3).
        overlay: pixels to leave out, bool (height, width); ignored if next to nothing would be left.
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
    """Return the batch of each image, numbered from 0, int (images,), from stains in file order, float (images, 9)."""
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
    # Two means of one stain differ by chance, more so with fewer images.
    one, two = np.triu_indices(len(size), 1)
    chance = numbers * (1 / size[one] + 1 / size[two])
    distance = np.sqrt(np.maximum(pdist(middle, "sqeuclidean") - chance, 0))
    batch = fcluster(linkage(distance, "average"), _TELLS_APART, "distance")[stretch]
    return _found_again(scaled @ whitening(scaled, batch, _FLOOR), batch)


def _found_again(scaled: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Keep batches that the nearest neighbours in stain reproduce; merge each other batch into its most similar one."""
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
    """Scale stain so that neighbours in file order scatter by one in every direction."""
    from scipy.stats import chi2
    from sklearn.covariance import ledoit_wolf

    step = np.diff(stain, axis=0)
    sigma = np.maximum(1.4826 * np.median(np.abs(step - np.median(step, 0)), 0) / np.sqrt(2), LEAST_DENSITY)
    step = step / sigma
    length = np.linalg.norm(step, axis=1)
    usual = step[length <= np.quantile(length, 0.9)]  # most steps are within one stain
    covariance = ledoit_wolf(usual)[0] / 2 + _FLOOR * np.eye(stain.shape[1])  # shrunk: few steps for nine values
    # The median of all steps sets the scale, since the longest steps were left out.
    squared = np.einsum("ij,jk,ik->i", step, np.linalg.inv(covariance), step) / 2
    covariance *= np.median(squared) / chi2.median(stain.shape[1])
    value, vector = np.linalg.eigh(covariance)
    return (stain / sigma) @ vector / np.sqrt(np.maximum(value, _FLOOR))


def _without_outliers(scaled: np.ndarray) -> np.ndarray:
    from scipy.ndimage import median_filter

    running = median_filter(scaled, size=(2 * LEAST_IMAGES + 1, 1), mode="nearest")
    return running + np.clip(scaled - running, -_OUTLIER, _OUTLIER)


def _change_points(scaled: np.ndarray, penalty: float) -> np.ndarray:
    """Return the starts of the stretches and the end of the last, by least squares with a penalty for each stretch."""
    count = len(scaled)
    scaled = scaled - scaled.mean(0)
    total = np.concatenate([np.zeros((1, scaled.shape[1])), scaled.cumsum(0)])
    square = np.concatenate([[0.0], np.square(scaled).sum(1).cumsum()])
    best = np.full(count + 1, np.inf)
    best[0] = -penalty
    before = np.zeros(count + 1, dtype=np.int64)
    # As many steps for each end as there are images, where all share a stain: fewest copies.
    memory, known = np.empty(count + 1, dtype=np.int64), 0
    for end in range(LEAST_IMAGES, count + 1):
        memory[known] = end - LEAST_IMAGES
        starts = memory[: known + 1]
        apart = total[starts]
        apart -= total[end]
        cost = best[starts] + square[end] - square[starts]
        cost -= np.einsum("ij,ij->i", apart, apart) / (end - starts)
        least = int(cost.argmin())
        best[end], before[end] = cost[least] + penalty, starts[least]
        kept = starts[cost <= best[end]]  # the others can never become best
        known = len(kept)
        memory[:known] = kept
    ends = [count]
    while ends[-1]:
        ends.append(int(before[ends[-1]]))
    return np.array(ends[::-1])


def whitening(stain: np.ndarray, part: np.ndarray, floor: float) -> np.ndarray:
    """Return the matrix (9, 9) that makes images scatter by one in every direction about the mean of their part."""
    _, code = np.unique(part, return_inverse=True)
    size = np.bincount(code)
    middle = np.stack([np.bincount(code, column) / size for column in stain.T], axis=1)  # (parts, 9)
    residual = stain - middle[code]
    covariance = residual.T @ residual / max(len(stain) - len(size), 1)
    return np.linalg.cholesky(np.linalg.inv(covariance + floor * np.eye(len(covariance))))
