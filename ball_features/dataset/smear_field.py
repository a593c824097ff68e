"""Drawing of one field of a blood smear: background, red cells and blasts of one class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["CLASSES", "Look", "Stain", "draw_field", "draw_stain"]


@dataclass(frozen=True)
class Look:
    """Means of one class; lengths in pixels of a 224 px field."""

    nucleus_px: float
    ratio: float  # nucleus radius over cell radius
    outline: float  # relative waviness of the nucleus
    chromatin: float  # contrast of its texture
    grain_px: float  # scale of that texture
    nucleoli: float  # mean count
    blasts: float  # mean count


CLASSES: dict[str, Look] = {
    "Benign": Look(13.0, 0.88, 0.03, 0.05, 2.0, 0.1, 4.0),
    "Early": Look(15.5, 0.86, 0.06, 0.10, 1.2, 0.8, 6.0),
    "Pre": Look(17.5, 0.80, 0.11, 0.16, 2.2, 1.8, 7.0),
    "Pro": Look(19.5, 0.72, 0.08, 0.24, 3.2, 2.6, 9.0),
}


@dataclass(frozen=True)
class Stain:
    """Colours of one slide."""

    background: np.ndarray  # RGB in [0, 1]
    nucleus: np.ndarray
    cytoplasm: np.ndarray
    red: np.ndarray
    slope: np.ndarray  # of the illumination, along y and x


def draw_stain(rng: np.random.Generator) -> Stain:
    """Draw the colours of a slide."""

    def near(colour: Sequence[float], spread: float) -> np.ndarray:
        return np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 1)

    return Stain(
        background=near((0.91, 0.87, 0.91), 0.02),
        nucleus=near((0.38, 0.22, 0.55), 0.05),
        cytoplasm=near((0.66, 0.62, 0.84), 0.04),
        red=near((0.85, 0.66, 0.70), 0.04),
        slope=rng.normal(0, 0.03, 2),
    )


def _noise(rng: np.random.Generator, shape: tuple[int, ...], scale_px: float) -> np.ndarray:
    """Smooth noise of unit variance."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(shape), scale_px, mode="wrap")
    return noise / noise.std()


def draw_field(rng: np.random.Generator, look: Look, stain: Stain, height: int, width: int, scale: float) -> np.ndarray:
    """One field of view, uint8 (height, width, 3)."""
    light = np.linspace(-1, 1, height)[:, None] * stain.slope[0] + np.linspace(-1, 1, width) * stain.slope[1]
    image = np.broadcast_to(stain.background, (height, width, 3)) + light[..., None]
    image = image + 0.008 * _noise(rng, (height, width), 6)[..., None]
    area = height * width / (224 * scale) ** 2
    for _ in range(rng.poisson(rng.uniform(6, 34) * area)):
        _red_cell(rng, image, stain, scale)
    # One slide's cells resemble each other: an image is drawn around its own means.
    size = look.nucleus_px * scale * rng.normal(1, 0.07)
    ratio = float(np.clip(look.ratio + rng.normal(0, 0.03), 0.5, 0.95))
    crowd = max(1, rng.poisson(look.blasts * area))
    centre = rng.uniform(0.25, 0.75, 2) * (height, width)
    for _ in range(crowd):
        spread = rng.uniform(0.15, 0.6)
        place = np.clip(rng.normal(centre, spread * np.array([height, width])), 4, (height - 4, width - 4))
        own = replace(look, nucleus_px=size * rng.normal(1, 0.08), ratio=ratio)
        _blast(rng, image, own, stain, place, scale)
    image = image + rng.normal(0, 0.012, image.shape)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _patch(image: np.ndarray, y: float, x: float, reach: float) -> tuple[Any, np.ndarray, np.ndarray] | None:
    """The part of the image within reach of a point: its slices, distance and angle of each pixel."""
    height, width = image.shape[:2]
    top, left = max(0, int(y - reach)), max(0, int(x - reach))
    bottom, right = min(height, int(y + reach) + 2), min(width, int(x + reach) + 2)
    if top >= bottom or left >= right:
        return None
    rows, columns = np.mgrid[top:bottom, left:right]
    window = (slice(top, bottom), slice(left, right))
    return window, np.hypot(rows - y, columns - x), np.arctan2(rows - y, columns - x)


def _cover(distance: np.ndarray, radius: np.ndarray | float, soft_px: float = 1.2) -> np.ndarray:
    """1 inside, 0 outside, with a soft edge."""
    return np.clip((radius - distance) / soft_px + 0.5, 0, 1)


def _blend(image: np.ndarray, window: Any, colour: np.ndarray, cover: np.ndarray) -> None:
    image[window] += (colour - image[window]) * cover[..., None]


def _waves(rng: np.random.Generator, angle: np.ndarray, amount: float) -> np.ndarray:
    """A wavy outline: relative radius at each angle."""
    waves = np.ones_like(angle)
    for order in range(2, 6):
        waves += rng.normal(0, amount / math.sqrt(order)) * np.cos(order * angle + rng.uniform(0, 2 * math.pi))
    return waves


def _red_cell(rng: np.random.Generator, image: np.ndarray, stain: Stain, scale: float) -> None:
    radius = rng.normal(13, 1.2) * scale
    y, x = rng.uniform(0, image.shape[:2])
    patch = _patch(image, y, x, radius * 1.4)
    if patch is None:
        return
    window, distance, angle = patch
    disc = _cover(distance, radius * _waves(rng, angle, 0.03), 1.5)
    pallor = np.exp(-((distance / (0.45 * radius)) ** 2)) * rng.uniform(0.3, 0.6)
    _blend(image, window, stain.red, 0.85 * disc * (1 - pallor))


def _blast(
    rng: np.random.Generator,
    image: np.ndarray,
    look: Look,
    stain: Stain,
    place: np.ndarray,
    scale: float,
) -> None:
    nucleus_px = look.nucleus_px
    cell_px = nucleus_px / look.ratio
    patch = _patch(image, place[0], place[1], cell_px * 1.4)
    if patch is None:
        return
    window, distance, angle = patch
    _blend(image, window, stain.cytoplasm, 0.9 * _cover(distance, cell_px * _waves(rng, angle, 0.03)))
    # The nucleus lies off the centre of its cell.
    off = rng.uniform(0, 0.8) * (cell_px - nucleus_px)
    turn = rng.uniform(0, 2 * math.pi)
    inner = _patch(image, place[0] + off * math.sin(turn), place[1] + off * math.cos(turn), cell_px * 1.2)
    if inner is None:
        return
    window, distance, angle = inner
    cover = _cover(distance, nucleus_px * _waves(rng, angle, look.outline))
    texture = look.chromatin * _noise(rng, distance.shape, look.grain_px * scale)
    colour = stain.nucleus + rng.normal(0, 0.012, 3) + 0.6 * texture[..., None]
    _blend(image, window, colour, 0.95 * cover)
    for _ in range(rng.poisson(look.nucleoli)):
        reach = nucleus_px * math.sqrt(rng.uniform(0, 0.4))
        turn = rng.uniform(0, 2 * math.pi)
        shift = np.hypot(
            distance * np.sin(angle) - reach * math.sin(turn), distance * np.cos(angle) - reach * math.cos(turn)
        )
        spot = _cover(shift, rng.normal(0.17, 0.03) * nucleus_px) * cover
        _blend(image, window, stain.nucleus * 0.5 + 0.5 * stain.cytoplasm, 0.7 * spot)
