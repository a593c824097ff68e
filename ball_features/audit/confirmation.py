"""Confirmation of candidate pairs by their pixels: first at a small working size, then at full size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ball_features.audit.orientation import orient, turned
from ball_features.audit.registration import register
from ball_features.audit.symmetry import agrees_in_one_position

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SMALL_PX", "Pair", "confirm", "confirm_at_full_size"]

SMALL_PX = 128  # working size: a cell of a smear is then about 8 px wide, which is enough to tell fields apart
_TURNED = 0.1  # more correlation that a turned field needs, since seven more orientations were tried
_COARSE_SLACK = 0.1  # shortfall allowed to a coarse score
_WORTH_SCALING = 0.3  # coarse score from which another scale is tried
_SCALING_VOTES = 4
_SCALES = (0.94, 0.97, 1.03, 1.06)  # of crops resized to full size: up to 3 % cut a side, either way
_SCALED_OVERLAP = 0.7  # a resized crop still shows most of the picture
_SCALE_GAIN = 1.05  # factor by which another scale must correlate better
_SAME_FROM = 0.9  # correlation at half the working size, in place, that makes a copy
_REACH_PX = 2  # range of the search for the shift at full size
_DETAIL_PX = 6  # coarser structure is not detail
_SMOOTH_PX = 1.0  # removes noise and JPEG blocks, in which two pictures of one field differ
_TILE_PX = 24
_TEXTURED = 0.5  # of the median variance: flat tiles carry no information
_LEAST_OVERLAP = 0.1  # of the picture, within both frames
# Of 1,098 pairs of different cells of two sites that agree when shrunk, 20 reach this when aligned, most of them real
# copies; of copies that were drawn or are known none stays below 0.73.
_COPY_AGREEMENT = 0.72
_ALIKE_FROM = 0.4  # overlap from which two cells, each in the middle of its picture, may be taken for one
# Agreement required for an overlap of this share of the field. Of 21,000 unrelated pairs of 20,000 drawn fields that
# agreed at the working size, none reaches it. Turned fields (seven more orientations) and framed ones (less to see)
# need more.
_OVERLAP = (0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6)
_AGREEMENT = (0.91, 0.89, 0.86, 0.79, 0.68, 0.58, 0.5)
_AGREEMENT_CAREFUL = (0.94, 0.94, 0.91, 0.84, 0.73, 0.66, 0.57)


@dataclass(frozen=True)
class Pair:
    """Two images that show the same thing.

    Attributes:
        first: row of the first image.
        second: row of the second image, larger than `first`.
        kind: "near-duplicate" or "shared-field".
        shift_x_px: distance of the second field to the right of the first, in pixels of the images compared.
        shift_y_px: distance of the second field below the first, in the same pixels.
        orientation: number from 0 to 7 of the orientation that turns the second image like the first.
        score: correlation that confirmed the pair.
    """

    first: int
    second: int
    kind: str
    shift_x_px: int
    shift_y_px: int
    orientation: int
    score: float


def confirm(
    small: np.ndarray, seen: np.ndarray, a: np.ndarray, b: np.ndarray, turn: np.ndarray, votes: np.ndarray
) -> list[Pair]:
    """Confirm a batch of candidates at the working size.

    Args:
        small: grey pictures, uint8 (images, 128, 128).
        seen: pixels that count, bool (images, 128, 128).
        a: row of the first image of each candidate, int (candidates,).
        b: row of the second image, int (candidates,).
        turn: orientation that turns b like a, int (candidates,).
        votes: number of features that agree, int (candidates,).

    Returns:
        Pairs whose pixels agree, with shifts in working pixels.
    """
    import torch

    from ball_features.audit.correlation import correlate, required_score, resize_about_centre, spectra

    firsts, own = np.unique(a, return_inverse=True)  # candidates come by their first image
    pixels_a, pixels_b = torch.from_numpy(small[a]).float(), torch.from_numpy(small[b]).float()
    seen_a, seen_b = torch.from_numpy(seen[a]), torch.from_numpy(seen[b])
    pixels_b, seen_b = (
        torch.stack([turned(image, int(value)) for image, value in zip(images, turn, strict=True)])
        for images in (pixels_b, seen_b)
    )
    half_firsts = _half(torch.from_numpy(small[firsts]).float(), torch.from_numpy(seen[firsts]))
    half_a = spectra(*half_firsts).of(torch.from_numpy(own))
    score, _, overlap = correlate(half_a, spectra(*_half(pixels_b, seen_b)))
    excess = score - required_score(overlap)
    scale = torch.ones(len(a))
    tried = (score > _WORTH_SCALING) & (score < 0.95) & torch.from_numpy(votes >= _SCALING_VOTES)
    places = tried.nonzero()[:, 0]
    tried_a = half_a.of(places)
    for value in _SCALES if len(places) else ():
        moved = _half(*resize_about_centre(pixels_b[places], seen_b[places], value))
        other, _, share = correlate(tried_a, spectra(*moved))
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
        fine, shift, overlap = correlate(spectra(pixels_a[places], seen_a[places]), spectra(moved, moved_seen))
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
    """Halve the size; a pixel counts if all four of its parts do."""
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(pixels[:, None], 2)[:, 0], avg_pool2d(seen[:, None].float(), 2)[:, 0] > 0.99


def _in_place(a: Tensor, seen_a: Tensor, b: Tensor, seen_b: Tensor) -> Tensor:
    """Return the correlation (batch,) without any shift."""
    both = (seen_a & seen_b).float()
    count = both.sum((1, 2), keepdim=True).clamp(min=1)
    a, b = ((image - (image * both).sum((1, 2), keepdim=True) / count) * both for image in (a, b))
    size = (a.square().sum((1, 2)) * b.square().sum((1, 2))).clamp(min=1e-6).sqrt()
    return (a * b).sum((1, 2)) / size


def confirm_at_full_size(
    picture: Callable[[int], tuple[np.ndarray, np.ndarray]], clear: np.ndarray, pair: Pair, own: float = 1.0
) -> Pair | None:
    """Confirm a pair at full size.

    At the working size two unrelated fields of round cells may agree. Three things tell fields apart at full size:
    detail finer than a cell, agreement in every tile, and agreement in this position alone. One dark cell on another
    correlates, but in one tile only, and turned as well.

    Args:
        picture: row -> grey picture, uint8 (side, side), and the mask of its part within the frame, bool (side, side).
        clear: mask without overlays, bool (side, side).
        pair: pair with shifts in working pixels.
        own: pixels of the smaller file, as a share of those of the picture that was made of it; 1 if it has more. An
            overlap counts by this share, since pixels that were interpolated prove nothing.

    Returns:
        The pair with shifts in pixels of the picture; None if only shapes agreed.
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
        placed = _placements(first, second, seen, seen_second, (0, 0), (x, y))
        copied = any(
            _in_detail(first, image, valid) >= _COPY_AGREEMENT and agrees_in_one_position(first, image, valid)
            for image, valid in placed
        )
        return moved if copied else None
    here, there = _common(side, x, y, 1)
    overlap = float((inside[here] & inside_second[there]).sum() / side**2)
    if overlap < _LEAST_OVERLAP:
        return None
    careful = pair.orientation or not (inside.all() and inside_second.all())
    needed = np.interp(overlap * own, _OVERLAP, _AGREEMENT_CAREFUL if careful else _AGREEMENT)
    if best + 1 < 2 * needed:  # whatever the tiles say
        return None
    if best + _typical_tile(first[here], second[there], seen[here] & seen_second[there]) < 2 * needed:
        return None
    # Of the pictures: a white ground counts as a frame. Fields out of focus agree in little else, and are told by a
    # small overlap of many cells.
    if (1 - abs(x) / side) * (1 - abs(y) / side) < _ALIKE_FROM and own == 1 and not careful:
        return moved
    placed = _placements(first, second, seen, seen_second, (x, y), (x, y))
    return moved if any(agrees_in_one_position(first, image, valid) for image, valid in placed) else None


