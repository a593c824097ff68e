"""SIFT features of a collection: places that look the same however a picture is turned or zoomed.

Lowe 2004, doi 10.1023/B:VISI.0000029664.99615.94, by OpenCV; compared as RootSIFT (Arandjelovic and Zisserman 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ball_features.audit.thread_pool import thread_pool

__all__ = ["Features", "describe", "mirrored_order", "root_vectors"]

PER_IMAGE = 200  # features, the strongest
CONTRAST = 0.02
_TOGETHER = 512  # images described at a time
FEW, FAINT = 60, 0.008  # a picture with so few features, such as a pale single cell, is searched for fainter ones


@dataclass(frozen=True, eq=False)
class Features:
    """SIFT features of all images, one behind the other.

    Attributes:
        owner: int64 (features,), row of the image.
        place: float32 (features, 2), x and y in pixels.
        angle_deg: float32 (features,).
        size: float32 (features,), diameter in pixels.
        vector: uint8 (features, 128).
        start: int64 (images + 1,), first feature of each image.
    """

    owner: np.ndarray
    place: np.ndarray
    angle_deg: np.ndarray
    size: np.ndarray
    vector: np.ndarray
    start: np.ndarray

    def of(self, row: int) -> slice:
        """Features of one image."""
        return slice(int(self.start[row]), int(self.start[row + 1]))


def describe(
    picture: Callable[[int], tuple[np.ndarray, np.ndarray]], count: int, progress: Callable[[int], None]
) -> Features:
    """Find the features of all images.

    Args:
        picture: row -> grey picture uint8 (height, width), and bool (height, width), True where it counts.
        count: number of images.
        progress: called with the number of images described.
    """
    import cv2

    library: Any = cv2  # its type stubs lack SIFT

    def of_one(row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        grey, counts = picture(row)
        seen = np.where(counts, 255, 0).astype(np.uint8)
        points, vectors = (), np.zeros((0, 128), np.float32)
        for contrast in (CONTRAST, FAINT):
            if len(points) < FEW:
                sift = library.SIFT_create(nfeatures=PER_IMAGE, contrastThreshold=contrast)
                points, vectors = sift.detectAndCompute(grey, seen)
        if not points:
            return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8)
        place = np.array([point.pt for point in points[:PER_IMAGE]], dtype=np.float32)
        shape = np.array([(point.angle, point.size) for point in points[:PER_IMAGE]], dtype=np.float32)
        return place, shape, vectors[:PER_IMAGE].astype(np.uint8)  # OpenCV rounds them to 0 to 255

    counts = np.zeros(count, dtype=np.int64)
    vector = np.empty((count * PER_IMAGE, 128), dtype=np.uint8)  # the largest array: filled in place
    found, end = [], 0
    with thread_pool() as pool:
        for start in range(0, count, _TOGETHER):  # results wait in memory, so in parts
            for number, own in enumerate(pool.map(of_one, range(start, min(start + _TOGETHER, count))), start):
                counts[number] = len(own[2])
                vector[end : end + len(own[2])] = own[2]
                end += len(own[2])
                found.append(own[:2])
            progress(min(start + _TOGETHER, count))
    place, shape = (np.concatenate(column) for column in zip(*found, strict=True))
    return Features(
        owner=np.repeat(np.arange(count), counts),
        place=place,
        angle_deg=shape[:, 0],
        size=shape[:, 1],
        vector=vector[:end],
        start=np.concatenate([[0], np.cumsum(counts)]),
    )


def mirrored_order() -> np.ndarray:
    """Order of the 128 numbers that makes a feature that of the mirrored picture.

    SIFT counts gradients in 4 x 4 fields and eight directions, relative to the feature's own direction. A reflection at
    that direction reverses the rows of fields and the sense of the angles.
    """
    order = np.arange(128).reshape(4, 4, 8)[::-1]
    return order[:, :, (-np.arange(8)) % 8].reshape(-1)


def root_vectors(vector: np.ndarray) -> np.ndarray:
    """RootSIFT: float32 (features, 128), unit rows."""
    total = np.maximum(vector.sum(1, keepdims=True, dtype=np.float32), 1e-6)
    return np.sqrt(vector / total, dtype=np.float32)
