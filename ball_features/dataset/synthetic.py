"""Drawn blood smears, for the demonstration and the tests: no image of a patient is needed to try `ball`.

Four classes of blasts differ in size, nucleus-to-cytoplasm ratio, outline, chromatin, nucleoli and crowding, each with
a spread that makes neighbours overlap. Stain, background and the number of red cells are drawn for each image whatever
its class, so that mean colour tells little. Faults of real collections can be planted: byte-identical copies, turned
and re-encoded copies, fields that overlap, burned-in scale bars that follow the class, series of one stain.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.errors import ConfigError

__all__ = ["CLASSES", "Truth", "draw_smears"]


@dataclass(frozen=True)
class _Look:
    """Means of one class; lengths in pixels of a 224 px field."""

    nucleus_px: float
    ratio: float  # nucleus radius over cell radius
    outline: float  # relative waviness of the nucleus
    chromatin: float  # contrast of its texture
    grain_px: float  # scale of that texture
    nucleoli: float  # mean count
    blasts: float  # mean count


CLASSES: dict[str, _Look] = {
    "Benign": _Look(13.0, 0.88, 0.03, 0.05, 2.0, 0.1, 4.0),
    "Early": _Look(15.5, 0.86, 0.06, 0.10, 1.2, 0.8, 6.0),
    "Pre": _Look(17.5, 0.80, 0.11, 0.16, 2.2, 1.8, 7.0),
    "Pro": _Look(19.5, 0.72, 0.08, 0.24, 3.2, 2.6, 9.0),
}
QUALITY = 90
BARS = ("red-bar", "black-bar", "white-box")


@dataclass(frozen=True)
class Truth:
    """What was planted; paths are relative to the folder.

    Attributes:
        label: Path -> class.
        duplicates: Pairs of byte-identical files.
        near_duplicates: Pairs of one picture, turned, flipped, cropped or re-encoded.
        shared_fields: (path, path, shift in x, shift in y): pixels by which the second field lies right of and below
            the first.
        overlay: Path -> kind of the burned-in scale bar, where there is one.
        series: Path -> series, where series were asked for.
    """

    label: dict[str, str] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    shared_fields: list[tuple[str, str, int, int]] = field(default_factory=list)
    overlay: dict[str, str] = field(default_factory=dict)
    series: dict[str, str] = field(default_factory=dict)


def draw_smears(
    folder: Path | str,
    *,
    per_class: int = 40,
    seed: int = 0,
    size_px: int = 224,
    duplicates: int = 0,
    near_duplicates: int = 0,
    shared_fields: int = 0,
    overlay_share: float = 0.0,
    series: int = 0,
) -> Truth:
    """Draw smears of four classes into class folders, as JPEG files.

    Args:
        folder: Where; made if it is not there.
        per_class: Images a class, planted ones not counted.
        seed: The same seed draws the same bytes.
        size_px: Side of the images, at least 64.
        duplicates: Byte-identical copies planted a class.
        near_duplicates: Turned, flipped, cropped or re-encoded copies planted a class.
        shared_fields: Overlapping fields planted a class.
        overlay_share: Share of images with a scale bar, whose kind follows the class in two cases of three.
        series: Series a class, each with its own stain; 0 draws a stain for each image.

    Returns:
        What was planted; also written to `truth.json` in the folder.

    Raises:
        ConfigError: A number is out of range.
    """
    if per_class < 1 or size_px < 64 or not 0 <= overlay_share <= 1:
        raise ConfigError(
            f"Got per_class={per_class}, size_px={size_px}, overlay_share={overlay_share}; expected at least 1 image, "
            "at least 64 px, and a share between 0 and 1."
        )
    folder = Path(folder)
    truth = Truth()
    for code, (name, look) in enumerate(CLASSES.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, code])
        stains = [_draw_stain(rng) for _ in range(series)]
        number = 0

        def save(data: bytes, name: str = name) -> str:
            nonlocal number
            number += 1
            path = f"{name}/WBC-{name}-{number:03d}.jpg"
            (folder / path).write_bytes(data)
            truth.label[path] = name
            return path

        for index in range(per_class):
            # Series follow one another in number, as slides do under a microscope.
            own = index * series // per_class if series else -1
            stain = stains[own] if series else _draw_stain(rng)
            shift = rng.integers(size_px // 6, size_px // 2, 2) * rng.choice([-1, 1], 2)
            pair = index < shared_fields
            margin = np.abs(shift) if pair else np.zeros(2, dtype=np.int64)
            wide = _draw_field(rng, look, stain, size_px + int(margin[1]), size_px + int(margin[0]), size_px / 224)
            first = np.maximum(-shift, 0) * pair
            bar = _choose_bar(rng, code, own) if rng.random() < overlay_share else ""

            def crop(x: int, y: int, wide: np.ndarray = wide, bar: str = bar) -> np.ndarray:
                return _burn(wide[y : y + size_px, x : x + size_px].copy(), bar)

            pixels = crop(int(first[0]), int(first[1]))
            data = _encode(pixels)
            path = save(data)
            planted = [path]
            if index < duplicates:
                planted.append(save(data))
                truth.duplicates.append((path, planted[-1]))
            if index < near_duplicates:
                planted.append(save(_encode(_turn(rng, pixels), int(rng.integers(60, 86)))))
                truth.near_duplicates.append((path, planted[-1]))
            if pair:
                second = np.maximum(shift, 0)
                planted.append(save(_encode(crop(int(second[0]), int(second[1])))))
                truth.shared_fields.append((path, planted[-1], int(shift[0]), int(shift[1])))
            for item in planted:
                if bar:
                    truth.overlay[item] = bar
                if series:
                    truth.series[item] = f"{name}-{own + 1}"
    (folder / "truth.json").write_text(json.dumps(asdict(truth), indent=1) + "\n", encoding="utf-8")
    return truth


@dataclass(frozen=True)
class _Stain:
    background: np.ndarray  # RGB in [0, 1]
    nucleus: np.ndarray
    cytoplasm: np.ndarray
    red: np.ndarray
    slope: np.ndarray  # of the illumination, along y and x


def _draw_stain(rng: np.random.Generator) -> _Stain:
    def near(colour: Sequence[float], spread: float) -> np.ndarray:
        return np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 1)

    return _Stain(
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


def _draw_field(
    rng: np.random.Generator, look: _Look, stain: _Stain, height: int, width: int, scale: float
) -> np.ndarray:
    """One field of view, uint8 (height, width, 3)."""
    light = np.linspace(-1, 1, height)[:, None] * stain.slope[0] + np.linspace(-1, 1, width) * stain.slope[1]
    image = np.broadcast_to(stain.background, (height, width, 3)) + light[..., None]
    image = image + 0.008 * _noise(rng, (height, width), 6)[..., None]
    area = height * width / (224 * scale) ** 2
    for _ in range(rng.poisson(rng.uniform(6, 34) * area)):
        _red_cell(rng, image, stain, scale)
    # One slide's cells resemble each other: an image is drawn around its own means.
    size = look.nucleus_px * scale * rng.normal(1, 0.07)
    ratio = np.clip(look.ratio + rng.normal(0, 0.03), 0.5, 0.95)
    crowd = max(1, rng.poisson(look.blasts * area))
    centre = rng.uniform(0.25, 0.75, 2) * (height, width)
    for _ in range(crowd):
        spread = rng.uniform(0.15, 0.6)
        place = np.clip(rng.normal(centre, spread * np.array([height, width])), 4, (height - 4, width - 4))
        _blast(rng, image, look, stain, place, size * rng.normal(1, 0.08), ratio, scale)
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


def _red_cell(rng: np.random.Generator, image: np.ndarray, stain: _Stain, scale: float) -> None:
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
    look: _Look,
    stain: _Stain,
    place: np.ndarray,
    nucleus_px: float,
    ratio: float,
    scale: float,
) -> None:
    cell_px = nucleus_px / ratio
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


def _choose_bar(rng: np.random.Generator, code: int, own: int) -> str:
    if own >= 0:
        return BARS[(code + own) % len(BARS)]
    return BARS[code % len(BARS)] if rng.random() < 2 / 3 else BARS[int(rng.integers(len(BARS)))]


def _burn(pixels: np.ndarray, kind: str) -> np.ndarray:
    """Draw a scale bar into the lower right corner."""
    if not kind:
        return pixels
    side = len(pixels)
    unit = side // 28
    top, left = side - 3 * unit, side - 6 * unit
    colour = {"red-bar": (210, 30, 40), "black-bar": (10, 10, 10), "white-box": (250, 250, 250)}[kind]
    if kind == "white-box":
        pixels[top - unit : side - unit, left : side - unit] = colour
        pixels[top + unit // 2 : top + unit, left + unit : side - 2 * unit] = 20
    else:
        pixels[top : top + max(2, unit // 3), left : side - unit] = colour
        height = unit if kind == "red-bar" else unit // 2
        for x in (left, side - unit - 2):
            pixels[top - height : top + height, x : x + 2] = colour
    return pixels


def _turn(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """One of the eight flips and rotations, and a crop of up to 3 % a side."""
    from PIL import Image

    side = len(pixels)
    turned = np.rot90(pixels, int(rng.integers(4)))
    turned = turned[:, ::-1] if rng.random() < 0.5 else turned
    cut = int(rng.integers(0, max(1, side // 32)))
    inner = Image.fromarray(np.ascontiguousarray(turned[cut : side - cut, cut : side - cut]))
    return np.asarray(inner.resize((side, side), Image.Resampling.BICUBIC))


def _encode(pixels: np.ndarray, quality: int = QUALITY) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
