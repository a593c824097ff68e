"""Recipes: texts that say which views of an image are embedded, parsed once into a `ViewPlan`.

View 0 is the plain image in every plan. Between commas stand parts, which take turns from view to view; within a part,
transforms joined by + are applied one after the other, and a readout behind @ says which feature map is averaged
(`extraction.readouts`): "mask-overlay+grey,haematoxylin@block2-nuclei".

>>> plan = ViewPlan.parse("mask-overlay+grey, haematoxylin@block2-nuclei")
>>> plan.names()
('plain', 'mask-overlay+grey-1', 'haematoxylin@block2-nuclei-2')
>>> plan.views[2].readout.name, plan.needs_mask
('block2-nuclei', True)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ball_features.errors import ConfigError
from ball_features.extraction.backbones import Backbone
from ball_features.extraction.readouts import AVERAGE, READOUTS, Readout
from ball_features.extraction.transforms import TRANSFORMS, Transform

__all__ = ["RECIPE_SETS", "Part", "View", "ViewPlan", "recipe_of"]

# Four views of whole fields, chosen on the series of one data set (benchmarks/shift.md).
_FIELDS = (
    "mask-overlay+haematoxylin+soft@block2-nuclei,segmented+haematoxylin@block3-nuclei,"
    "mask-overlay+haematoxylin+cells@block2,mask-overlay+haematoxylin+soft@block2"
)
# Three crops of the central cell, each read from two blocks (docs/shift.md).
_CELLS = (
    "crop-tight+even-stain+fade@block2,crop-tight+even-stain+fade@block3,"
    "crop-wide+even-stain+fade@block2,crop-wide+even-stain+fade@block3,"
    "crop-close+even-density+fade@block2,crop-close+even-density+fade@block3"
)
# Recipes with names of their own, which stand for themselves only where a name is a whole recipe.
RECIPE_SETS: dict[str, str] = {"fields": _FIELDS, "cells": _CELLS, "robust": f"{_FIELDS},{_CELLS}"}


@dataclass(frozen=True)
class Part:
    """What stands between two commas of a recipe.

    Attributes:
        text: the part as written.
        steps: transforms in the order in which they are applied.
        readout: feature map that is read, and how it is averaged.
    """

    text: str
    steps: tuple[Transform, ...]
    readout: Readout

    @classmethod
    def parse(cls, text: str) -> Part:
        """Parse a part and check it.

        Raises:
            ConfigError: A transform or the readout is in no registry, or they do not go together in this order.
        """
        names, _, readout = text.partition("@")
        for name in names.split("+"):
            if name not in TRANSFORMS:
                valid = ", ".join(sorted([*TRANSFORMS, *RECIPE_SETS]))
                raise ConfigError(
                    f"Unknown recipe {name!r}. Valid: {valid}; joined with + to apply one after the other, or with "
                    "commas to take turns."
                )
        steps = tuple(TRANSFORMS[name] for name in names.split("+"))
        first = next((number for number, step in enumerate(steps) if step.moves_pixels), len(steps))
        if any(step.takes == "mask" for step in steps[first:]):
            raise ConfigError(
                f"Got mask-overlay after {steps[first].name} in {text!r}, which moves the overlays. Put it first: "
                f"mask-overlay+{steps[first].name}."
            )
        if readout.endswith("nuclei") and any(step.takes == "cell" for step in steps):
            raise ConfigError(
                f"Got the readout {readout} of a crop in {text!r}, which has no nuclei to average over. Take block2, "
                "block3 or the average."
            )
        crop = next((number for number, step in enumerate(steps) if step.takes == "cell"), None)
        moved = next((step.name for step in steps[:crop] if step.moves_pixels), "") if crop else ""
        if moved:
            raise ConfigError(f"Got {moved} before {steps[crop or 0].name} in {text!r}. Put the crop before it.")
        if readout and readout not in READOUTS:
            raise ConfigError(f"Unknown readout {readout!r} in {text!r}. Valid behind an @: {', '.join(READOUTS)}.")
        return cls(text, steps, READOUTS[readout] if readout else AVERAGE)


@dataclass(frozen=True)
class View:
    """One view of an image.

    Attributes:
        index: number of the view in its recipe; 0 is the plain image.
        name: name in a cache, such as "plain" or "grey-1".
        steps: transforms in the order in which they are applied.
        readout: feature map that is read, and how it is averaged.
        number: number among the views of the same part, from 0.
    """

    index: int
    name: str
    steps: tuple[Transform, ...]
    readout: Readout
    number: int = 0

    @property
    def text(self) -> str:
        """Part of the recipe that made it, or "plain"."""
        return self.name.rpartition("-")[0] or self.name

    @property
    def fixed(self) -> bool:
        """Whether the view is the same function of every image's pixels: nothing in it is random."""
        return all(step.draw is None for step in self.steps)

    @property
    def keeps_positions(self) -> bool:
        """Whether the view is fixed and leaves each pixel at its position."""
        return self.fixed and not any(step.moves_pixels for step in self.steps)

    @property
    def shows_whole_field(self) -> bool:
        """Whether what lies between the cells enters the embedding."""
        return not self.readout.nuclei and not any(step.takes in ("nuclei", "cell") for step in self.steps)

    @property
    def crops_cell(self) -> bool:
        """Whether the view shows the cell in the middle alone."""
        return any(step.takes == "cell" for step in self.steps)

    def side_px(self, input_px: int) -> int:
        """Side of the view in pixels, for images of input_px."""
        for step in self.steps:
            input_px = step.side_px or input_px * (2 if step.name == "enlarge" else 1)
        return input_px

    @property
    def pixels(self) -> tuple[object, ...]:
        """Key that is equal for two views whose pixels are equal; they share a forward pass."""
        return (*(step.name for step in self.steps), 0 if self.fixed else self.index)


