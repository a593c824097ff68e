"""Candidate pairs of images that may show the same thing, by votes of local features in one index over all images.

Extrema of a difference of Gaussians mark cells (Lowe 2004, "Distinctive image features from scale-invariant keypoints",
section 3), and low cosine frequencies describe the patch around each. A flip of the patch changes their signs and a
transposition swaps them, so two signs and one comparison bring each patch into one of eight orientations: fields match
whether or not they were turned. Each match of two patches votes for a pair of images, a turn and a shift.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

from ball_features.audit.neighbours import nearest
from ball_features.audit.orientation import turned
from ball_features.audit.thread_pool import thread_pool

__all__ = ["Candidates", "candidates_from_features", "candidates_from_thumbnails"]

_PER_IMAGE = 150  # number of features, the strongest
_FINE_PX, _COARSE_PX = 1.4, 2.8  # sigmas of the difference of Gaussians; cells of a smear are 6 to 14 px wide here
_RADIUS_PX = 9  # radius of a patch: a cell with its neighbours is distinctive where the cell alone is not
_FREQUENCIES = 6  # frequencies in each direction
_LEAST_EXTREMUM = 1.0  # grey levels
_NEIGHBOURS = 5
_LEAST_COSINE = 0.8
_BIN_PX = 4.5  # shifts in one bin vote together
_LEAST_VOTES = 2
_THUMBNAIL = 16  # side
_THUMBNAIL_COSINE = 0.85


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs whose pixels are worth comparing.

    Attributes:
        a: row of the first image, int64 (pairs,), smaller than b.
        b: row of the second image, int64 (pairs,).
        turn: orientation that turns b like a, int64 (pairs,).
        votes: number of features that agree, int64 (pairs,).
    """

    a: np.ndarray
    b: np.ndarray
    turn: np.ndarray
    votes: np.ndarray


