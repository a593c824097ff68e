"""Pairs of images that show the same thing: turned or re-encoded copies, and fields of view that overlap.

Local features in one index over all images, and thumbnails in eight orientations, propose pairs anywhere in the
collection. Masked correlation over all shifts confirms them, coarsely for every candidate, then finely for those that
pass. The number of comparisons grows with the number of images, not with its square.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ball_features.audit.confirmation import SMALL_PX, Pair, confirm, confirm_at_full_size
from ball_features.audit.frames import frame, painted, same_everywhere
from ball_features.audit.thread_pool import thread_pool

__all__ = ["find_pairs", "shrink"]

_BATCH = 8  # candidates at a time: their transforms stay in a core's own memory, which takes half the time
_KEPT = 32  # pictures of full size in memory


def find_pairs(
    small: np.ndarray,
    overlay: np.ndarray,
    full: Callable[[int], np.ndarray],
    *,
    side_px: np.ndarray | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Find pairs. Comparisons leave out overlays and what surrounds a picture (see `frames`).

    Args:
        small: grey pictures, uint8 (images, 128, 128), from `shrink`.
        overlay: mask of the overlays, bool (side, side).
        full: row -> grey picture, uint8 (side, side); called for images of candidate pairs only.
        side_px: shorter side of each file's image, int (images,); None takes that of the grey pictures.
        seed: random seed of the feature index.
        progress: called with (steps done, total steps), four steps an image.

    Returns:
        Confirmed pairs, ordered by row.
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
    order = np.lexsort((turn, -votes, key))  # the orientation with the most votes comes first
    order = order[np.unique(key[order], return_index=True)[1]]
    pairs: list[Pair] = []
    parts = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    with thread_pool() as pool:
        confirmed = pool.map(lambda some: confirm(small, masks, a[some], b[some], turn[some], votes[some]), parts)
        for number, some in enumerate(confirmed, 1):
            pairs += some
            if progress:
                progress(count + 3 * count * number // len(parts), 4 * count)
    small_row = np.arange(len(overlay)) * SMALL_PX // len(overlay)
    everywhere = everywhere[np.ix_(small_row, small_row)]

    @lru_cache(_KEPT)  # consecutive pairs share pictures
    def picture(row: int) -> tuple[np.ndarray, np.ndarray]:
        grey = full(row)
        outside = frame(grey) | everywhere
        return (painted(grey, outside) if outside.any() else grey), ~outside

    def own(pair: Pair) -> float:
        """Share of the pixels of full size that the smaller of two files holds."""
        least = len(overlay) if side_px is None else min(side_px[pair.first], side_px[pair.second])
        return min(least / len(overlay), 1.0) ** 2

    exact = [confirm_at_full_size(picture, ~overlay, pair, own(pair)) for pair in pairs]
    return sorted((pair for pair in exact if pair is not None), key=lambda pair: (pair.first, pair.second))


def shrink(grey: np.ndarray) -> np.ndarray:
    """Shrink grey pictures by area averaging: uint8 (images, side, side) -> uint8 (images, 128, 128)."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    pooled = adaptive_avg_pool2d(torch.from_numpy(grey).float()[:, None], SMALL_PX)[:, 0]
    return pooled.round().clamp(0, 255).to(torch.uint8).numpy()


def _small_mask(overlay: np.ndarray) -> np.ndarray:
    """Return the mask of pixels that no overlay touches, bool (128, 128)."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    return (adaptive_avg_pool2d(torch.from_numpy(overlay).float()[None, None], SMALL_PX)[0, 0] == 0).numpy()


def _without_frames(small: np.ndarray, everywhere: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paint frames over: pictures, uint8 (images, 128, 128), and masks of the pixels that count, bool of that shape.

    The function copies neither if there are no frames.
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