PLAIN = View(0, "plain", (), AVERAGE)


@dataclass(frozen=True)
class ViewPlan:
    """The views of each image.

    Attributes:
        recipe: text of the recipe with named sets written out, or "plain".
        parts: parts of the recipe; empty for "plain".
        views: views in the order in which they are stored, all or a selection; `View.index` is the place in the recipe.
    """

    recipe: str
    parts: tuple[Part, ...]
    views: tuple[View, ...]

    @classmethod
    def parse(cls, recipe: str, views: int | None = None, backbone: Backbone | None = None) -> ViewPlan:
        """Parse a recipe and check it.

        Args:
            recipe: recipe, key of `RECIPE_SETS`, "plain", or "auto": "plain", or "report" if `views` asks for several.
            views: number of views including the plain one; None for one view of each part and the plain one.
            backbone: network whose feature maps the recipe reads; None to leave them unchecked.

        Raises:
            ConfigError: A name is in no registry, the recipe cannot give so many different views, or the backbone lacks
                a feature map that it reads.
        """
        if recipe == "auto":
            recipe = "report" if views and views > 1 else "plain"
        recipe = recipe.replace(" ", "")
        # Caches of earlier versions may hold the one view of the transform "cells".
        if recipe in RECIPE_SETS and (recipe, views) != ("cells", 2):
            recipe = RECIPE_SETS[recipe]
            if backbone is not None and not backbone.maps:
                recipe = _without_readouts(recipe)
        if recipe == "plain":
            if views not in (None, 1):
                raise ConfigError(f"Got recipe='plain' with views={views}, expected views=1. Give another recipe.")
            return cls(recipe, (), (PLAIN,))
        if views == 1:
            raise ConfigError(
                f"Got recipe={recipe!r} with views=1, which is the plain image alone. Give recipe='plain', or leave "
                "views out to get a view of each part of the recipe."
            )
        parts = tuple(Part.parse(text) for text in recipe.split(","))
        for part in parts:
            if backbone is not None and part.readout != AVERAGE and part.readout.block not in backbone.maps:
                raise ConfigError(
                    f"{backbone.title} has no feature maps for the readout {part.readout.name} in {recipe!r}. Leave "
                    "out what follows the @, or use a DenseNet."
                )
        count = views or 1 + len(parts)
        _require_distinct(recipe, parts, count)
        return cls(recipe, parts, (PLAIN, *(_view(parts, index) for index in range(1, count))))

    def __len__(self) -> int:
        """Number of views."""
        return len(self.views)

    @property
    def version(self) -> int | str:
        """Value that changes when the numbers of the recipe change; 0 for "plain"."""
        if not self.parts:
            return 0
        versions = [[step.version for step in part.steps] for part in self.parts]
        return versions[0][0] if len(versions) == len(versions[0]) == 1 else json.dumps(versions)

    @property
    def needs_mask(self) -> bool:
        """Whether the overlays of the collection must be known: to fill them, or not to take them for nuclei."""
        return any(part.readout.nuclei or any(step.needs_mask for step in part.steps) for part in self.parts)

    @property
    def readouts(self) -> tuple[Readout, ...]:
        """Readouts of the plain view and of all parts, each once, sorted by name."""
        found = {readout.name: readout for readout in (AVERAGE, *(part.readout for part in self.parts))}
        return tuple(found[name] for name in sorted(found))

    @property
    def indices(self) -> list[int]:
        """Index of each view in the recipe."""
        return [view.index for view in self.views]

    def names(self, channels: Sequence[str] = ("original",)) -> tuple[str, ...]:
        """Names of the views; with several channels each view has one name for each channel, one behind the other."""
        return tuple(
            view.name if channel == "original" else f"{channel}:{view.name}"
            for view in self.views
            for channel in channels
        )

    def select(self, indices: Sequence[int]) -> ViewPlan:
        """The plan with only these of its views, by their position."""
        return replace(self, views=tuple(self.views[index] for index in indices))

    def cost(self, input_px: int) -> str:
        """How many views there are and about how long they take compared with the plain one, in a sentence."""
        times, passes = self.times(input_px)
        told = f"about {times:.1f} times the time of the plain view alone"
        return f"{len(self)} views of each image in {passes} forward passes, {told}."

    def times(self, input_px: int) -> tuple[float, int]:
        """How many times the plain view's time all views take, about, and in how many forward passes."""
        work: dict[object, float] = {}
        for view in self.views:
            own = view.readout.work * (view.side_px(input_px) / input_px) ** 2
            work[view.pixels] = max(work.get(view.pixels, 0.0), own)
        return sum(work.values()), len(work)


