"""Which views of an image a model is trained, validated and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.errors import ConfigError
from ball_features.extraction.views import is_fixed
from ball_features.models.registry import Model

__all__ = ["Views", "choose_views", "fixed_views", "model_views", "view_rows"]


@dataclass(frozen=True)
class Views:
    """Which views of an image train a model, and which validate and test it."""

    train: tuple[int, ...]
    test: tuple[int, ...]


def choose_views(names: Sequence[str], wanted: str) -> tuple[int, ...]:
    """Numbers of views from "all", or names or numbers with commas between; "auto" is the plain one.

    Raises:
        ConfigError: No such view; the message lists those of the cache.
    """
    if wanted == "all":
        return tuple(range(len(names)))
    if wanted == "auto":
        return (0,)
    chosen = []
    for part in (part.strip() for part in wanted.split(",")):
        if part in names:
            chosen.append(list(names).index(part))
        elif part.isdigit() and int(part) < len(names):
            chosen.append(int(part))
        else:
            raise ConfigError(
                f"Got the view {part!r}, expected all, or some of: {', '.join(names)} (or their numbers)."
            )
    return tuple(dict.fromkeys(chosen))


def model_views(spec: Model, cache: Cache, config: FitConfig) -> Views:
    """The views that train a model and those that test it.

    A shortcut's numbers are of the plain image. A model that tells views apart takes all that are not random, unless
    the configuration names some to test on.

    Raises:
        ConfigError: A view is not in the cache.
    """
    test = choose_views(cache.view, "all" if config.tta else config.test_views)
    if config.train_views == "auto":
        # A fixed view is another picture, not another look at the same: it trains what it tests.
        random = set(range(len(cache.view))) - set(fixed_views(cache))
        train = tuple(sorted(random | set(test)))
    else:
        train = choose_views(cache.view, config.train_views)
    if spec.features != "embedding":
        return Views((0,), (0,))
    if not spec.by_view:
        return Views(train, test)
    own = test if config.tta or config.test_views != "auto" else fixed_views(cache) or test
    return Views(own, own)


def fixed_views(cache: Cache) -> tuple[int, ...]:
    """Numbers of the views that are the same function of every image, the plain one left out."""
    recipe = cache.attributes["recipe"]
    return tuple(number for number in range(1, len(cache.view)) if is_fixed(recipe, number))


def view_rows(
    numbers: np.ndarray, rows: np.ndarray, codes: np.ndarray, views: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """These views of these images as float32 (rows * views, columns), and their classes."""
    X = numbers[rows[:, None], list(views)]  # no row of other views is touched
    return X.reshape(len(rows) * len(views), -1).astype(np.float32), np.repeat(codes[rows], len(views))