def _placements(
    first: np.ndarray,
    second: np.ndarray,
    seen: np.ndarray,
    seen_second: np.ndarray,
    shift: tuple[int, int],
    start: tuple[int, int],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The second picture laid on the first, and the pixels that both show: first by a shift, then registered."""
    here, there = _common(len(first), *shift, 1)
    placed, valid = np.zeros_like(second), np.zeros_like(seen)
    placed[here], valid[here] = second[there], seen[here] & seen_second[there]
    yield placed, valid
    aligned = register(first, second, seen, seen_second, start)
    if aligned is not None:
        yield aligned.second, aligned.valid


def _in_detail(one: np.ndarray, two: np.ndarray, valid: np.ndarray) -> float:
    first, second = (_detail(_blurred(image, _SMOOTH_PX))[valid] for image in (one, two))
    return (_correlation(first, second) + _typical_tile(one, two, valid)) / 2 if len(first) else 0.0


def _common(side: int, x: int, y: int, step: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the common area in either picture."""
    here = (slice(max(y, 0), side + min(y, 0), step), slice(max(x, 0), side + min(x, 0), step))
    return here, (slice(max(-y, 0), side + min(-y, 0), step), slice(max(-x, 0), side + min(-x, 0), step))


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one - one.mean(), two - two.mean()
    return float(one @ two / np.sqrt((one @ one) * (two @ two) + 1e-6))


def _detail(grey: np.ndarray) -> np.ndarray:
    image = grey.astype(np.float32)
    return image - _blurred(image, _DETAIL_PX)


def _blurred(image: np.ndarray, sigma_px: float) -> np.ndarray:
    import cv2

    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT))


def _typical_tile(one: np.ndarray, two: np.ndarray, valid: np.ndarray) -> float:
    """Return the median correlation over textured tiles; 0 if no tile is textured."""
    one, two = (_blurred(image, _SMOOTH_PX) for image in (one, two))
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
