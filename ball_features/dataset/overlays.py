"""Burned-in overlays (scale bars, stamps, text), found without being told where or what.

An overlay puts the same unusual colour at the same place in many images, and has hard edges. Cells do neither: they lie
anywhere, and what illumination does to a place (vignetting) is smooth. So for each place and coarse colour three things
are counted over the collection: how often the colour is there, how often it is elsewhere, and how steep the image is
where it occurs. What stands out in all three is overlay; which of its pixels an image shows tells its kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["NO_OVERLAY", "OverlayModel", "colour_codes", "learn_overlays"]

NO_OVERLAY = "none"
_COLOURS = 512  # three bits a channel
_MIN_SHARE = 0.004  # of the images that show a colour at a place
_TIMES_USUAL = 6  # that colour there, against the 95th percentile over all places
_TIMES_STEEP = 4  # the gradient there, against the mean over all places
_MIN_PIXELS = 8  # of evidence in an image that has an overlay
_SAME_KIND = 0.4  # Jaccard index of an image's overlay pixels and a kind's


def colour_codes(image: np.ndarray) -> np.ndarray:
    """Coarse colour of each pixel: uint8 (height, width, 3) -> uint16 (height * width,)."""
    bits = (image >> 5).astype(np.uint16)
    return ((bits[..., 0] << 6) | (bits[..., 1] << 3) | bits[..., 2]).ravel()


def _steepness(image: np.ndarray) -> np.ndarray:
    """Larger of the two central differences of the channel sum, float32 (height * width,)."""
    total = image.astype(np.int16).sum(2)
    steep = np.zeros(total.shape, dtype=np.float32)
    steep[:, 1:-1] = np.abs(total[:, 2:] - total[:, :-2])
    steep[1:-1] = np.maximum(steep[1:-1], np.abs(total[2:] - total[:-2]))
    return steep.ravel()


@dataclass(frozen=True)
class OverlayModel:
    """What a collection's overlays look like.

    Attributes:
        shape: (height, width) of the images it was learnt on.
        place: int (pixels,), flat indices that belong to overlays.
        odd: bool (pixels, colours), the colours that are overlay there.
        template: bool (kinds, pixels), the overlay pixels of each kind, most frequent kind first.
    """

    shape: tuple[int, int]
    place: np.ndarray
    odd: np.ndarray
    template: np.ndarray

    @property
    def names(self) -> list[str]:
        """Names of the kinds."""
        return [f"overlay-{number + 1}" for number in range(len(self.template))]

    def evidence(self, image: np.ndarray) -> np.ndarray:
        """Which overlay pixels an image shows, bool (pixels,)."""
        if not len(self.place):
            return np.zeros(0, dtype=bool)
        return self.odd[np.arange(len(self.place)), colour_codes(image)[self.place]]

    def assign(self, evidence: np.ndarray) -> np.ndarray:
        """The kind of each image, str (images,), from its evidence, bool (images, pixels)."""
        if not len(self.template):
            return np.full(len(evidence), NO_OVERLAY)
        best, score = _nearest(evidence, self.template)
        enough = (score > 0.75 * _SAME_KIND) & (evidence.sum(1) >= _MIN_PIXELS)
        return np.where(enough, np.array(self.names)[best], NO_OVERLAY)

    def mask(self, grow_px: int = 4) -> np.ndarray:
        """The places of all overlays with a margin, bool (height, width)."""
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
        """Left, top, right, bottom of a kind in pixels, exclusive at right and bottom."""
        rows, columns = np.unravel_index(self.place[self.template[kind]], self.shape)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _nearest(evidence: np.ndarray, template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The template most like each image and their Jaccard index."""
    shared = evidence.astype(np.float32) @ template.T.astype(np.float32)
    union = evidence.sum(1, keepdims=True) + template.sum(1) - shared
    score = shared / np.maximum(union, 1)
    return score.argmax(1), score.max(1)


def learn_overlays(images: Iterable[np.ndarray]) -> OverlayModel:
    """Find the overlays of a collection.

    Args:
        images: uint8 (height, width, 3), all of one size; read twice over as coarse colours, so some thousands are
            plenty: give a sample of a larger collection.
    """
    from scipy import ndimage

    codes: list[np.ndarray] = []
    shape = (0, 0)
    count = steep = np.zeros(0)
    for image in images:
        if not codes:
            shape = (image.shape[0], image.shape[1])
            count = np.zeros((shape[0] * shape[1], _COLOURS), dtype=np.uint16)
            steep = np.zeros(count.shape, dtype=np.float32)
            places = np.arange(len(count))
        code = colour_codes(image)
        count[places, code] += 1
        steep[places, code] += _steepness(image)
        codes.append(code)
    number = len(codes)
    if number < 2 * _MIN_PIXELS:
        return OverlayModel(shape, np.zeros(0, int), np.zeros((0, _COLOURS), bool), np.zeros((0, 0), bool))
    usual = np.quantile(count[:: max(1, len(count) // 7000)], 0.95, axis=0)
    mean_steep = float(steep.sum() / count.sum(dtype=np.int64))
    often = (count >= max(5, _MIN_SHARE * number)) & (count > _TIMES_USUAL * (usual + 1))
    odd = often & (steep > _TIMES_STEEP * mean_steep * count)
    # Chance makes specks; an overlay is a connected thing, so small islands beside the largest one go.
    spread = ndimage.binary_dilation(odd.any(1).reshape(shape), iterations=4)
    labelled, islands = ndimage.label(spread)
    if not islands:
        return OverlayModel(shape, np.zeros(0, int), odd[:0], np.zeros((0, 0), bool))
    size = ndimage.sum(odd.any(1).reshape(shape), labelled, np.arange(1, islands + 1))
    large = np.flatnonzero(size >= max(_MIN_PIXELS, 0.1 * size.max())) + 1
    place = np.flatnonzero(odd.any(1) & np.isin(labelled.ravel(), large))
    evidence = np.stack([odd[place, code[place]] for code in codes]) if len(place) else np.zeros((number, 0), bool)
    template = _kinds(evidence)
    if len(template):
        best, _ = _nearest(evidence, template)
        template = template[np.argsort(-np.bincount(best, minlength=len(template)), kind="stable")]
    return OverlayModel(shape, place, odd[place], template)


def _kinds(evidence: np.ndarray) -> np.ndarray:
    """Leaders among the evidence: the images like a seed make a kind, their majority its template."""
    amount = evidence.sum(1)
    left = amount >= _MIN_PIXELS
    least = max(5, int(0.002 * len(evidence)))
    kinds: list[np.ndarray] = []
    while left.sum() >= least:
        rows = np.flatnonzero(left)
        seed = rows[np.argsort(amount[rows], kind="stable")[len(rows) // 2]]
        template = evidence[seed]
        members = rows[:0]
        for _ in range(6):
            _, score = _nearest(evidence[rows], template[None])
            members = rows[score > _SAME_KIND]
            if not len(members):
                break
            template = evidence[members].mean(0) > 0.5
        left[seed] = False
        if len(members) >= least and template.sum() >= _MIN_PIXELS:
            left[members] = False
            kinds.append(template)
    return np.array(kinds) if kinds else np.zeros((0, evidence.shape[1]), dtype=bool)
