"""Whether two aligned pictures agree in this position alone, as a copy does, or in any, as round cells do.

A single cell on an empty ground correlates with every other one: outline on outline, nucleus on nucleus. The pair
itself shows how much of that is its shape: the same two pictures, one of them turned by quarters or mirrored, and
shifted to fit. A copy agrees in its own position far better than in the seven others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["agrees_in_one_position"]

# Sigmas of differences of Gaussians, in pixels at 224: grain of chromatin and edges, and lobes of a nucleus.
_BANDS_PX = ((1.0, 2.5), (1.5, 8.0))
_REACH_PX = 4  # shifts tried in the other positions, at half size
_LEAST_PIXELS = 400
# Of 107 pairs of single cells of two sites that correlate at coarse scales, looked at one by one, the copies come to at
# most 0.4 of the disagreement of other positions, the others to at least 0.55.
_MOST_OF_OTHERS = 0.5
_CLEARLY_MORE = 0.3  # correlation above that of other positions, for fields, which have nothing in common in these:
_NOTHING_IN_COMMON = 0.2


def agrees_in_one_position(first: np.ndarray, second: np.ndarray, valid: np.ndarray) -> bool:
    """Return whether fine or coarse detail agrees better in this position than in the seven others.

    Args:
        first: grey picture, uint8 or float32 (height, width).
        second: grey picture laid on the first, of the same shape.
        valid: pixels that both show, bool (height, width).
    """
    import cv2

    if valid.sum() < _LEAST_PIXELS:
        return False
    library: Any = cv2
    seen = valid.astype(np.float32)
    pictures = [image.astype(np.float32) * seen for image in (first, second)]

    def smooth(image: np.ndarray, sigma_px: float) -> np.ndarray:  # of what is seen: its edge is no detail
        blurred = library.GaussianBlur(image, (0, 0), sigma_px)
        return blurred if valid.all() else blurred / np.maximum(library.GaussianBlur(seen, (0, 0), sigma_px), 1e-3)

    for fine, coarse in _BANDS_PX:
        one, two = (smooth(image, fine) - smooth(image, coarse) for image in pictures)
        a, b = (detail[valid] - detail[valid].mean() for detail in (one, two))
        own = float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-6))
        other = _in_other_positions(_halved(one, valid), _halved(two, valid))
        if own > other and 1 - own <= _MOST_OF_OTHERS * (1 - other):
            return True
        if own - other >= _CLEARLY_MORE and other <= _NOTHING_IN_COMMON:
            return True
    return False


def _halved(detail: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Detail at half size, 0 where it does not count."""
    import cv2

    seen = np.where(valid, detail - detail[valid].mean(), 0).astype(np.float32)
    return np.asarray(cv2.resize(seen, (seen.shape[1] // 2, seen.shape[0] // 2), interpolation=cv2.INTER_AREA))


def _in_other_positions(one: np.ndarray, two: np.ndarray) -> float:
    """Greatest correlation of a window about the middle of the detail with the second picture's, turned or mirrored."""
    import cv2

    height, width = one.shape
    weight = np.abs(one) + 1e-6
    middle = [float((weight.sum(1 - axis) * np.arange(one.shape[axis])).sum() / weight.sum()) for axis in (0, 1)]
    reach = min(middle[0], middle[1], height - 1 - middle[0], width - 1 - middle[1])
    half = int(min(max(reach, min(height, width) / 4), (min(height, width) - 1) / 2))
    if half <= 2 * _REACH_PX:
        return 0.0
    top, left = (
        round(min(max(place, half), size - 1 - half)) - half
        for place, size in zip(middle, (height, width), strict=True)
    )
    window = (slice(top, top + 2 * half + 1), slice(left, left + 2 * half + 1))
    target, upright = np.ascontiguousarray(one[window]), two[window]
    best = 0.0
    for turn in range(1, 8):
        own = np.rot90(upright[:, ::-1] if turn >= 4 else upright, turn % 4)
        inner = np.ascontiguousarray(own[_REACH_PX:-_REACH_PX, _REACH_PX:-_REACH_PX])
        best = max(best, float(cv2.matchTemplate(target, inner, cv2.TM_CCOEFF_NORMED).max()))
    return best
