"""Named recipes of deterministic views.

A view is a pure function of (image content, view index, recipe, seed): its parameters come from a generator
seeded by those four and nothing else, and it is applied row by row. View 0 is the plain image in every recipe.

Recipes compose: "mask-overlay+grey" does one after the other, "grey,haematoxylin" takes turns from view to view, and
"grey@nuclei" says what is read out of the network (`extraction/readouts.py`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.errors import ConfigError
from ball_features.extraction.cells import Pictures, cells
from ball_features.extraction.jitter import (
    apply_blur,
    apply_dihedral,
    apply_jpeg,
    apply_zoom,
    draw_blur,
    draw_jpeg,
    draw_zoom,
    enlarge,
    soft,
    turn_dihedral,
)
from ball_features.extraction.readouts import READOUTS
from ball_features.extraction.segmentation import segmented, segmented_otsu
from ball_features.extraction.stain import apply_stain, draw_stain, fill_mask, grey, haematoxylin, reinhard

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NORMALIZATIONS",
    "RECIPES",
    "RECIPE_SETS",
    "Recipe",
    "check_views",
    "expand_recipe",
    "get_recipe",
    "is_fixed",
    "keeps_places",
    "make_guided_view",
    "make_view",
    "mean_std",
    "needs_mask",
    "normalize",
    "picture_of",
    "plan_views",
    "readout_of",
    "readouts_of",
    "recipe_version",
    "shows_whole_field",
    "view_names",
]

# Mean and standard deviation of R, G, B in [0, 1].
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class Recipe:
    """How views after the first are made.

    Attributes:
        draw: Generator -> parameters of one view, float64 (parameters,); None where nothing is drawn. With `turns`
            it gets the number of the view among its recipe's too, and the same generator for all views of an image.
        apply: (images float32 (batch, 3, height, width) in [0, 1], parameters float32 (batch, parameters)) ->
            images of the same shape. One that draws nothing gets no parameters, one with `masks` bool (height,
            width) instead.
        purpose: What it is for, in a line.
        version: Raised when the numbers change; part of a cache's fingerprint.
        masks: Whether it needs to know where the collection's overlays lie.
        move: Where pixels change their places, `apply` as far as it does that: what is known of places goes with them.
        turns: How many different views there are, taken in turn; 0 where each is drawn anew.
        guided: Whether it takes the nuclei, and gives them back, beside the images: (images, nuclei) -> both.
    """

    draw: Callable[..., np.ndarray] | None
    apply: Callable[[Tensor, Tensor], Any]
    purpose: str
    version: int = 1
    masks: bool = False
    move: Callable[[Tensor, Tensor], Tensor] | None = None
    turns: int = 0
    guided: bool = False


def _draw_report(rng: np.random.Generator) -> np.ndarray:
    angle_deg = rng.uniform(-20, 20)
    flips = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    brightness, contrast = rng.uniform(0.9, 1.1, 2)
    return np.array([angle_deg, *flips, brightness, contrast])


def _turn_report(images: Tensor, parameters: Tensor) -> Tensor:
    import torch
    import torch.nn.functional as F

    angle, flip_x, flip_y = parameters.unbind(1)[:3]
    cos, sin = torch.cos(torch.deg2rad(angle)), torch.sin(torch.deg2rad(angle))
    zero = torch.zeros_like(cos)
    theta = torch.stack(
        [torch.stack([cos * flip_x, -sin * flip_x, zero], 1), torch.stack([sin * flip_y, cos * flip_y, zero], 1)], 1
    )  # (batch, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Corners turned in from outside are black, as torchvision's RandomRotation leaves them.
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _apply_report(images: Tensor, parameters: Tensor) -> Tensor:
    import torch

    brightness, contrast = parameters.unbind(1)[3:]
    images = _turn_report(images, parameters)
    images = (images * brightness[:, None, None, None]).clamp(0, 1)
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
    mean = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)  # (batch, 1, 1, 1)
    return torch.lerp(mean.expand_as(images), images, contrast[:, None, None, None]).clamp(0, 1)


RECIPES: dict[str, Recipe] = {
    "report": Recipe(
        _draw_report,
        _apply_report,
        "the student report's augmentation: rotation within 20 degrees, flips, brightness and contrast within 0.1",
        version=2,
        move=_turn_report,
    ),
    "dihedral": Recipe(
        turn_dihedral,
        apply_dihedral,
        "the eight flips and quarter turns, seven views beside the plain one; a smear has no top",
        version=2,
        move=apply_dihedral,
        turns=7,
    ),
    "zoom": Recipe(
        draw_zoom, apply_zoom, "crop and scale within a fifth: another camera's pixel size", move=apply_zoom
    ),
    "blur": Recipe(draw_blur, apply_blur, "Gaussian blur of 0.5 to 2 px: another focus"),
    "jpeg": Recipe(draw_jpeg, apply_jpeg, "JPEG at a quality of 30 to 90: another compression"),
    "stain-jitter": Recipe(draw_stain, apply_stain, "each stain thicker or thinner in optical density: another batch"),
    "mask-overlay": Recipe(
        None, fill_mask, "what the collection shows as burned-in overlay is filled with background", masks=True
    ),
    "grey": Recipe(None, grey, "grey, standardised in each image: no colour, no exposure", version=2),
    "haematoxylin": Recipe(None, haematoxylin, "the nuclear stain alone, standardised in each image", version=2),
    "reinhard": Recipe(None, reinhard, "mean and spread of each colour axis as in one reference"),
    "segmented": Recipe(None, segmented, "black but for the nuclei, by the published colour thresholds"),
    "segmented-otsu": Recipe(None, segmented_otsu, "black but for the nuclei, by a threshold that each image sets"),
    "enlarge": Recipe(None, enlarge, "twice the size: cells as large as the things of ImageNet", move=enlarge),
    "cells": Recipe(None, cells, "sixteen cells, cut out and enlarged; nothing of what lies between them", guided=True),
    "soft": Recipe(None, soft, "Gaussian blur of 1.5 px, always the same: no texture of sensor or compression"),
}


# Recipes by a name of their own: what they are for, and a view a part.
RECIPE_SETS: dict[str, str] = {
    # The views that recall most on series never seen (benchmarks/shift.md), for the model robust-views.
    "robust": (
        "mask-overlay+haematoxylin+soft@block2-nuclei,segmented+haematoxylin@block3-nuclei,"
        "mask-overlay+haematoxylin+cells@block2,mask-overlay+haematoxylin+soft@block2"
    ),
}


def expand_recipe(name: str) -> str:
    """A recipe with its own name written out."""
    name = name.replace(" ", "")
    return RECIPE_SETS.get(name, name)


def plan_views(
    recipe: str, views: int | None, *, backbone: str, channels: Sequence[str] = ("original",)
) -> tuple[str, int]:
    """The recipe, written out, and the number of views where the user left one or both open.

    Nothing said: `robust`, which costs three plain views and recalls a quarter to a half more on series never
    seen, where the backbone has what it reads; one plain view elsewhere.

    Args:
        recipe: Or "auto".
        views: Or None: as many as the recipe has parts, and the plain one.
        backbone: Key of `extraction.backbones.BACKBONES`, or another.
        channels: Several are two pictures of each view already.

    Raises:
        ConfigError: A recipe and one view, which is the plain image.
    """
    if recipe != "auto" and views == 1:
        raise ConfigError(
            f"Got --recipe {recipe} with --views 1, which is the plain image alone; expected one of the two. Leave "
            "--views out for a view of each part of the recipe."
        )
    if recipe == "auto" and views is None and backbone.startswith("densenet") and len(channels) == 1:
        recipe = "robust"
    if recipe == "auto":
        return "report", views or 1
    recipe = expand_recipe(recipe)
    return recipe, views or 1 + len(recipe.split(","))


def _parts(name: str) -> list[tuple[list[str], str]]:
    """What is done one after the other, and the readout, for each part between commas."""
    parts = []
    for part in name.split(","):
        steps, _, readout = part.partition("@")
        parts.append((steps.split("+"), readout or "average"))
    return parts


def get_recipe(name: str) -> tuple[tuple[Recipe, ...], ...]:
    """The recipes of a composed name: for each part between commas, what is done one after the other.

    Raises:
        ConfigError: A part is in no registry; the message lists the valid ones.
    """
    for steps, readout in _parts(name):
        for step in steps:
            if step not in RECIPES:
                valid = ", ".join(sorted([*RECIPES, *RECIPE_SETS]))
                raise ConfigError(
                    f"Unknown recipe {step!r}. Valid: {valid}; joined with + one after the other, with commas in turn."
                )
        moved = [step for step in steps if RECIPES[step].move or RECIPES[step].guided]
        if moved and any(RECIPES[step].masks for step in steps[steps.index(moved[0]) :]):
            raise ConfigError(
                f"Got mask-overlay after {moved[0]} in {name!r}, which moves what it would fill; expected it before: "
                f"mask-overlay+{moved[0]}."
            )
        if readout not in READOUTS:
            raise ConfigError(f"Unknown readout {readout!r} of {name!r}. Valid behind an @: {', '.join(READOUTS)}.")
    return tuple(tuple(RECIPES[step] for step in steps) for steps, _ in _parts(name))


def readouts_of(name: str) -> tuple[str, ...]:
    """Keys of `READOUTS` that a recipe reads, a part each."""
    return tuple(readout for _, readout in _parts(name))


def readout_of(name: str, index: int) -> str:
    """The readout of a view; of the plain one the average."""
    parts = _parts(name)
    return parts[(index - 1) % len(parts)][1] if index else "average"


def keeps_places(name: str, index: int) -> bool:
    """Whether a view after the first is fixed and leaves each pixel where it is."""
    parts = get_recipe(name)
    return is_fixed(name, index) and not any(step.move or step.guided for step in parts[(index - 1) % len(parts)])


def shows_whole_field(name: str, index: int) -> bool:
    """Whether what is read out of a view has a part in it of what lies between the cells."""
    parts = get_recipe(name)
    guided = index > 0 and any(step.guided for step in parts[(index - 1) % len(parts)])
    return not guided and not READOUTS[readout_of(name, index)].nuclei


def picture_of(name: str, index: int) -> object:
    """What two views of an image must have equal to be one and the same picture."""
    parts = _parts(name)
    steps = parts[(index - 1) % len(parts)][0] if index else []
    return "+".join(steps), 0 if is_fixed(name, index) else index


def recipe_version(name: str) -> int | str:
    """What changes when the numbers of a recipe change."""
    versions = [[item.version for item in one] for one in get_recipe(name)]
    return versions[0][0] if len(versions) == len(versions[0]) == 1 else json.dumps(versions)


def needs_mask(name: str) -> bool:
    """Whether a recipe must know where the collection's overlays lie: to fill them, or not to take them for nuclei."""
    parts = get_recipe(name)
    nuclei = any(READOUTS[readout].nuclei for readout in readouts_of(name))
    return nuclei or any(item.masks or item.guided for one in parts for item in one)


