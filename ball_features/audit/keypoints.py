"""Which images might show the same thing: votes of local features, in one index over all images.

Cells are found as extrema of a difference of Gaussians (Lowe 2004, section 3), and the patch around each is described
by its low cosine frequencies. A flip of the patch changes their signs and a transposition swaps them, so each patch is
brought into one of eight positions by two signs and one comparison: fields match whether or not they were turned. Each
match of two patches votes for a pair of images, a turn and a shift.
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
from ball_features.audit.positions import turned
from ball_features.audit.workers import workers

__all__ = ["Candidates", "candidates_from_features", "candidates_from_thumbnails"]

_PER_IMAGE = 150  # features, the strongest
_FINE_PX, _COARSE_PX = 1.4, 2.8  # sigmas of the difference of Gaussians; cells of a smear are 6 to 14 px wide here
_RADIUS_PX = 9  # of a patch: a cell and its neighbours, which single out a place where the cell alone does not
_FREQUENCIES = 6  # a direction
_LEAST_EXTREMUM = 1.0  # grey levels
_NEIGHBOURS = 5
_LEAST_COSINE = 0.8
_BIN_PX = 4.5  # shifts in one bin vote together
_LEAST_VOTES = 2
_THUMBNAIL = 16  # side
_THUMBNAIL_COSINE = 0.85


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs worth a look at the pixels.

    Attributes:
        a: int64 (pairs,), row of the first image, the smaller.
        b: int64 (pairs,).
        turn: int64 (pairs,), the position of `turned` that lays b on a.
        votes: int64 (pairs,), features that agree.
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
        grey: uint8 (N, side, side).
        mask: bool (N, side, side), False on overlays and outside the picture.
        seed: Of the index.
        progress: Called with the number of images described since the last call.
    """
    vectors, position, where, image = _describe(grey, mask, progress)
    if len(image) < 2:
        return _empty()
    _whiten(vectors)
    cosine, row = nearest(vectors, vectors, _NEIGHBOURS, query_owner=image, owner=image, seed=seed)
    del vectors
    one, two = _matches(cosine, row, image)
    del cosine, row
    # The turn that takes b's patch to the common position and from there back to a's.
    turn = position[one].transpose(1, 2) @ position[two]  # (matches, 2, 2) on (x, y)
    centre = (grey.shape[-1] - 1) / 2
    shift = where[one] - centre - (turn @ (where[two] - centre)[:, :, None])[:, :, 0]
    return _count(image[one], image[two], _turn_number(turn), shift, len(grey), grey.shape[-1])


def _matches(cosine: Tensor, row: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of features that match, the first in the image with the smaller number, of images that match twice."""
    count = len(image)
    keys = []
    for start in range(0, count, 1 << 18):  # a part at a time: there are millions
        part, place = (cosine[start : start + (1 << 18)] > _LEAST_COSINE).nonzero(as_tuple=True)
        part = part + start
        other = row[part, place]
        swap = image[part] > image[other]
        keys.append(torch.where(swap, other * count + part, part * count + other).numpy())
    key = np.unique(np.concatenate(keys))  # two patches that name each other vote once
    del keys
    owner = image.numpy()
    pair = owner[key // count] * (int(owner[-1]) + 1) + owner[key % count]
    # Most pairs of images match in one place, which is chance; they go before anything is computed of them.
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
    """Propose near-duplicates by 16 x 16 thumbnails in all eight positions; sees what is too blurred for features."""
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
    # A turned query is b; seen from the image with the smaller number as a, a quarter turn goes the other way round.
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
    """Gaussian blur of (batch, 1, side, side)."""
    radius = math.ceil(3 * sigma_px)
    kernel = torch.exp(-torch.arange(-radius, radius + 1.0).square() / (2 * sigma_px**2))
    kernel /= kernel.sum()
    wide = pad(images, (radius, radius, radius, radius), mode="replicate")
    return conv2d(conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _basis() -> tuple[Tensor, Tensor]:
    """Windowed cosines (36, patch), and the window (patch,) that sums to 1."""
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
    """What is known of each feature.

    Returns:
        Unit vectors (features, 35) of cosine coefficients in the common position, the turn (features, 2, 2) on (x, y)
        that brings the patch there, places float (features, 2) as x, y, and image rows (features,).
    """
    side = grey.shape[-1]
    basis, flat = _basis()
    basis = basis - basis.sum(1, keepdim=True) * flat  # the mean of a patch does not matter
    ruler = torch.arange(-_RADIUS_PX, _RADIUS_PX + 1)
    patch = (ruler[:, None] * side + ruler).flatten()  # offsets in a flattened picture
    rim = torch.zeros(side, side, dtype=torch.bool)
    rim[_RADIUS_PX:-_RADIUS_PX, _RADIUS_PX:-_RADIUS_PX] = True
    vectors = torch.empty(len(grey) * _PER_IMAGE, _FREQUENCIES**2 - 1)  # the large one: filled in place, never copied
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

    with workers() as pool:
        for start in range(0, len(grey), 1024):  # what is done waits here, so not all at once
            for own, *others in pool.map(describe, range(start, min(start + 1024, len(grey)), 64)):
                vectors[count : count + len(own)] = own
                count += len(own)
                found.append(tuple(others))
            if progress:
                progress(min(1024, len(grey) - start))
    position, where, image = (torch.cat(column) for column in zip(*found, strict=True))
    return vectors[:count], position, where, image


def _canonical(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Patches in their common position, and the turn (features, 2, 2) on (x, y) that brings them there."""
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
    """Make what all patches share count less in unit vectors (features, 35), in place."""
    vectors -= vectors.mean(0)
    spread = (vectors.norm(dim=0) / math.sqrt(len(vectors))).clamp(min=1e-6)
    vectors /= spread.sqrt()
    for part in vectors.split(1 << 16):
        part /= part.norm(dim=1, keepdim=True).clamp(min=1e-6)


# Matrices on (x, y), y downwards, of the eight positions of `turned`.
_QUARTER = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
_MIRROR = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
_MATRICES = torch.stack(
    [(_MIRROR if turn >= 4 else torch.eye(2)) @ torch.linalg.matrix_power(_QUARTER, turn % 4) for turn in range(8)]
)


def _turn_number(turn: Tensor) -> Tensor:
    return (turn.flatten(1)[:, None] - _MATRICES.flatten(1)).abs().sum(2).argmin(1)


def _count(a: Tensor, b: Tensor, turn: Tensor, shift: Tensor, count: int, side: int) -> Candidates:
    """Pairs whose matches agree on a turn and a shift, the best turn of each."""
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
