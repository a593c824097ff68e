"""Pairs of images that show the same thing: turned or re-encoded copies, and fields of view that overlap.

Candidates are proposed cheaply (neighbours in file order, nearest neighbours in colour and in small thumbnails, so that
the number of comparisons grows with the number of images and not with its square) and confirmed in pixels: normalised
cross-correlation over every shift with overlays masked out (Padfield 2012, doi 10.1109/TIP.2011.2181402), then at full
size on detail alone, where two different smears have nothing in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Pair", "find_pairs", "orient", "propose"]

COARSE_PX = 56
MIN_OVERLAP = 0.15  # of the unmasked field
_COARSE_FROM = 0.5  # correlation at COARSE_PX that is worth a look at full size
_CONFIRM_FROM = 0.65  # correlation of detail at full size
_SAME_FROM = 0.9  # correlation at COARSE_PX, without a shift worth the name, that makes a copy
_ZOOM_FROM = 0.7  # of correlation without a shift that is worth trying other crops
_SMALL_SHIFT = 0.04  # of the side
_ORDER_REACH = 12
_NEAREST = 12


@dataclass(frozen=True)
class Pair:
    """Two images that belong together.

    Attributes:
        first: Row of the one.
        second: Row of the other, larger.
        kind: "near-duplicate" or "shared-field".
        shift_x_px: How far the second field lies to the right of the first, in pixels of the working size.
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


def _needed(overlap: float) -> float:
    """Correlation that confirms an overlap of this share: a small one agrees by chance more easily."""
    return float(np.interp(overlap, (MIN_OVERLAP, 0.6), (0.9, _CONFIRM_FROM)))


