"""Frames around a picture: the black of a round aperture, bars of letterboxing, anything equal in all images.

Unrelated images agree on frames, so comparisons leave them out. In an image, a frame is a dark, even region, or rows of
one value, that reaches in from the edge and leaves one solid piece; a bright background does neither. In the
collection, a frame is a set of pixels that have the same value in nearly every image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ball_features.dataset.manifest import spread_rows

__all__ = ["frame", "painted", "same_everywhere"]

_DARK = 32  # grey levels; the darkest nuclei are brighter
_EVEN = 12  # range in grey levels, for noise and JPEG artefacts beside an edge
_LEAST_SHARE = 0.01  # of the picture
_SOLID = 0.9  # share of each row and column between its first and last pixel inside; cells on black leave gaps
_GROW = 1 / 56  # of the side: the soft edge of an aperture
_SAME = 3  # grey levels from the median over the collection
_MOST = 0.9  # of its images
_SAMPLE = 1000
_LEAST_IMAGES = 10  # fewer may agree by chance


def frame(grey: np.ndarray) -> np.ndarray:
    """Return the frame of one picture with a margin: uint8 (side, side) -> bool (side, side); never all of it."""
    nothing = np.zeros(grey.shape, dtype=bool)
    outside = _dark_from_edge(grey) | _bars(grey)
    if np.count_nonzero(outside) < _LEAST_SHARE * outside.size:
        return nothing
    inside = ~outside
    if inside.sum() < _SOLID * (_filled(inside) | _filled(inside.T).T).sum():
        return nothing
    grown = _grown(outside)
    return nothing if grown.all() else grown  # a speck on black is not a framed picture


def same_everywhere(grey: np.ndarray) -> np.ndarray:
    """Find pixels that hardly differ between images.

    Args:
        grey: pictures, uint8 (images, side, side).

    Returns:
        Mask of these pixels with a margin, bool (side, side); all False if the collection is small, or if most pixels
        hardly differ (an empty slide).
    """
    nowhere = np.zeros(grey.shape[1:], dtype=bool)
    if len(grey) < _LEAST_IMAGES:
        return nowhere
    some = grey[spread_rows(len(grey), _SAMPLE)]
    middle = np.median(some, axis=0)
    same = np.mean([np.abs(image - middle) <= _SAME for image in some], axis=0) >= _MOST
    return _grown(same) if _LEAST_SHARE <= same.mean() <= 0.5 else nowhere


def painted(grey: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Paint the frame in the median grey of the picture, so that filters see no edge: uint8 (side, side).

    A picture that is all frame is returned unchanged.
    """
    if outside.all():
        return grey
    return np.where(outside, np.median(grey[~outside]), grey).astype(np.uint8)


def _dark_from_edge(grey: np.ndarray) -> np.ndarray:
    import cv2
    from scipy import ndimage

    dark = grey <= _DARK
    edge = [dark[0], dark[-1], dark[:, 0], dark[:, -1]]
    if not np.any(edge):
        return np.zeros(grey.shape, dtype=bool)
    around = np.ones((3, 3), dtype=np.uint8)
    dark &= np.asarray(cv2.dilate(grey, around)) - np.asarray(cv2.erode(grey, around)) <= _EVEN
    found: Any = ndimage.label(dark)
    labelled = found[0]
    touching = np.unique(np.concatenate([labelled[0], labelled[-1], labelled[:, 0], labelled[:, -1]]))
    return np.isin(labelled, touching[touching > 0])


def _bars(grey: np.ndarray) -> np.ndarray:
    """Find rows and columns without variation, from the edges inwards."""
    bars = np.zeros(grey.shape, dtype=bool)
    for lines, marks in ((grey, bars), (grey.T, bars.T)):
        if np.ptp(lines[[0, -1]], axis=1).min() > _EVEN:  # most pictures: no bar begins at an edge
            continue
        even = np.ptp(lines, axis=1) <= _EVEN
        marks[np.logical_and.accumulate(even) | np.logical_and.accumulate(even[::-1])[::-1]] = True
    return bars


def _filled(inside: np.ndarray) -> np.ndarray:
    """Fill each row from its first to its last pixel."""
    begun = np.logical_or.accumulate(inside, axis=1)
    return begun & np.logical_or.accumulate(inside[:, ::-1], axis=1)[:, ::-1]


def _grown(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, np.ones((3, 3), dtype=bool), iterations=round(_GROW * len(mask)) + 1)