def candidates_from_features(
    grey: np.ndarray,
    mask: np.ndarray,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Candidates:
    """Propose pairs by votes of local features.

    Args:
        grey: pictures, uint8 (N, side, side).
        mask: pixels that count, bool (N, side, side), False on overlays and frames.
        seed: random seed of the index.
        progress: called with the number of images described since the last call.
    """
    vectors, position, where, image = _describe(grey, mask, progress)
    if len(image) < 2:
        return _empty()
    _whiten(vectors)
    cosine, row = nearest(vectors, vectors, _NEIGHBOURS, query_owner=image, owner=image, seed=seed)
    del vectors
    one, two = _matches(cosine, row, image)
    del cosine, row
    # The turn from b's patch to the common orientation, and from there back to a's.
    turn = position[one].transpose(1, 2) @ position[two]  # (matches, 2, 2) on (x, y)
    centre = (grey.shape[-1] - 1) / 2
    shift = where[one] - centre - (turn @ (where[two] - centre)[:, :, None])[:, :, 0]
    return _count(image[one], image[two], _turn_number(turn), shift, len(grey), grey.shape[-1])


def _matches(cosine: Tensor, row: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of matching features of images that match at least twice, the first in the image of smaller row."""
    count = len(image)
    keys = []
    for start in range(0, count, 1 << 18):  # in parts: there are millions
        part, place = (cosine[start : start + (1 << 18)] > _LEAST_COSINE).nonzero(as_tuple=True)
        part = part + start
        other = row[part, place]
        swap = image[part] > image[other]
        keys.append(torch.where(swap, other * count + part, part * count + other).numpy())
    key = np.unique(np.concatenate(keys))  # two patches that name each other vote once
    del keys
    owner = image.numpy()
    pair = owner[key // count] * (int(owner[-1]) + 1) + owner[key % count]
    # Most pairs of images match once, by chance; they are dropped before anything is computed from them.
    ordered = np.sort(pair)
    often = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if len(often):
        place = np.minimum(np.searchsorted(often, pair), len(often) - 1)
        key = key[often[place] == pair]
    else:
        key = key[:0]
    return torch.from_numpy(key // count), torch.from_numpy(key % count)


def candidates_from_thumbnails(grey: np.ndarray, mask: np.ndarray, *, seed: int = 0) -> Candidates:
    """Propose near-duplicates by 16 x 16 thumbnails in eight orientations; finds images too blurred for features."""
    count, side = grey.shape[:2]
    cell = side // _THUMBNAIL
    parts = []
    for start in range(0, count, 256):
        seen = mask[start : start + 256, : cell * _THUMBNAIL, : cell * _THUMBNAIL]
        pixels = grey[start : start + 256, : cell * _THUMBNAIL, : cell * _THUMBNAIL]
        shape = (len(seen), _THUMBNAIL, cell, _THUMBNAIL, cell)
        weight = torch.from_numpy(seen.reshape(shape).sum((2, 4)))
        total = torch.from_numpy(np.where(seen, pixels, 0).reshape(shape).sum((2, 4), dtype=np.int64))
        mean = total.sum((1, 2), keepdim=True) / weight.sum((1, 2), keepdim=True).clamp(min=1)
        parts.append(torch.where(weight > 0, total / weight.clamp(min=1) - mean, 0.0))
    thumbnail = torch.cat(parts)  # (N, 16, 16)
    owner = torch.arange(count)
    upright = _unit(thumbnail.flatten(1).float())
    queries = torch.cat([_unit(turned(thumbnail, turn).flatten(1).float()) for turn in range(8)])
    cosine, row = nearest(queries, upright, 3, query_owner=owner.repeat(8), owner=owner, seed=seed)
    query, place = (cosine > _THUMBNAIL_COSINE).nonzero(as_tuple=True)
    # A turned query is b. If its row is the smaller one, it becomes a, and the turn is inverted.
    b, a, turn = query % count, row[query, place], query // count
    back = torch.tensor([0, 3, 2, 1, 4, 5, 6, 7])  # inverse of each turn
    turn = torch.where(a < b, turn, back[turn])
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    key, index = np.unique(((a * count + b) * 8 + turn).numpy(), return_index=True)
    return Candidates(key // 8 // count, key // 8 % count, key % 8, np.full(len(index), _LEAST_VOTES, dtype=np.int64))


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-6)


def _empty() -> Candidates:
    return Candidates(*(np.zeros(0, dtype=np.int64) for _ in range(4)))


def _blur(images: Tensor, sigma_px: float) -> Tensor:
    """Blur (batch, 1, side, side) by a Gaussian."""
    radius = math.ceil(3 * sigma_px)
    kernel = torch.exp(-torch.arange(-radius, radius + 1.0).square() / (2 * sigma_px**2))
    kernel /= kernel.sum()
    wide = pad(images, (radius, radius, radius, radius), mode="replicate")
    return conv2d(conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _basis() -> tuple[Tensor, Tensor]:
    """Return windowed cosines (36, patch), and the window (patch,), which sums to 1."""
    size = 2 * _RADIUS_PX + 1
    ruler = torch.arange(size)
    window = torch.exp(-(ruler - _RADIUS_PX).square() / (2 * (0.6 * _RADIUS_PX) ** 2))
    order = torch.arange(_FREQUENCIES)[:, None]
    cosines = torch.cos(math.pi * (ruler + 0.5) * order / size) * window  # (6, size)
    both = torch.einsum("uy,vx->uvyx", cosines, cosines).reshape(_FREQUENCIES**2, -1)
    flat = torch.outer(window, window).flatten()
    return both, flat / flat.sum()


def _describe(
    grey: np.ndarray, mask: np.ndarray, progress: Callable[[int], None] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find and describe features.

    Returns:
        Vectors of cosine coefficients in the common orientation, of unit length, (features, 35); turns on (x, y) that
        bring each patch there, (features, 2, 2); positions as x, y, float (features, 2); image rows (features,).
    """
    side = grey.shape[-1]
    basis, flat = _basis()
    basis = basis - basis.sum(1, keepdim=True) * flat  # the mean of a patch does not matter
    ruler = torch.arange(-_RADIUS_PX, _RADIUS_PX + 1)
    patch = (ruler[:, None] * side + ruler).flatten()  # offsets in a flattened picture
    rim = torch.zeros(side, side, dtype=torch.bool)
    rim[_RADIUS_PX:-_RADIUS_PX, _RADIUS_PX:-_RADIUS_PX] = True
    vectors = torch.empty(len(grey) * _PER_IMAGE, _FREQUENCIES**2 - 1)  # the largest array: filled in place
    found: list[tuple[Tensor, ...]] = []
    count = 0

    def describe(start: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images = torch.from_numpy(grey[start : start + 64]).float()[:, None]
        seen = torch.from_numpy(mask[start : start + 64].copy())[:, None] & rim
        strength = (_blur(images, _FINE_PX) - _blur(images, _COARSE_PX)).abs() * seen
        peak = (strength == max_pool2d(strength, 5, 1, 2)) & (strength > _LEAST_EXTREMUM)
        value, place = (strength * peak).flatten(1).topk(min(_PER_IMAGE, side * side), dim=1)  # (batch, features)
        row, feature = (value > 0).nonzero(as_tuple=True)
        place = place[row, feature]
        pixels = images.flatten()[(row * side * side + place)[:, None] + patch]  # (features, patch)
        coefficients, position = _canonical((pixels @ basis.T).view(-1, _FREQUENCIES, _FREQUENCIES))
        where = torch.stack([place % side, place // side], 1).float()
        return _unit(coefficients.flatten(1)[:, 1:]), position, where, row + start

    with thread_pool() as pool:
        for start in range(0, len(grey), 1024):  # results wait in memory, so in parts
            for own, *others in pool.map(describe, range(start, min(start + 1024, len(grey)), 64)):
                vectors[count : count + len(own)] = own
                count += len(own)
                found.append(tuple(others))
            if progress:
                progress(min(1024, len(grey) - start))
    position, where, image = (torch.cat(column) for column in zip(*found, strict=True))
    return vectors[:count], position, where, image


def _canonical(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Return patches in the common orientation, and the turns (features, 2, 2) on (x, y) that bring them there."""
    sign = 1.0 - 2.0 * (torch.arange(_FREQUENCIES) % 2)  # a flip changes the sign of odd frequencies
    flip_x, flip_y = coefficients[:, 0, 1] < 0, coefficients[:, 1, 0] < 0
    upright = torch.where(flip_x[:, None, None], coefficients * sign, coefficients)
    upright = torch.where(flip_y[:, None, None], upright * sign[:, None], upright)
    swap = upright[:, 1, 0] > upright[:, 0, 1]
    upright = torch.where(swap[:, None, None], upright.transpose(1, 2), upright)
    turn = torch.zeros(len(coefficients), 2, 2)
    turn[:, 0, 0] = 1.0 - 2.0 * flip_x.float()
    turn[:, 1, 1] = 1.0 - 2.0 * flip_y.float()
    return upright, torch.where(swap[:, None, None], turn[:, [1, 0]], turn)


def _whiten(vectors: Tensor) -> None:
    """Reduce the weight of what all patches share, in unit vectors (features, 35), in place."""
    vectors -= vectors.mean(0)
    spread = (vectors.norm(dim=0) / math.sqrt(len(vectors))).clamp(min=1e-6)
    vectors /= spread.sqrt()
    for part in vectors.split(1 << 16):
        part /= part.norm(dim=1, keepdim=True).clamp(min=1e-6)


# Matrices on (x, y), y downwards, of the eight orientations.
_QUARTER = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
_MIRROR = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
_MATRICES = torch.stack(
    [(_MIRROR if turn >= 4 else torch.eye(2)) @ torch.linalg.matrix_power(_QUARTER, turn % 4) for turn in range(8)]
)


def _turn_number(turn: Tensor) -> Tensor:
    return (turn.flatten(1)[:, None] - _MATRICES.flatten(1)).abs().sum(2).argmin(1)


def _count(a: Tensor, b: Tensor, turn: Tensor, shift: Tensor, count: int, side: int) -> Candidates:
    """Count matches that agree on a turn and a shift; keep the best turn of each pair."""
    bins = 2 * math.ceil(2 * side / _BIN_PX) + 4
    best: dict[str, list[np.ndarray]] = {"key": [], "votes": []}
    for offset_x in (0.0, 0.5):  # overlapping bins, so that a shift at the edge of one is not split
        for offset_y in (0.0, 0.5):
            bin_x = torch.floor(shift[:, 0] / _BIN_PX + offset_x).long() + bins // 2
            bin_y = torch.floor(shift[:, 1] / _BIN_PX + offset_y).long() + bins // 2
            key = (((a * count + b) * 8 + turn) * bins + bin_x) * bins + bin_y
            value, votes = np.unique(key.numpy(), return_counts=True)
            chosen = votes >= _LEAST_VOTES
            best["key"].append(value[chosen] // bins**2)
            best["votes"].append(votes[chosen])
    key, votes = np.concatenate(best["key"]), np.concatenate(best["votes"])
    order = np.lexsort((key, -votes))
    pair, first = np.unique(key[order] // 8, return_index=True)
    return Candidates(pair // count, pair % count, key[order][first] % 8, votes[order][first])
