"""Pairs of images that show the same thing: turned or re-encoded copies, and fields of view that overlap.

Local features in one index over all images, and thumbnails in eight positions, propose pairs wherever they lie in the
collection; masked correlation over all shifts confirms them, coarsely for every candidate, then finely for those that
pass. The number of comparisons grows with the number of images and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ball_features.audit.frames import frame, painted, same_everywhere
from ball_features.audit.positions import orient, turned
from ball_features.audit.workers import workers

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SMALL_PX", "Pair", "find_pairs", "shrink"]

SMALL_PX = 128  # working size: a cell of a smear is then about 8 px wide, which is enough to tell fields apart
_BATCH = 32
_TURNED = 0.1  # a turned field needs so much more correlation, having had seven more chances
_COARSE_SLACK = 0.1  # a coarse score may fall short by so much
_WORTH_SCALING = 0.3  # coarse score from which another scale is tried
_SCALING_VOTES = 4
_SCALES = (0.94, 0.97, 1.03, 1.06)  # of crops resized to full size: up to 3 % cut a side, either way
_SCALED_OVERLAP = 0.7  # a resized crop still shows most of the picture
_SCALE_GAIN = 1.05  # another scale must explain so much more
_SAME_FROM = 0.9  # correlation at half the working size, in place, that makes a copy
_REACH_PX = 2  # the shift is searched so far at full size
_DETAIL_PX = 6  # what is coarser is not detail
_SMOOTH_PX = 1.0  # noise and JPEG blocks, which two pictures of one place do not share
_TILE_PX = 24
_TEXTURED = 0.5  # of the median variance: flat tiles say nothing
_LEAST_OVERLAP = 0.1  # of the picture; what a frame leaves of a common area may be less
# Agreement that an overlap of this share of the field needs. Of 21,000 unrelated pairs of 20,000 drawn fields that
# agreed at the working size none reaches it; a turned field has had seven more chances, one within a frame shows less.
_OVERLAP = (0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6)
_AGREEMENT = (0.91, 0.89, 0.86, 0.79, 0.68, 0.58, 0.5)
_AGREEMENT_CAREFUL = (0.94, 0.94, 0.91, 0.84, 0.73, 0.66, 0.57)


@dataclass(frozen=True)
class Pair:
    """Two images that belong together.

    Attributes:
        first: Row of the one.
        second: Row of the other, larger.
        kind: "near-duplicate" or "shared-field".
        shift_x_px: How far the second field lies to the right of the first, in pixels of the images compared.
        shift_y_px: How far it lies below.
        orientation: 0 to 7: the one of `positions` that takes the second to the first.
        score: Correlation that confirmed it.
    """

    first: int
    second: int
    kind: str
    shift_x_px: int
    shift_y_px: int
    orientation: int
    score: float


def find_pairs(
    small: np.ndarray,
    overlay: np.ndarray,
    full: Callable[[int], np.ndarray],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Propose and confirm.

    Args:
        small: uint8 (images, 128, 128), of `shrink`.
        overlay: bool (side, side), places to leave out of every comparison.
        full: Row -> grey picture, uint8 (side, side), asked for those that pairs are made of.
        seed: Of the index of features.
        progress: Called with (steps done, steps in all), four steps an image.

    Returns:
        Confirmed pairs, in order of rows. What surrounds a picture (`frames`) is left out, as overlays are.
    """
    from ball_features.audit.keypoints import candidates_from_features, candidates_from_thumbnails

    if len(small) < 2:
        return []
    everywhere = same_everywhere(small)
    small, masks = _without_frames(small, everywhere, _small_mask(overlay))
    count, described = len(small), 0

    def tell(images: int) -> None:
        nonlocal described
        described += images
        if progress:
            progress(described, 4 * count)  # describing takes about a quarter of the time

    proposals = (
        candidates_from_features(small, masks, seed=seed, progress=tell),
        candidates_from_thumbnails(small, masks, seed=seed),
    )
    a, b, turn, votes = (np.concatenate([getattr(p, name) for p in proposals]) for name in ("a", "b", "turn", "votes"))
    key = a * count + b
    order = np.lexsort((turn, -votes, key))  # the turn with the most votes comes first
    order = order[np.unique(key[order], return_index=True)[1]]
    pairs: list[Pair] = []
    parts = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    with workers() as pool:
        confirmed = pool.map(lambda some: _confirm(small, masks, a[some], b[some], turn[some], votes[some]), parts)
        for number, some in enumerate(confirmed, 1):
            pairs += some
            if progress:
                progress(count + 3 * count * number // len(parts), 4 * count)
    place = np.arange(len(overlay)) * SMALL_PX // len(overlay)
    everywhere = everywhere[np.ix_(place, place)]

    @lru_cache(_BATCH)  # pairs in order of rows ask for the same picture again
    def picture(row: int) -> tuple[np.ndarray, np.ndarray]:
        grey = full(row)
        outside = frame(grey) | everywhere
        return (painted(grey, outside) if outside.any() else grey), ~outside

    exact = [_at_full_size(picture, ~overlay, pair) for pair in pairs]
    return sorted((pair for pair in exact if pair is not None), key=lambda pair: (pair.first, pair.second))


def shrink(grey: np.ndarray) -> np.ndarray:
    """uint8 (images, side, side) -> uint8 (images, 128, 128) by area averaging."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    pooled = adaptive_avg_pool2d(torch.from_numpy(grey).float()[:, None], SMALL_PX)[:, 0]
    return pooled.round().clamp(0, 255).to(torch.uint8).numpy()


def _small_mask(overlay: np.ndarray) -> np.ndarray:
    """Where no overlay has any part, bool (128, 128)."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    return (adaptive_avg_pool2d(torch.from_numpy(overlay).float()[None, None], SMALL_PX)[0, 0] == 0).numpy()


def _without_frames(small: np.ndarray, everywhere: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with their frames painted over, and where each counts: uint8 and bool (images, 128, 128).

    Neither is copied where there are no frames.
    """
    masks = np.broadcast_to(seen, small.shape)
    for row in range(len(small)):
        outside = frame(small[row]) | everywhere
        if not outside.any():
            continue
        if not masks.flags.writeable:
            small, masks = small.copy(), masks.copy()
        small[row], masks[row] = painted(small[row], outside), seen & ~outside
    return small, masks


def _confirm(
    small: np.ndarray, seen: np.ndarray, a: np.ndarray, b: np.ndarray, turn: np.ndarray, votes: np.ndarray
) -> list[Pair]:
    """Those of a batch of candidates whose pixels agree; shifts in working pixels."""
    import torch

    from ball_features.audit.correlation import correlate, required_score, resize_about_centre

    pixels_a, pixels_b = torch.from_numpy(small[a]).float(), torch.from_numpy(small[b]).float()
    seen_a, seen_b = torch.from_numpy(seen[a]), torch.from_numpy(seen[b])
    pixels_b, seen_b = (
        torch.stack([turned(image, int(value)) for image, value in zip(images, turn, strict=True)])
        for images in (pixels_b, seen_b)
    )
    half_a = _half(pixels_a, seen_a)
    score, _, overlap = correlate(*half_a, *_half(pixels_b, seen_b))
    excess = score - required_score(overlap)
    scale = torch.ones(len(a))
    tried = (score > _WORTH_SCALING) & (score < 0.95) & torch.from_numpy(votes >= _SCALING_VOTES)
    places = tried.nonzero()[:, 0]
    for value in _SCALES if len(places) else ():
        moved = _half(*resize_about_centre(pixels_b[places], seen_b[places], value))
        other, _, share = correlate(half_a[0][places], half_a[1][places], *moved)
        better = (other > score[places] * _SCALE_GAIN) & (share > _SCALED_OVERLAP)
        at = places[better]
        score[at], scale[at], excess[at] = other[better], value, (other - required_score(share))[better]
    pairs = []
    for value in scale.unique().tolist():
        places = ((scale == value) & (excess > -_COARSE_SLACK)).nonzero()[:, 0]
        if not len(places):
            continue
        moved, moved_seen = pixels_b[places], seen_b[places]
        if value != 1:
            moved, moved_seen = resize_about_centre(moved, moved_seen, value)
        fine, shift, overlap = correlate(pixels_a[places], seen_a[places], moved, moved_seen)
        needed = required_score(overlap) + _TURNED * torch.from_numpy(turn > 0)[places]
        in_place = _in_place(*_half(pixels_a[places], seen_a[places]), *_half(moved, moved_seen))
        for row in (fine >= needed).nonzero()[:, 0].tolist():
            at = int(places[row])
            same = bool(in_place[row] > _SAME_FROM) or (value != 1 and bool(fine[row] > _SAME_FROM))
            kind = "near-duplicate" if same else "shared-field"
            x, y = (round(float(step)) for step in shift[row])
            pairs.append(Pair(int(a[at]), int(b[at]), kind, x, y, int(turn[at]), round(float(fine[row]), 4)))
    return pairs


def _half(pixels: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Half the size; a pixel counts where all four do."""
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(pixels[:, None], 2)[:, 0], avg_pool2d(seen[:, None].float(), 2)[:, 0] > 0.99


def _in_place(a: Tensor, seen_a: Tensor, b: Tensor, seen_b: Tensor) -> Tensor:
    """Correlation (batch,) without any shift."""
    both = (seen_a & seen_b).float()
    count = both.sum((1, 2), keepdim=True).clamp(min=1)
    a, b = ((image - (image * both).sum((1, 2), keepdim=True) / count) * both for image in (a, b))
    size = (a.square().sum((1, 2)) * b.square().sum((1, 2))).clamp(min=1e-6).sqrt()
    return (a * b).sum((1, 2)) / size


def _at_full_size(
    picture: Callable[[int], tuple[np.ndarray, np.ndarray]], clear: np.ndarray, pair: Pair
) -> Pair | None:
    """The pair with its shift in pixels of the picture, if it agrees there too; None where only shapes did.

    At the working size two drawings of round cells agree well enough. Two things tell fields apart: what is finer than
    a cell, and whether every place agrees. One dark cell on another makes a correlation, but in one tile only.

    Args:
        picture: Row -> grey uint8 (side, side), and bool (side, side), what lies within its frame.
        clear: bool (side, side), where no overlay is.
        pair: Shifts in working pixels.
    """
    first, inside = picture(pair.first)
    second, inside_second = (orient(part, pair.orientation) for part in picture(pair.second))
    seen, seen_second = inside & clear, inside_second & orient(clear, pair.orientation)
    side = len(first)
    one, two = _detail(first), _detail(second)
    dx, dy = (round(step * side / SMALL_PX) for step in (pair.shift_x_px, pair.shift_y_px))
    near = range(-_REACH_PX, _REACH_PX + 1)
    best, x, y = -1.0, dx, dy
    for j, i in [(dy + j, dx + i) for j in near for i in near]:
        here, there = _common(side, i, j, 2)
        valid = seen[here] & seen_second[there]
        score = _correlation(one[here][valid], two[there][valid])
        if score > best:
            best, x, y = score, i, j
    moved = Pair(pair.first, pair.second, pair.kind, x, y, pair.orientation, pair.score)
    if pair.kind == "near-duplicate":  # confirmed in place, and maybe scaled
        return moved
    here, there = _common(side, x, y, 1)
    overlap = float((inside[here] & inside_second[there]).sum() / side**2)
    if overlap < _LEAST_OVERLAP:
        return None
    agreement = (best + _typical_tile(first[here], second[there], seen[here] & seen_second[there])) / 2
    careful = pair.orientation or not (inside.all() and inside_second.all())
    needed = np.interp(overlap, _OVERLAP, _AGREEMENT_CAREFUL if careful else _AGREEMENT)
    return moved if agreement >= needed else None


def _common(side: int, x: int, y: int, step: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The common area of two pictures, in the one and in the other."""
    here = (slice(max(y, 0), side + min(y, 0), step), slice(max(x, 0), side + min(x, 0), step))
    return here, (slice(max(-y, 0), side + min(-y, 0), step), slice(max(-x, 0), side + min(-x, 0), step))


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one - one.mean(), two - two.mean()
    return float(one @ two / np.sqrt((one @ one) * (two @ two) + 1e-6))


def _detail(grey: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    image = grey.astype(np.float32)
    return image - gaussian_filter(image, _DETAIL_PX)


def _typical_tile(one: np.ndarray, two: np.ndarray, valid: np.ndarray) -> float:
    """Median correlation of the tiles with some texture in them; 0 where there is none."""
    from scipy.ndimage import gaussian_filter

    one, two = (gaussian_filter(image.astype(np.float32), _SMOOTH_PX) for image in (one, two))
    score, variance = [], []
    for top in range(0, len(one) - _TILE_PX + 1, _TILE_PX):
        for left in range(0, one.shape[1] - _TILE_PX + 1, _TILE_PX):
            tile = (slice(top, top + _TILE_PX), slice(left, left + _TILE_PX))
            inside = valid[tile]
            if inside.mean() >= 0.9:
                a, b = one[tile][inside], two[tile][inside]
                score.append(_correlation(a, b))
                variance.append(max(a.var(), b.var()))
    textured = np.array(variance) >= _TEXTURED * np.median(variance) if variance else np.zeros(0, dtype=bool)
    return float(np.median(np.array(score)[textured])) if textured.any() else 0.0