def check_views(name: str, views: int) -> None:
    """Refuse views that would be copies of one another.

    Raises:
        ConfigError: Two parts are the same, or there are fewer different views than are asked for.
    """
    parts = get_recipe(name)
    texts = name.split(",")
    twice = [text for number, text in enumerate(texts) if text in texts[:number]]
    if twice and views > 1:
        raise ConfigError(
            f"Got {twice[0]!r} twice in --recipe {name}, expected each part once; give more --views instead."
        )
    turning = [one for one in parts if {step.turns for step in one if step.draw is not None} == {7}]
    if turning and views > 1 + 7 * len(parts):
        raise ConfigError(
            f"Got --views {views} with --recipe {name}, expected at most {1 + 7 * len(parts)}: there are eight "
            "positions, and the plain image is one. Add a part that varies more, such as +zoom."
        )
    fixed = [one for one in parts if all(item.draw is None for item in one)]
    if fixed and views > 1 + len(parts):
        raise ConfigError(
            f"Got --views {views} with --recipe {name}, whose views do not vary; expected at most {1 + len(parts)} "
            "(the plain image is one). Add a part that varies, such as +dihedral."
        )


def is_fixed(name: str, index: int) -> bool:
    """Whether a view is the same function of every image's pixels: nothing in it is drawn."""
    parts = get_recipe(name)
    return index == 0 or all(item.draw is None for item in parts[(index - 1) % len(parts)])


