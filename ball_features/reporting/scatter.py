"""The map of embeddings: points that can be coloured in several ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ball_features.reporting.charts import PALETTE, STYLES

__all__ = ["Colouring", "EmbeddingMap", "embedding_map", "told_apart"]

_MAP_PX, _MAP_MARGIN_PX = (620, 420), 10


@dataclass(frozen=True)
class Colouring:
    """A way to colour the map.

    Attributes:
        name: name of the choice.
        legend: (number of the look, name) of each value that is shown.
    """

    name: str
    legend: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class EmbeddingMap:
    """Points that can be coloured in several ways.

    Attributes:
        name: id of the map within the page.
        colourings: ways to colour it; the first is shown.
        points: (x, y, text, number of the look in each colouring) of each point.
        pictures: data address of each point's thumbnail, or none at all.
    """

    name: str
    colourings: tuple[Colouring, ...]
    points: tuple[tuple[int, int, str, tuple[int, ...]], ...]
    pictures: tuple[str, ...] = ()


def embedding_map(
    place: np.ndarray,
    text: Sequence[str],
    colourings: Mapping[str, tuple[Sequence[str], np.ndarray]],
    *,
    name: str = "map",
    pictures: Sequence[str] = (),
) -> EmbeddingMap:
    """Points that can be coloured in several ways, with a text each, to point at or to walk through by arrow keys.

    Args:
        place: float (images, 2).
        text: description of each point.
        colourings: name -> (names of the values, int (images,) value of each point); the first is shown.
        name: id of the map within the page.
        pictures: data address of each point's thumbnail, or none at all.
    """
    low, span = place.min(0), np.maximum(np.ptp(place, axis=0), 1e-9)
    at = np.rint((place - low) / span * _MAP_PX + _MAP_MARGIN_PX).astype(int)
    looks = np.column_stack([value % (len(PALETTE) * STYLES) for _, value in colourings.values()])
    points = tuple(
        (x, y, said, tuple(own)) for (x, y), said, own in zip(at.tolist(), text, looks.tolist(), strict=True)
    )
    choices = tuple(
        Colouring(key, tuple((value, item) for value, item in enumerate(names) if item))
        for key, (names, _) in colourings.items()
    )
    return EmbeddingMap(name, choices, points, tuple(pictures))


def told_apart(values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the values and the number of each image's; the smallest ones share a number where looks run out."""
    names, code, count = np.unique(values, return_inverse=True, return_counts=True)
    most = len(PALETTE) * STYLES
    if len(names) <= most:
        return [str(name) for name in names], code
    kept = np.sort(np.argsort(-count, kind="stable")[: most - 1])
    place = np.full(len(names), most - 1)
    place[kept] = np.arange(most - 1)
    return [*(str(names[number]) for number in kept), f"{len(names) - most + 1} smaller ones"], place[code]
