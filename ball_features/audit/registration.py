"""Registration of two pictures by an affine map, to tell a copy from a picture that only looks alike.

Single cells on a plain ground correlate at coarse scales whoever they are: a dark disc on another. A copy agrees in its
detail too, once the small change of size or place that re-encoding and cropping bring is undone (Evangelidis and
Psarakis 2008, "Parametric image alignment using enhanced correlation coefficient maximization", doi
10.1109/TPAMI.2008.113).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Registered", "register"]

_SMOOTH_PX = 1.5  # of the pictures that are aligned
_ITERATIONS = 60
_PRECISION = 1e-4
_EDGE_PX = 4  # of the moved picture that do not count: they are interpolated with what lies outside
_LEAST_OVERLAP = 0.3


@dataclass(frozen=True, eq=False)
class Registered:
    """Two pictures in one frame.

    Attributes:
        second: second picture, moved onto the first, uint8 (side, side).
        valid: pixels that both show, bool (side, side).
    """

    second: np.ndarray
    valid: np.ndarray


def register(
    first: np.ndarray, second: np.ndarray, seen: np.ndarray, seen_second: np.ndarray, shift: tuple[int, int]
) -> Registered | None:
    """Move a picture onto another by the affine map under which they correlate best.

    Args:
        first: grey picture, uint8 (side, side).
        second: grey picture, uint8 (side, side), turned like the first.
        seen: pixels of the first that count, bool (side, side).
        seen_second: pixels of the second that count, bool (side, side).
        shift: x and y of the second field to the right of the first and below it, in pixels, to start from.

    Returns:
        The moved picture; None where no map is found or less than a third of the field is common.
    """
    import cv2

    opencv: Any = cv2
    side = len(first)
    one, two = (opencv.GaussianBlur(image.astype(np.float32), (0, 0), _SMOOTH_PX) for image in (first, second))
    affine = np.array([[1, 0, -shift[0]], [0, 1, -shift[1]]], dtype=np.float32)
    stop = (opencv.TERM_CRITERIA_EPS | opencv.TERM_CRITERIA_COUNT, _ITERATIONS, _PRECISION)
    try:
        _, affine = opencv.findTransformECC(one, two, affine, opencv.MOTION_AFFINE, stop, None, 1)
    except opencv.error:  # it diverged
        return None
    back = opencv.WARP_INVERSE_MAP
    moved = opencv.warpAffine(second, affine, (side, side), flags=opencv.INTER_LINEAR | back)
    there = opencv.warpAffine(seen_second.astype(np.uint8), affine, (side, side), flags=opencv.INTER_NEAREST | back)
    reach = 2 * _EDGE_PX + 1
    valid = (opencv.erode(there, np.ones((reach, reach), np.uint8), borderValue=0) > 0) & seen
    return Registered(moved, valid) if valid.mean() >= _LEAST_OVERLAP else None
