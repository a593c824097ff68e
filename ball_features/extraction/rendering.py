"""From a batch of images to the pixels of one view.

A view is a pure function of image content, view and seed: its random parameters come from a generator that is seeded by
these alone, and every transform works row by row, so a view never depends on the batch.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ball_features.extraction.cells import find_nuclei
from ball_features.extraction.central_nucleus import CentralNucleus, find_central_nucleus
from ball_features.extraction.overlay_fill import fill_overlays

if TYPE_CHECKING:
    from torch import Tensor

    from ball_features.extraction.recipe import View
    from ball_features.extraction.transforms import Transform

__all__ = ["SourceImages", "is_one_colour", "render_view"]

_EMPTY_SHARE = 0.9  # of the images in which a view is one colour, from which it says nothing
_FLAT = 2e-3  # deviation of pixels, of 1, up to which a picture is one colour


class SourceImages:
    """A batch of images with the intermediate results that several of its views share.

    Args:
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].
        mask: pixels that overlays of the collection cover, bool (height, width), or None if there are none.
    """

    def __init__(self, images: Tensor, mask: Tensor | None = None) -> None:
        self.images, self.mask = images, mask

    @functools.cached_property
    def filled(self) -> Tensor:
        """The images with overlays filled, of the same shape."""
        return self.images if self.mask is None else fill_overlays(self.images, self.mask)

    @functools.cached_property
    def nuclei(self) -> Tensor:
        """Output of `find_nuclei` on the filled images, so that no overlay counts as a nucleus."""
        return find_nuclei(self.filled)

    @functools.cached_property
    def cell(self) -> CentralNucleus:
        """The central nucleus of each image."""
        return find_central_nucleus(self.images)


def render_view(
    view: View, source: SourceImages, sha256: Sequence[str], seed: int, *, with_nuclei: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Render one view of every image of a batch, on the device of the images.

    Args:
        view: view of a plan.
        source: the images.
        sha256: content hash of each image, hexadecimal; it seeds random views.
        seed: seed of random views.
        with_nuclei: return the nuclei even if no transform uses them.

    Returns:
        Pixels, float32 (batch, 3, height, width), and nuclei, float32 (batch, 1, height, width), or None if nothing
        asked for them. Height and width are those of the images unless a transform enlarges.
    """
    images = source.images
    nuclei = source.nuclei if with_nuclei or any(step.takes == "nuclei" for step in view.steps) else None
    cell = source.cell if any(step.takes == "cell" for step in view.steps) else None
    for step in view.steps:
        if step.takes == "cell":
            images, cell = step.apply(images, cell)
        elif step.takes == "mask":
            if images is source.images:
                images = source.filled
            elif source.mask is not None:
                images = step.apply(images, source.mask)
        elif step.takes == "nuclei":
            assert nuclei is not None
            images, nuclei = step.apply(images, nuclei)
        else:
            parameters = _parameters(step, view, images, sha256, seed)
            images = step.apply(images, parameters)
            if nuclei is not None and step.move:
                nuclei = step.move(nuclei.expand(-1, 3, -1, -1), parameters)[:, :1]
    return images, nuclei


def is_one_colour(view: View, images: Tensor) -> bool:
    """Return whether a view shows one colour in most images.

    Args:
        view: view.
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].
    """
    import torch

    flat: list[Tensor] = []
    for part in images.split(16):
        pixels, _ = render_view(view, SourceImages(part), ["0"] * len(part), 0)
        flat.append(pixels.std((2, 3)).amax(1) <= _FLAT)
    return float(torch.cat(flat).float().mean()) >= _EMPTY_SHARE


def _parameters(step: Transform, view: View, images: Tensor, sha256: Sequence[str], seed: int) -> Tensor:
    """Random parameters of a transform, float32 (batch, parameters); empty for a fixed one."""
    import torch

    if step.draw is None:
        return images.new_zeros(0)
    words = [seed, zlib.crc32(step.name.encode())]
    words, number = (words, [view.number]) if step.turns else ([view.index, *words], [])
    rngs = (np.random.default_rng([int(digest[:32] or "0", 16), *words]) for digest in sha256)
    rows = [step.draw(rng, *number) for rng in rngs]
    return torch.as_tensor(np.stack(rows), dtype=torch.float32).to(images.device)