def view_names(recipe: str, views: int, channels: Sequence[str] = ("original",)) -> tuple[str, ...]:
    """Names of the views of a cache: "plain", then the recipe's, numbered; of each its further channels behind it."""
    parts = recipe.split(",")
    names = ("plain", *(f"{parts[(index - 1) % len(parts)]}-{index}" for index in range(1, views)))
    return tuple(name if channel == "original" else f"{channel}:{name}" for name in names for channel in channels)


def make_view(
    images: Tensor, sha256: Sequence[str], index: int, recipe: str, seed: int, mask: Tensor | None = None
) -> Tensor:
    """Make one view of every image of a batch, on the images' device.

    Args:
        images: float32 (batch, 3, height, width) in [0, 1].
        sha256: Content hash of each image, hexadecimal.
        index: 0 for the plain image.
        recipe: Keys of `RECIPES`, composed.
        seed: The recipe's seed.
        mask: bool (height, width), where the collection has overlays, or None where it has none.

    Returns:
        float32, the same shape, or twice the side where the recipe enlarges.
    """
    return make_guided_view(Pictures(images, mask), sha256, index, recipe, seed)[0]


def make_guided_view(
    pictures: Pictures, sha256: Sequence[str], index: int, recipe: str, seed: int, *, guided: bool = False
) -> tuple[Tensor, Tensor | None]:
    """`make_view`, and where nuclei lie in the view.

    Args:
        pictures: The images, and what views of them share.
        sha256: Content hash of each image, hexadecimal.
        index: Number of the view, 0 for the plain image.
        recipe: Keys of `RECIPES`, composed.
        seed: Of the recipe.
        guided: Whether nuclei are wanted.

    Returns:
        The view, and float32 (batch, 1, height, width) of its nuclei, or None where they were neither wanted nor used.
    """
    import torch

    get_recipe(recipe)
    parts = _parts(recipe)
    steps = [] if index == 0 else parts[(index - 1) % len(parts)][0]
    images = pictures.images
    nuclei = pictures.nuclei if guided or any(RECIPES[step].guided for step in steps) else None
    for name in steps:
        chosen = RECIPES[name]
        if chosen.masks:
            if images is pictures.images:
                images = pictures.filled
            elif pictures.mask is not None:
                images = chosen.apply(images, pictures.mask)
            continue
        if chosen.guided:
            assert nuclei is not None
            images, nuclei = chosen.apply(images, nuclei)
            continue
        parameters = images.new_zeros(0)
        if chosen.draw is not None:
            words = [seed, zlib.crc32(name.encode())]
            words, number = (words, [(index - 1) // len(parts)]) if chosen.turns else ([index, *words], [])
            rngs = (np.random.default_rng([int(digest[:32] or "0", 16), *words]) for digest in sha256)
            rows = [chosen.draw(rng, *number) for rng in rngs]
            parameters = torch.as_tensor(np.stack(rows), dtype=torch.float32).to(images.device)
        images = chosen.apply(images, parameters)
        if nuclei is not None and chosen.move:
            nuclei = chosen.move(nuclei.expand(-1, 3, -1, -1), parameters)[:, :1]
    return images, nuclei


def mean_std(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of R, G and B by a key of `NORMALIZATIONS`, or as "m,m,m/s,s,s".

    Raises:
        ConfigError: Neither.
    """
    if name in NORMALIZATIONS:
        return NORMALIZATIONS[name]
    try:
        mean, std = (tuple(float(value) for value in part.split(",")) for part in name.split("/"))
        if len(mean) == len(std) == 3 and np.isfinite([*mean, *std]).all() and min(std) > 0:
            return mean, std
    except ValueError:
        pass
    raise ConfigError(
        f"Got the normalisation {name!r}, expected {', '.join(NORMALIZATIONS)}, or mean and deviation of R, G and B "
        "such as 0.7,0.6,0.7/0.2,0.2,0.2"
    )


def normalize(images: Tensor, name: str) -> Tensor:
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
        images: float (batch, 3, height, width) in [0, 1].
        name: See `mean_std`.
    """
    import torch

    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in mean_std(name))
    return (images - mean) / std