def _shrink(grey: np.ndarray, side: int) -> np.ndarray:
    """Block means: (images, height, width) -> float32 (images, side, side); side divides both."""
    images, height, width = grey.shape
    blocks = grey.reshape(images, side, height // side, side, width // side)
    return blocks.mean((2, 4), dtype=np.float32)


def _components(X: np.ndarray, count: int) -> np.ndarray:
    """Leading principal components, (images, count): what a k-d tree can search."""
    X = X - X.mean(0)
    _, vectors = np.linalg.eigh(X.T @ X)
    return X @ vectors[:, ::-1][:, :count]


def _nearest(index: np.ndarray, query: np.ndarray, count: int) -> np.ndarray:
    from scipy.spatial import KDTree

    return np.atleast_2d(KDTree(index).query(query, k=min(count + 1, len(index)), workers=-1)[1])


def propose(
    grey: np.ndarray, colour: np.ndarray, folder: np.ndarray, embeddings: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates.

    Args:
        grey: uint8 (images, side, side), in file order.
        colour: float (images, bins), colour histograms.
        folder: (images,), neighbours in file order are of one folder.
        embeddings: float (images, dim), better neighbours than colour where there are some.

    Returns:
        Plain pairs, int (pairs, 2), first row smaller; and turned ones, int (pairs, 3), with an orientation.
    """
    images = len(grey)
    found = []
    for lag in range(1, min(_ORDER_REACH, images - 1) + 1):
        first = np.flatnonzero(folder[:-lag] == folder[lag:])
        found.append(np.stack([first, first + lag], 1))
    spaces = [_components(np.sqrt(colour), 10)]
    if embeddings is not None:
        sample = embeddings.astype(np.float32)
        spaces.append(_components(sample / np.linalg.norm(sample, axis=1, keepdims=True), 16))
    for space in spaces:
        near = _nearest(space, space, _NEAREST)
        found.append(np.stack([np.repeat(np.arange(images), near.shape[1]), near.ravel()], 1))
    small = _shrink(grey, 14)
    small = small - small.mean((1, 2), keepdims=True)
    small /= np.maximum(small.std((1, 2), keepdims=True), 1e-3)
    # One rotation into components for all eight orientations.
    basis_of = small.reshape(images, -1)
    _, vectors = np.linalg.eigh(basis_of.T @ basis_of)
    basis = vectors[:, ::-1][:, :16]
    index = basis_of @ basis
    turned = []
    for orientation in range(8):
        query = np.stack([orient(item, orientation) for item in small]).reshape(images, -1) @ basis
        near = _nearest(index, query, 6)
        pairs = np.stack([near.ravel(), np.repeat(np.arange(images), near.shape[1])], 1)
        if orientation == 0:
            found.append(pairs)
        else:
            turned.append(np.column_stack([pairs, np.full(len(pairs), orientation)]))
    plain = np.sort(np.concatenate(found), 1)
    plain = np.unique(plain[plain[:, 0] != plain[:, 1]], axis=0)
    turned = np.concatenate(turned)
    return plain, np.unique(turned[turned[:, 0] != turned[:, 1]], axis=0)


class _Correlator:
    """Masked normalised cross-correlation of small images over all shifts, in batches."""

    def __init__(self, small: np.ndarray, mask: np.ndarray) -> None:
        from scipy import fft

        self.fft: Any = fft
        self.small, self.mask = small, mask.astype(np.float32)
        self.size = 2 * small.shape[1]
        self.mask_f: Any = fft.rfft2(self.mask, (self.size, self.size))
        self.overlap = np.maximum(self._back(self.mask_f * np.conj(self.mask_f)).round(), 0)

    def _back(self, spectrum: np.ndarray) -> np.ndarray:
        return self.fft.irfft2(spectrum, (self.size, self.size), workers=-1)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Greatest correlation of each pair (batch, side, side), and its shift (batch, 2) in rows and columns."""
        forward: list[Any] = [self.fft.rfft2(x, (self.size, self.size), workers=-1) for x in (first, second)]
        squares: list[Any] = [self.fft.rfft2(x * x, (self.size, self.size), workers=-1) for x in (first, second)]
        count = np.maximum(self.overlap, 1)
        sum_1, sum_2 = self._back(forward[0] * np.conj(self.mask_f)), self._back(self.mask_f * np.conj(forward[1]))
        var_1 = self._back(squares[0] * np.conj(self.mask_f)) - sum_1 * sum_1 / count
        var_2 = self._back(self.mask_f * np.conj(squares[1])) - sum_2 * sum_2 / count
        both = self._back(forward[0] * np.conj(forward[1])) - sum_1 * sum_2 / count
        score = both / np.sqrt(np.maximum(var_1 * var_2, 1e-3))
        # A flat overlap, or a small one, correlates by chance.
        flat = (var_1 < 25 * count) | (var_2 < 25 * count)
        score[flat | (self.overlap < MIN_OVERLAP * self.mask.sum())] = -1
        score = score.reshape(len(first), -1)
        best = score.argmax(1)
        shift = np.stack(np.unravel_index(best, (self.size, self.size)), 1)
        return score[np.arange(len(first)), best], np.where(shift > self.size // 2, shift - self.size, shift)


def _refine(
    first: np.ndarray, second: np.ndarray, mask: np.ndarray, shift: np.ndarray, reach: int
) -> tuple[float, int, int]:
    """Best correlation of detail at full size near a shift, and that shift (rows, columns)."""
    side = len(first)
    best = (-1.0, 0, 0)
    for dy in range(shift[0] - reach, shift[0] + reach + 1):
        for dx in range(shift[1] - reach, shift[1] + reach + 1):
            height, width = side - abs(dy), side - abs(dx)
            if height < 16 or width < 16:
                continue
            one = (slice(max(dy, 0), max(dy, 0) + height, 2), slice(max(dx, 0), max(dx, 0) + width, 2))
            two = (slice(max(-dy, 0), max(-dy, 0) + height, 2), slice(max(-dx, 0), max(-dx, 0) + width, 2))
            valid = mask[one] & mask[two]
            a, b = first[one][valid], second[two][valid]
            a, b = a - a.mean(), b - b.mean()
            score = float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-6))
            best = max(best, (score, dy, dx))
    return best


def _zoomed(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Best correlation at `COARSE_PX` where one picture is the middle of the other, cut by up to 4 % a side."""
    from PIL import Image

    side = len(first)
    best = -1.0
    for whole, part in ((first, second), (second, first)):
        target = _shrink(part[None], COARSE_PX)[0][mask]
        target = target - target.mean()
        for cut in np.linspace(0.005, 0.04, 8) * side:
            box = (cut, cut, side - cut, side - cut)
            inner = Image.fromarray(np.ascontiguousarray(whole)).resize(
                (COARSE_PX, COARSE_PX), Image.Resampling.BOX, box
            )
            inner = np.asarray(inner, dtype=np.float32)[mask]
            inner = inner - inner.mean()
            best = max(best, float(inner @ target / np.sqrt((inner @ inner) * (target @ target) + 1e-6)))
    return best


def _detail(grey: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    image = grey.astype(np.float32)
    return image - gaussian_filter(image, 6)


def find_pairs(
    grey: np.ndarray,
    colour: np.ndarray,
    folder: np.ndarray,
    overlay: np.ndarray,
    embeddings: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Propose and confirm.

    Args:
        grey: uint8 (images, side, side), side a multiple of `COARSE_PX`.
        colour: float (images, bins).
        folder: (images,).
        overlay: bool (side, side), places to leave out of every comparison.
        embeddings: float (images, dim) or None.
        progress: Called with (candidates done, candidates in all).

    Returns:
        Confirmed pairs, in order of rows.
    """
    plain, turned = propose(grey, colour, folder, embeddings)
    side = grey.shape[1]
    step = side // COARSE_PX
    valid = ~overlay
    mask = np.asarray(valid.reshape(COARSE_PX, step, COARSE_PX, step).all((1, 3)))
    small = _shrink(grey, COARSE_PX)
    correlator = _Correlator(small, mask)
    masked = small * mask
    pairs: dict[tuple[int, int], Pair] = {}
    batch = 64
    total = len(plain) + len(turned)
    for start in range(0, len(plain), batch):
        rows = plain[start : start + batch]
        score, shift = correlator(masked[rows[:, 0]], masked[rows[:, 1]])
        for place in np.flatnonzero(score > _COARSE_FROM):
            first, second = (int(row) for row in rows[place])
            found = _refine(_detail(grey[first]), _detail(grey[second]), valid, step * shift[place], step + 1)
            overlap = (1 - abs(found[1]) / side) * (1 - abs(found[2]) / side)
            if found[0] > _needed(overlap):
                small_shift = max(abs(found[1]), abs(found[2])) <= _SMALL_SHIFT * side
                kind = "near-duplicate" if small_shift and score[place] > _SAME_FROM else "shared-field"
                pairs[first, second] = Pair(first, second, kind, found[2], found[1], 0, round(found[0], 4))
            elif score[place] > _ZOOM_FROM and np.abs(shift[place]).max() <= 2:
                zoomed = _zoomed(grey[first], grey[second], mask)
                if zoomed > _SAME_FROM:
                    pairs[first, second] = Pair(first, second, "near-duplicate", 0, 0, 0, round(zoomed, 4))
        if progress:
            progress(min(start + batch, len(plain)), total)
    for start in range(0, len(turned), batch):
        rows = turned[start : start + batch]
        rotated = np.stack([orient(small[second], int(way)) for _, second, way in rows]) * mask
        score, shift = correlator(masked[rows[:, 0]], rotated)
        for place in np.flatnonzero((score > _ZOOM_FROM) & (np.abs(shift).max(1) <= 2)):
            first, second, way = (int(value) for value in rows[place])
            key = (min(first, second), max(first, second))
            if key in pairs:
                continue
            alike = float(score[place])
            if alike <= _SAME_FROM:
                alike = _zoomed(grey[first], orient(grey[second], way), mask)
            if alike > _SAME_FROM:
                pairs[key] = Pair(*key, "near-duplicate", 0, 0, way, round(alike, 4))
        if progress:
            progress(len(plain) + min(start + batch, len(turned)), total)
    return [pairs[key] for key in sorted(pairs)]
