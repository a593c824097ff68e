"""Burned-in overlays (scale bars, stamps, text), found without knowing their position or appearance.

An overlay puts the same unusual colour at the same pixel of many images, and has hard edges. Cells do neither: they lie
anywhere, and uneven illumination (vignetting) is smooth. For each pixel and coarse colour, three counts over the
collection find overlays: how often the pixel has the colour, how often other pixels have it, and how steep the image is
where it occurs. A pixel and colour that stand out in all three are a mark of an overlay. Images that show the same
marks have the same overlay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ball_features.audit.frames import frame

__all__ = ["NO_OVERLAY", "OverlayModel", "colour_codes", "learn_overlays"]

NO_OVERLAY = "none"
_COLOURS = 512  # three bits a channel
_MIN_SHARE = 0.004  # least share of images that show a colour at a pixel
_TIMES_USUAL = 6  # count of the colour at the pixel, over the 95th percentile of all pixels
_TIMES_STEEP = 4  # gradient at the pixel, over the mean of all pixels
_MOST_FRAMED = 0.9  # share of images with a frame there: a frame that all have is no overlay
_MIN_MARKS = 8  # least marks in an image with an overlay
_SAME_LOOK = 0.3  # least Jaccard index of the marks of two images with one look
_SAME_KIND = 0.1  # least mean cosine of the looks of one overlay; different overlays share next to nothing
_LIKE_KIND = 0.2  # least cosine of an image's marks and a look


def colour_codes(image: np.ndarray) -> np.ndarray:
    """Return the coarse colour of each pixel: uint8 (height, width, 3) -> uint16 (height * width,)."""
    bits = (image >> 5).astype(np.uint16)
    return ((bits[..., 0] << 6) | (bits[..., 1] << 3) | bits[..., 2]).ravel()


def _steepness(image: np.ndarray) -> np.ndarray:
    """Return the larger central difference of the channel sum at each pixel, float32 (height * width,)."""
    total = image.astype(np.int16).sum(2)
    steep = np.zeros(total.shape, dtype=np.float32)
    steep[:, 1:-1] = np.abs(total[:, 2:] - total[:, :-2])
    steep[1:-1] = np.maximum(steep[1:-1], np.abs(total[2:] - total[:-2]))
    return steep.ravel()


@dataclass(frozen=True, eq=False)
class OverlayModel:
    """Appearance of a collection's overlays.

    Attributes:
        shape: (height, width) of the images that the model was learnt from.
        place: flat index of the pixel of each mark, int (marks,).
        colour: coarse colour of each mark, uint16 (marks,); a pixel may have several marks.
        profile: share of the images with one look that show each mark, float32 (profiles, marks). A transparent overlay
            has a look for each background.
        kind: number of the overlay that each profile belongs to, int (profiles,), 0 for the most frequent.
    """

    shape: tuple[int, int]
    place: np.ndarray
    colour: np.ndarray
    profile: np.ndarray
    kind: np.ndarray

    @property
    def names(self) -> list[str]:
        """Names of the overlays, the most frequent first."""
        return [f"overlay-{number + 1}" for number in range(int(self.kind.max(initial=-1)) + 1)]

    def evidence(self, image: np.ndarray) -> np.ndarray:
        """Return the marks that an image shows, bool (marks,)."""
        return colour_codes(image)[self.place] == self.colour

    def assign(self, evidence: np.ndarray) -> np.ndarray:
        """Return the name of each image's overlay, str (images,), from its evidence, bool (images, marks)."""
        if not len(self.profile):
            return np.full(len(evidence), NO_OVERLAY)
        best, score = _nearest(evidence, self.profile)
        enough = (score > _LIKE_KIND) & (evidence.sum(1) >= _MIN_MARKS)
        return np.where(enough, np.array(self.names)[self.kind[best]], NO_OVERLAY)

    def mask(self, grow_px: int = 4) -> np.ndarray:
        """Return the mask of all overlays with a margin, bool (height, width)."""
        from scipy.ndimage import binary_closing, binary_dilation

        mask = np.zeros(self.shape, dtype=bool)
        mask.ravel()[self.place] = True
        if not mask.any():
            return mask
        padded = np.pad(mask, grow_px)
        return binary_dilation(binary_closing(padded, iterations=grow_px), iterations=grow_px)[
            grow_px:-grow_px, grow_px:-grow_px
        ]

    def box(self, kind: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of an overlay in pixels, exclusive at right and bottom."""
        rows, columns = np.unravel_index(self.place[(self.profile[self.kind == kind] > 0.5).any(0)], self.shape)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _nearest(evidence: np.ndarray, profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the profile nearest to each image, and the cosine of the two."""
    dots = evidence.astype(np.float32) @ profile.T
    length = np.sqrt(evidence.sum(1, keepdims=True)) * np.linalg.norm(profile, axis=1)
    score = dots / np.maximum(length, 1e-6)
    return score.argmax(1), score.max(1)


def learn_overlays(read: Callable[[], Iterable[np.ndarray]]) -> OverlayModel:
    """Find the overlays of a collection, in memory that does not grow with it.

    Args:
        read: function that returns the images, uint8 (height, width, 3), all of one size; called twice. Some thousand
            images suffice: give a sample of a larger collection.
    """
    from scipy import ndimage

    number = 0
    shape = (0, 0)
    pixels = 0
    count = steep = framed = np.zeros(0)
    places = np.zeros(0, dtype=np.int64)
    for image in read():
        if not number:
            shape = (image.shape[0], image.shape[1])
            pixels = shape[0] * shape[1]
            count = np.zeros((_COLOURS, pixels), dtype=np.uint16)  # neighbours share a colour, and then lie together
            steep = np.zeros(count.shape, dtype=np.float32)
            framed = np.zeros(pixels, dtype=np.int64)
            places = np.arange(pixels)
        framed += frame((image.astype(np.uint16).sum(2) // 3).astype(np.uint8)).ravel()
        at = colour_codes(image) * np.int64(pixels) + places
        count.ravel()[at] += 1
        steep.ravel()[at] += _steepness(image)
        number += 1
    nothing = OverlayModel(
        shape, np.zeros(0, int), np.zeros(0, np.uint16), np.zeros((0, 0), np.float32), np.zeros(0, int)
    )
    if number < 2 * _MIN_MARKS:
        return nothing
    usual = np.quantile(count[:, :: max(1, len(places) // 7000)], 0.95, axis=1)
    mean_steep = float(steep.sum() / count.sum(dtype=np.int64))
    # Few colours are often at one pixel: only those are looked at from here on.
    colour, place = np.nonzero(count >= max(5, _MIN_SHARE * number))
    order = np.argsort(place, kind="stable")
    place, colour = place[order], colour[order]
    seen = count[colour, place]
    odd = (seen > _TIMES_USUAL * (usual[colour] + 1)) & (steep[colour, place] > _TIMES_STEEP * mean_steep * seen)
    odd &= framed[place] < _MOST_FRAMED * number
    del count, steep
    place, colour = place[odd], colour[odd]
    # An overlay is connected, so islands much smaller than the largest are chance and are dropped.
    marked = np.zeros(shape, dtype=bool)
    marked.ravel()[place] = True
    found: Any = ndimage.label(ndimage.binary_dilation(marked, iterations=4))
    labelled, islands = found
    if not islands:
        return nothing
    size = ndimage.sum(marked, labelled, np.arange(1, islands + 1))
    large = np.flatnonzero(size >= max(_MIN_MARKS, 0.1 * size.max())) + 1
    kept = np.isin(labelled.ravel()[place], large)
    place, colour = place[kept], colour[kept]
    evidence = np.stack([colour_codes(image)[place] == colour for image in read()])
    profile = _looks(evidence)
    kind = _merge(profile, evidence)
    return OverlayModel(shape, place, colour.astype(np.uint16), profile, kind)


def _looks(evidence: np.ndarray) -> np.ndarray:
    """Return the profiles of looks by leader clustering: one look for images near a seed by the Jaccard index."""
    amount = evidence.sum(1)
    marks = evidence.astype(np.float32)
    left = amount >= _MIN_MARKS
    least = max(5, int(0.002 * len(evidence)))
    looks: list[np.ndarray] = []
    while left.sum() >= least:
        rows = np.flatnonzero(left)
        seed = rows[np.argsort(amount[rows], kind="stable")[len(rows) // 2]]
        centre = marks[seed]
        members = rows[:0]
        for _ in range(6):
            shared = marks[rows] @ centre
            members = rows[shared / np.maximum(amount[rows] + centre.sum() - shared, 1) > _SAME_LOOK]
            if not len(members):
                break
            centre = (marks[members].mean(0) > 0.5).astype(np.float32)
        left[seed] = False
        if len(members) >= least and centre.sum() >= _MIN_MARKS:
            left[members] = False
            looks.append(marks[members].mean(0))
    return np.array(looks) if looks else np.zeros((0, evidence.shape[1]), dtype=np.float32)


def _merge(profile: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Return the overlay of each profile: looks that share marks are one overlay on several backgrounds."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(profile) < 2:
        return np.zeros(len(profile), dtype=np.int64)
    unit = profile / np.linalg.norm(profile, axis=1, keepdims=True)
    distance = np.clip(1 - unit @ unit.T, 0, None)
    np.fill_diagonal(distance, 0)
    merged = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - _SAME_KIND, "distance") - 1
    best, score = _nearest(evidence, profile)
    images = np.bincount(merged[best[score > _LIKE_KIND]], minlength=merged.max() + 1)
    return np.argsort(np.argsort(-images, kind="stable"))[merged]
