"""Pairs of images that show the same thing: turned or re-encoded copies, and fields of view that overlap.

Local features in one index over all images, and thumbnails in eight positions, propose pairs wherever they lie in the
collection; masked correlation over all shifts confirms them, coarsely for every candidate, then finely for those that
pass. The number of comparisons grows with the number of images and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Pair", "find_pairs", "orient"]

SIDE_PX = 128  # working size: a cell of a smear is then about 8 px wide, which is enough to tell fields apart
_BATCH = 64
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
# Correlation of detail that an overlap of this share needs. Of 2,672 unrelated pairs of drawn fields that agreed at the
# working size none reaches it; a turned field has had seven more chances.
_DETAIL_OVERLAP = (0.15, 0.25, 0.35, 0.45, 0.6)
_DETAIL_FROM = (0.92, 0.85, 0.68, 0.56, 0.4)
_DETAIL_TURNED = (0.92, 0.85, 0.78, 0.66, 0.66)


@dataclass(frozen=True)
class Pair:
    """Two images that belong together.

    Attributes:
        first: Row of the one.
        second: Row of the other, larger.
        kind: "near-duplicate" or "shared-field".
        shift_x_px: How far the second field lies to the right of the first, in pixels of the images compared.
        shift_y_px: How far it lies below.
        orientation: 0 to 7: quarter turns, plus 4 where mirrored, that take the second to the first.
        score: Correlation that confirmed it.
    """

    first: int
    second: int
    kind: str
    shift_x_px: int
    shift_y_px: int
    orientation: int
    score: float


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """One of the eight flips and quarter turns of (height, width, ...)."""
    turned = np.rot90(image, orientation % 4)
    return turned[:, ::-1] if orientation >= 4 else turned


def find_pairs(
    grey: np.ndarray,
    overlay: np.ndarray,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Propose and confirm.

    Args:
        grey: uint8 (images, side, side).
        overlay: bool (side, side), places to leave out of every comparison.
        seed: Of the index of features.
        progress: Called with (steps done, steps in all); a step is an image described or a candidate compared.

    Returns:
        Confirmed pairs, in order of rows.
    """
    from ball_features.dataset.keypoints import candidates_from_features, candidates_from_thumbnails

    if len(grey) < 2:
        return []
    small, seen = _shrink(grey, overlay)
    masks = np.broadcast_to(seen, small.shape)
    proposals = (candidates_from_features(small, masks, seed=seed), candidates_from_thumbnails(small, masks, seed=seed))
    a, b, turn, votes = (np.concatenate([getattr(p, name) for p in proposals]) for name in ("a", "b", "turn", "votes"))
    key = a * len(grey) + b
    order = np.lexsort((turn, -votes, key))  # the turn with the most votes comes first
    order = order[np.unique(key[order], return_index=True)[1]]
    pairs = []
    for start in range(0, len(order), _BATCH):
        some = order[start : start + _BATCH]
        pairs += _confirm(small, seen, a[some], b[some], turn[some], votes[some])
        if progress:
            progress(len(grey) + start + len(some), len(grey) + len(order))
    exact = [pair for pair in (_at_full_size(grey, overlay, pair) for pair in pairs) if pair is not None]
    return sorted(exact, key=lambda pair: (pair.first, pair.second))


def _shrink(grey: np.ndarray, overlay: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (images, 128, 128) by area averaging, and bool (128, 128) where no overlay has any part."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    small = np.empty((len(grey), SIDE_PX, SIDE_PX), dtype=np.uint8)
    for start in range(0, len(grey), 4 * _BATCH):
        part = torch.from_numpy(grey[start : start + 4 * _BATCH]).float()[:, None]
        pooled = adaptive_avg_pool2d(part, SIDE_PX)[:, 0]
        small[start : start + len(part)] = pooled.round().clamp(0, 255).to(torch.uint8).numpy()
    covered = adaptive_avg_pool2d(torch.from_numpy(overlay).float()[None, None], SIDE_PX)[0, 0]
    return small, (covered == 0).numpy()


def _confirm(
    small: np.ndarray, seen: np.ndarray, a: np.ndarray, b: np.ndarray, turn: np.ndarray, votes: np.ndarray
) -> list[Pair]:
    """Those of a batch of candidates whose pixels agree; shifts in working pixels."""
    import torch

    from ball_features.dataset.correlation import correlate, required_score, resize_about_centre
    from ball_features.dataset.keypoints import turned

    pixels_a, pixels_b = torch.from_numpy(small[a]).float(), torch.from_numpy(small[b]).float()
    seen_a = torch.from_numpy(seen).expand(len(a), -1, -1)
    seen_b = torch.stack([turned(torch.from_numpy(seen), int(value)) for value in turn])
    pixels_b = torch.stack([turned(image, int(value)) for image, value in zip(pixels_b, turn, strict=True)])
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


def _at_full_size(grey: np.ndarray, overlay: np.ndarray, pair: Pair) -> Pair | None:
    """The pair with its shift in pixels of `grey`, if detail agrees there too; None where only shapes did.

    At the working size two drawings of round cells agree well enough; what is finer than a cell tells fields apart.
    """
    side = grey.shape[1]
    seen = ~overlay
    one, two = _detail(grey[pair.first]), _detail(orient(grey[pair.second], pair.orientation))
    seen_two = orient(seen, pair.orientation)
    dx, dy = (round(step * side / SIDE_PX) for step in (pair.shift_x_px, pair.shift_y_px))
    best, best_x, best_y = -1.0, dx, dy
    near = range(-_REACH_PX, _REACH_PX + 1)
    for y, x in [(dy + j, dx + i) for j in near for i in near]:
        here = (slice(max(y, 0), side + min(y, 0), 2), slice(max(x, 0), side + min(x, 0), 2))
        there = (slice(max(-y, 0), side + min(-y, 0), 2), slice(max(-x, 0), side + min(-x, 0), 2))
        valid = seen[here] & seen_two[there]
        first, second = one[here][valid], two[there][valid]
        first, second = first - first.mean(), second - second.mean()
        score = float(first @ second / np.sqrt((first @ first) * (second @ second) + 1e-6))
        if score > best:
            best, best_x, best_y = score, x, y
    overlap = (1 - abs(best_x) / side) * (1 - abs(best_y) / side)
    # A small overlap agrees by chance more easily. A copy was confirmed in place, and may be scaled.
    needed = _DETAIL_TURNED if pair.orientation else _DETAIL_FROM
    if pair.kind == "shared-field" and best < np.interp(overlap, _DETAIL_OVERLAP, needed):
        return None
    return Pair(pair.first, pair.second, pair.kind, best_x, best_y, pair.orientation, pair.score)


def _detail(grey: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    image = grey.astype(np.float32)
    return image - gaussian_filter(image, _DETAIL_PX)
