"""Choice of the views on which a model is trained, validated and tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.config.sizes import whole_number
from ball_features.errors import ConfigError
from ball_features.extraction.recipe import ViewPlan, recipe_of
from ball_features.models.base import ViewRole
from ball_features.models.registry import Model

__all__ = ["Views", "choose_views", "fixed_views", "model_views", "view_plan", "view_roles", "view_rows"]


@dataclass(frozen=True)
class Views:
    """Numbers of the views that train a model, and of those that validate and test it."""

    train: tuple[int, ...]
    test: tuple[int, ...]


def choose_views(names: Sequence[str], wanted: str) -> tuple[int, ...]:
    """Parse a choice of views.

    Args:
        names: names of the views of a cache.
        wanted: "all", "auto" (the plain view), or names or numbers separated by commas.

    Returns:
        Numbers of the views.

    Raises:
        ConfigError: There is no such view; the message lists those of the cache.
    """
    if wanted == "all":
        return tuple(range(len(names)))
    if wanted == "auto":
        return (0,)
    chosen = []
    for part in (part.strip() for part in wanted.split(",")):
        if part in names:
            chosen.append(list(names).index(part))
        elif (number := whole_number(part)) is not None and number < len(names):
            chosen.append(number)
        else:
            raise ConfigError(
                f"Got the view {part!r}, expected all, or some of: {', '.join(names)} (or their numbers)."
            )
    return tuple(dict.fromkeys(chosen))


def model_views(spec: Model, cache: Cache, config: FitConfig) -> Views:
    """Choose the views that train a model and those that test it.

    A shortcut sees the plain image. A model that fits each view separately takes all fixed views but crops of single
    cells, one that chooses among recipes takes the plain view and all fixed ones, unless the configuration names some
    to test on.

    Raises:
        ConfigError: A view is not in the cache.
    """
    test = choose_views(cache.view, "all" if config.tta else config.test_views)
    if config.train_views == "auto":
        # A fixed view is another picture, not a variation of the same one, so it trains only if it is tested.
        random = set(range(len(cache.view))) - set(fixed_views(cache))
        train = tuple(sorted(random | set(test)))
    else:
        train = choose_views(cache.view, config.train_views)
    if spec.features != "embedding":
        return Views((0,), (0,))
    if not spec.by_view:
        return Views(train, test)
    fixed = fixed_views(cache)
    if spec.chooses:
        fixed = (0, *fixed)
    else:
        fixed = tuple(view for view in fixed if recipe_of(view_plan(cache).views[view]) != "cells")
    own = test if config.tta or config.test_views != "auto" else fixed or test
    return Views(own, own)


def view_plan(cache: Cache) -> ViewPlan:
    """The views of a cache whose channels are joined."""
    several = len(cache.view) > 1
    return ViewPlan.parse(cache.recipe if several else "plain", len(cache.view) if several else None)


def view_roles(cache: Cache, views: Sequence[int]) -> tuple[ViewRole, ...]:
    """What these views of a cache show, for a model that tells them apart."""
    found = [view_plan(cache).views[number] for number in views]
    return tuple(
        ViewRole(view.name, recipe_of(view), "+".join(step.name for step in view.steps), view.shows_whole_field)
        for view in found
    )


def fixed_views(cache: Cache) -> tuple[int, ...]:
    """Numbers of the views that are the same function of every image, without the plain one."""
    return tuple(view.index for view in view_plan(cache).views[1:] if view.fixed)


def view_rows(
    numbers: np.ndarray, rows: np.ndarray, codes: np.ndarray, views: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Stack views of images as samples.

    Args:
        numbers: embeddings or pixel statistics, (images, views, columns).
        rows: numbers of the images, int (rows,).
        codes: class number of each image, int (images,).
        views: numbers of the views.

    Returns:
        Samples, float32 (rows * views, columns), and their class numbers, int (rows * views,).
    """
    X = numbers[rows[:, None], list(views)]  # reads no row of other views
    return X.reshape(len(rows) * len(views), -1).astype(np.float32), np.repeat(codes[rows], len(views))