def recipe_of(view: View) -> str:
    """Name the recipe that a view belongs to: "plain", "fields" or "cells", or "" for another."""
    if not view.index:
        return "plain"
    for name in ("fields", "cells"):
        if view.text in (RECIPE_SETS[name] + "," + _without_readouts(RECIPE_SETS[name])).split(","):
            return name
    return ""


def _without_readouts(recipe: str) -> str:
    """The pictures of a recipe, each once, for a backbone without feature maps."""
    return ",".join(dict.fromkeys(text.partition("@")[0] for text in recipe.split(",")))


def _view(parts: Sequence[Part], index: int) -> View:
    number, turn = divmod(index - 1, len(parts))
    part = parts[turn]
    return View(index, f"{part.text}-{index}", part.steps, part.readout, number)


def _require_distinct(recipe: str, parts: Sequence[Part], views: int) -> None:
    """Raise `ConfigError` if two of so many views would be the same."""
    texts = [part.text for part in parts]
    twice = [text for number, text in enumerate(texts) if text in texts[:number]]
    if twice:
        raise ConfigError(f"Got {twice[0]!r} twice in recipe={recipe!r}, expected each part once. Raise views instead.")
    for part in parts:
        turns = {step.turns for step in part.steps if step.draw is not None}
        if turns == {7} and views > 1 + 7 * len(parts):
            raise ConfigError(
                f"Got views={views} with recipe={recipe!r}, expected at most {1 + 7 * len(parts)}: there are eight "
                "positions, and the plain image is one. Add a transform that varies more, such as +zoom."
            )
        if not turns and views > 1 + len(parts):
            raise ConfigError(
                f"Got views={views} with recipe={recipe!r}, whose views do not vary; expected at most "
                f"{1 + len(parts)}, the plain image included. Add a transform that varies, such as +dihedral."
            )
