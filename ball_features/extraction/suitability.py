"""Which views of a recipe suit a collection of images, found on a sample before anything is embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ball_features.cache import Cache
from ball_features.dataset.manifest import Manifest
from ball_features.errors import ConfigError
from ball_features.extraction.central_nucleus import single_cell_share
from ball_features.extraction.loading import load_sample
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.recipe import RECIPE_SETS, View, ViewPlan
from ball_features.extraction.rendering import is_one_colour

__all__ = ["offer_cells", "suit"]

MIN_SHARE = 0.7  # of the images with a dominant central nucleus, from which a collection is one of single cells
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
    crops = any(view.crops_cell for view in plan.views)
    named = recipe in RECIPE_SETS and len(plan) == 1 + len(plan.parts)  # what the user wrote out is made as it is
    if len(plan) == 1 or not (crops or named):
        return preprocessing
    images = load_sample(manifest, preprocessing.backbone.input_px)
    if images is None:
        return preprocessing  # the extraction says why
    if crops and (share := single_cell_share(images)) < MIN_SHARE:
        told = f"{100 * share:.0f} % of {len(images)} sampled images have a dominant stained nucleus in the middle"
        if recipe != "robust" or len(plan) != 1 + len(plan.parts):
            raise ConfigError(
                f"Got recipe={recipe!r}, which crops the cell in the middle, but {told}; expected at least "
                f"{100 * MIN_SHARE:.0f} %. Take recipe='fields' for whole fields, or recipe='plain'."
            )
        log(f"Views of single cells are left out: {told}.")
        plan = _without(plan, [view for view in plan.views if view.crops_cell])
    empty = [view for view in plan.views[1:] if named and is_one_colour(view, images)]
    if empty:
        names = ", ".join(dict.fromkeys("+".join(step.name for step in view.steps) for view in empty))
        log(f"Views that are one colour in most of these images are left out: {names}.")
        plan = _without(plan, empty)
    return replace(preprocessing, plan=plan)


def offer_cells(cache: Cache, manifest: Manifest) -> str:
    """Name the recipe of single cells where most images show one, and no view of the cache crops it; "" otherwise."""
    made = Preprocessing.from_attributes(cache.attributes)
    if made.channels != ("original",) or any(view.crops_cell for view in made.plan.views):
        return ""
    images = load_sample(manifest, made.backbone.input_px)
    share = 0.0 if images is None else single_cell_share(images)
    if images is None or share < MIN_SHARE:
        return ""
    return (
        f"{100 * share:.0f} % of {len(images)} sampled images show one cell in the middle. The recipe 'cells' crops it "
        "at the scale of its nucleus, which holds up better on other sites."
    )


def _without(plan: ViewPlan, views: Sequence[View]) -> ViewPlan:
    left = {view.text for view in views}
    texts = [part.text for part in plan.parts if part.text not in left]
    return ViewPlan.parse(",".join(texts) or "plain")
