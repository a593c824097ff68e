"""The registry of transforms that a recipe of views is composed of.

To add one, write its function in a module beside this one and add a record to `TRANSFORMS`; the help of the recipe
follows from it. Help texts read this registry, so these modules import torch and NumPy inside of functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ball_features.extraction.cell_crops import SIDE_PX, apply_even_density, apply_even_stain, apply_fade, cropper
from ball_features.extraction.cells import apply_cells
from ball_features.extraction.colour import apply_grey, apply_haematoxylin, apply_reinhard, apply_stain, draw_stain
from ball_features.extraction.degradation import apply_blur, apply_jpeg, apply_soft, draw_blur, draw_jpeg
from ball_features.extraction.geometry import apply_dihedral, apply_enlarge, apply_zoom, draw_dihedral, draw_zoom
from ball_features.extraction.overlay_fill import fill_overlays
from ball_features.extraction.report_augmentation import apply_report, draw_report, move_report
from ball_features.extraction.segmentation import apply_segmented, apply_segmented_otsu

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["TRANSFORMS", "Transform"]


@dataclass(frozen=True)
class Transform:
    """One step of a view.

    Attributes:
        name: key in `TRANSFORMS`; it also seeds the random parameters.
        apply: function (images float32 (batch, 3, height, width) in [0, 1], argument) -> images. `takes` names the
            argument. A transform that takes nuclei or the central nucleus returns images and what it took.
        purpose: what the transform is for, in a line.
        version: number that is raised when the results change; it is part of a cache's fingerprint.
        takes: second argument of `apply`: "parameters" float32 (batch, parameters), "mask" bool (height, width) of the
            collection's overlays, "nuclei" float32 (batch, 1, height, width), or "cell", a `CentralNucleus`.
        draw: function (generator) -> parameters of one image, float64 (parameters,); None for a fixed transform. With
            `turns` it also gets the view's number within its part, and the same generator for all views of an image.
        move: the part of `apply` that moves pixels, or None; it moves the nuclei along with the image.
        turns: number of distinct results that consecutive views take in turn; 0 if each view is drawn anew.
        side_px: side of its output in pixels; 0 for that of its input.
    """

    name: str
    apply: Callable[[Tensor, Any], Any]
    purpose: str
    version: int = 1
    takes: Literal["parameters", "mask", "nuclei", "cell"] = "parameters"
    draw: Callable[..., np.ndarray] | None = None
    move: Callable[[Tensor, Tensor], Tensor] | None = None
    turns: int = 0
    side_px: int = 0

    @property
    def moves_pixels(self) -> bool:
        """Whether pixels change their positions."""
        return self.move is not None or self.takes in ("nuclei", "cell")

    @property
    def needs_mask(self) -> bool:
        """Whether the overlays of the collection must be known: to fill them, or not to take them for nuclei."""
        return self.takes in ("mask", "nuclei")


TRANSFORMS: dict[str, Transform] = {
    "report": Transform(
        "report",
        apply_report,
        "the student report's augmentation: rotation within 20 degrees, flips, brightness and contrast within 10 %",
        version=2,
        draw=draw_report,
        move=move_report,
    ),
    "dihedral": Transform(
        "dihedral",
        apply_dihedral,
        "flips and quarter turns: up to seven views beside the plain one",
        version=2,
        draw=draw_dihedral,
        move=apply_dihedral,
        turns=7,
    ),
    "zoom": Transform(
        "zoom",
        apply_zoom,
        "crop of 80 to 100 % of the side, resized: another camera's pixel size",
        draw=draw_zoom,
        move=apply_zoom,
    ),
    "blur": Transform("blur", apply_blur, "Gaussian blur of 0.5 to 2 px: another focus", draw=draw_blur),
    "jpeg": Transform("jpeg", apply_jpeg, "JPEG of quality 30 to 90: another compression", draw=draw_jpeg),
    "stain-jitter": Transform(
        "stain-jitter", apply_stain, "random amounts of each stain: another staining batch", draw=draw_stain
    ),
    "mask-overlay": Transform(
        "mask-overlay", fill_overlays, "burned-in overlays, such as scale bars, filled with background", takes="mask"
    ),
    "grey": Transform("grey", apply_grey, "grey, standardised in each image: no colour, no exposure", version=2),
    "haematoxylin": Transform(
        "haematoxylin", apply_haematoxylin, "the nuclear stain alone, standardised in each image", version=2
    ),
    "reinhard": Transform("reinhard", apply_reinhard, "stain normalisation to one reference image"),
    "segmented": Transform(
        "segmented", apply_segmented, "all but the nuclei black, by the published colour thresholds"
    ),
    "segmented-otsu": Transform(
        "segmented-otsu", apply_segmented_otsu, "all but the nuclei black, by a threshold computed for each image"
    ),
    "enlarge": Transform(
        "enlarge", apply_enlarge, "twice the size: cells as large as the objects in ImageNet", move=apply_enlarge
    ),
    "cells": Transform(
        "cells", apply_cells, "sixteen cells, cut out and enlarged, without what lies between them", takes="nuclei"
    ),
    "crop-tight": Transform(
        "crop-tight", cropper(1.25), "the central cell at 1.25 diameters of its nucleus", takes="cell", side_px=SIDE_PX
    ),
    "crop-close": Transform(
        "crop-close", cropper(1.5), "the central cell at 1.5 diameters of its nucleus", takes="cell", side_px=SIDE_PX
    ),
    "crop-wide": Transform(
        "crop-wide",
        cropper(2.0),
        "the central cell at twice the diameter of its nucleus",
        takes="cell",
        side_px=SIDE_PX,
    ),
    "even-stain": Transform(
        "even-stain", apply_even_stain, "nuclei of one colour on a white ground: another stain or light", takes="cell"
    ),
    "even-density": Transform(
        "even-density",
        apply_even_density,
        "nuclei of one darkness, with their own hue, on a white ground",
        takes="cell",
    ),
    "fade": Transform("fade", apply_fade, "what is far from the central nucleus faded to white", takes="cell"),
    "soft": Transform("soft", apply_soft, "Gaussian blur of 1.5 px: no texture of sensor or compression"),
}
