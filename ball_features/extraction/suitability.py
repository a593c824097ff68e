"""Which views of a recipe suit a collection of images, found on a sample before anything is embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ball_features.dataset.manifest import Manifest, spread_rows
from ball_features.errors import ConfigError
from ball_features.extraction.central_nucleus import find_central_nucleus
from ball_features.extraction.loading import load_image
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.recipe import RECIPE_SETS, View, ViewPlan
from ball_features.extraction.rendering import SourceImages, render_view

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["describe_cost", "offer_cells", "single_cell_share", "suit"]

SAMPLE_IMAGES = 64
MIN_SHARE = 0.7  # of the images with a dominant central nucleus, from which a collection is one of single cells
_EMPTY_SHARE = 0.9  # of the images in which a view is one colour, from which it is left out
_FLAT = 2e-3  # deviation of pixels, of 1, up to which a picture is one colour
# Share of a DenseNet's work up to each of its blocks.
_BLOCK_WORK = {1: 0.35, 2: 0.6, 3: 0.9, 4: 1.0}

Log = Callable[[str], None]


def suit(preprocessing: Preprocessing, manifest: Manifest, recipe: str, log: Log) -> Preprocessing:
    """Leave out views that say nothing about these images, and tell the user.

    Args:
        preprocessing: record whose plan has all views of the recipe.
        manifest: images.
        recipe: recipe as the user named it.
        log: function that takes a line for the user.

    Returns:
        The record, with the recipe that is left written out.

    Raises:
        ConfigError: The recipe crops single cells, and most images have no dominant nucleus in the middle.
    """
    plan, recipe = preprocessing.plan, recipe.replace(" ", "")
    if len(plan) == 1:
        return preprocessing
    images = _sample(preprocessing, manifest)
    if images is None:
        return preprocessing  # the extraction says why
    share = single_cell_share(images)
    if any(_crops(view) for view in plan.views) and share < MIN_SHARE:
        told = f"{100 * share:.0f} % of {len(images)} sampled images have a dominant stained nucleus in the middle"
        if recipe != "robust" or len(plan) != 1 + len(plan.parts):
            raise ConfigError(
                f"Got recipe={recipe!r}, which crops the cell in the middle, but {told}; expected at least "
                f"{100 * MIN_SHARE:.0f} %. Take recipe='fields' for whole fields, or recipe='plain'."
            )
        log(f"Views of single cells are left out: {told}.")
        plan = _without(plan, [view for view in plan.views if _crops(view)])
    named = recipe in RECIPE_SETS and len(plan) == 1 + len(plan.parts)  # what the user wrote out is made as it is
    empty = [view for view in plan.views[1:] if named and _is_empty(view, images)]
    if empty:
        names = ", ".join(dict.fromkeys("+".join(step.name for step in view.steps) for view in empty))
        log(f"Views that are one colour in most of these images are left out: {names}.")
        plan = _without(plan, empty)
    return replace(preprocessing, plan=plan)


def offer_cells(preprocessing: Preprocessing, manifest: Manifest) -> str:
    """Name the recipe of single cells where most images show one, and no view crops it; "" otherwise."""
    if preprocessing.channels != ("original",) or any(_crops(view) for view in preprocessing.plan.views):
        return ""
    images = _sample(preprocessing, manifest)
    share = 0.0 if images is None else single_cell_share(images)
    if images is None or share < MIN_SHARE:
        return ""
    return (
        f"{100 * share:.0f} % of {len(images)} sampled images show one cell in the middle. The recipe 'cells' crops it "
        "at the scale of its nucleus, which holds up better on other sites."
    )


def _sample(preprocessing: Preprocessing, manifest: Manifest) -> Tensor | None:
    """A sample of the images, float32 (images, 3, side, side) in [0, 1]; None where none can be decoded."""
    import torch

    rows = spread_rows(len(manifest.path), SAMPLE_IMAGES)
    loaded = (load_image(manifest, row, preprocessing.input_px) for row in rows.tolist())
    pixels = [item[:3] for item in loaded if not isinstance(item, str)]
    return torch.stack(pixels).float().div_(255) if pixels else None


def single_cell_share(images: Tensor) -> float:
    """Return the share of images with a dominant stained nucleus in the middle.

    Args:
        images: RGB pixels, float32 (batch, 3, height, width) in [0, 1].
    """
    return float(find_central_nucleus(images).found.float().mean())


def describe_cost(preprocessing: Preprocessing) -> str:
    """Say how many views there are and about how long they take compared with the plain one."""
    plan, side = preprocessing.plan, preprocessing.input_px
    passes: dict[object, float] = {}
    for view in plan.views:
        work = _BLOCK_WORK[view.readout.block] * (view.side_px(side) / side) ** 2
        passes[view.pixels] = max(passes.get(view.pixels, 0.0), work)
    return (
        f"{len(plan)} views of each image in {len(passes)} forward passes, about {sum(passes.values()):.1f} times the "
        "time of the plain view alone."
    )


def _crops(view: View) -> bool:
    return any(step.takes == "cell" for step in view.steps)


def _is_empty(view: View, images: Tensor) -> bool:
    """Return whether a view is one colour in most images."""
    import torch

    flat: list[Tensor] = []
    for part in images.split(16):
        pixels, _ = render_view(view, SourceImages(part), ["0"] * len(part), 0)
        flat.append(pixels.std((2, 3)).amax(1) <= _FLAT)
    return float(torch.cat(flat).float().mean()) >= _EMPTY_SHARE


def _without(plan: ViewPlan, views: Sequence[View]) -> ViewPlan:
    left = {view.text for view in views}
    texts = [part.text for part in plan.parts if part.text not in left]
    return ViewPlan.parse(",".join(texts) or "plain")
