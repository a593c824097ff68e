"""Drawn blood smears, for the demonstration and the tests: no image of a patient is needed to try `ball`.

Four classes of blasts differ in size, nucleus-to-cytoplasm ratio, outline, chromatin, nucleoli and crowding, each with
a spread that makes neighbours overlap. Stain, background and the number of red cells are drawn for each image whatever
its class, so that mean colour tells little. Faults of real collections can be planted: byte-identical copies, turned
and re-encoded copies, fields that overlap, burned-in scale bars that follow the class, series of one stain.
"""

from __future__ import annotations

import hashlib
import io
import json
import numbers
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

import numpy as np

from ball_features.dataset.smear_field import CLASSES, Look, Stain, draw_field, draw_stain
from ball_features.errors import ConfigError, DataError
from ball_features.files import read_json, replacing, write_text
from ball_features.outputs import require_folder, require_no_link

__all__ = ["CLASSES", "Faults", "Truth", "draw_smears"]

QUALITY = 90
_MOST_PX = 10_000
BARS = ("red-bar", "black-bar", "white-box")


class Faults(TypedDict, total=False):
    """Faults of real collections to plant; each is 0 where it is not named.

    Attributes:
        duplicates: number of byte-identical copies per class.
        near_duplicates: number of turned, flipped, cropped or re-encoded copies per class.
        shared_fields: number of overlapping fields per class.
        overlay_share: share of images with a scale bar, whose kind follows the class in two cases of three.
        series: number of series per class, each with its own stain; 0 draws a stain for each image.
        bar_by_class: 1 burns a scale bar into every image, one kind for each class and none for the last class.
    """

    duplicates: int
    near_duplicates: int
    shared_fields: int
    overlay_share: float
    series: int
    bar_by_class: int


@dataclass(frozen=True)
class Truth:
    """What was planted; paths are relative to the folder.

    Attributes:
        label: path -> class.
        duplicates: pairs of byte-identical files.
        near_duplicates: pairs of one picture, turned, flipped, cropped or re-encoded.
        shared_fields: (path, path, shift in x, shift in y): pixels by which the second field lies right of and below
            the first.
        overlay: path -> kind of the burned-in scale bar, for the images that have one.
        series: path -> series, where series were asked for.
        sha256: path -> SHA-256 of the file, hexadecimal.
    """

    label: dict[str, str] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    near_duplicates: list[tuple[str, str]] = field(default_factory=list)
    shared_fields: list[tuple[str, str, int, int]] = field(default_factory=list)
    overlay: dict[str, str] = field(default_factory=dict)
    series: dict[str, str] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


def draw_smears(
    folder: Path | str, *, per_class: int = 40, seed: int = 0, size_px: int = 224, **faults: Unpack[Faults]
) -> Truth:
    """Draw smears of four classes into class folders, as JPEG files.

    Args:
        folder: folder to write into; it is made.
        per_class: number of images per class, planted ones not counted.
        seed: random seed; the same seed draws the same bytes.
        size_px: side of the images in pixels, 64 to 10,000.
        faults: faults to plant, see `Faults`.

    Returns:
        What was planted; it is also written to `truth.json` in the folder.

    Raises:
        ConfigError: A number is out of range.
        DataError: The folder cannot be written, or holds a file that would be replaced and that no earlier call drew.
    """
    share = faults.get("overlay_share", 0.0)
    whole = all(isinstance(number, numbers.Integral) for number in (per_class, size_px, seed))
    if not whole or per_class < 1 or not 64 <= size_px <= _MOST_PX or seed < 0 or not 0 <= share <= 1:
        raise ConfigError(
            f"Got per_class={per_class}, size_px={size_px}, seed={seed}, overlay_share={share}; expected whole numbers "
            f"of at least 1 image, 64 to {_MOST_PX} px and the seed 0, and a share between 0 and 1."
        )
    require_folder(folder, "folder")
    folder = Path(folder)
    _require_own(folder)
    truth = Truth()
    for code, (name, look) in enumerate(CLASSES.items()):
        _Drawer(folder, truth, faults, _Class(code, name, look), size_px).draw(
            np.random.default_rng([seed, code]), per_class
        )
    write_text(folder / "truth.json", json.dumps(asdict(truth), indent=1) + "\n")
    return truth


def _require_own(folder: Path) -> None:
    """Raise `DataError` for files that would be replaced, but for those that the folder's `truth.json` lists."""
    drawn: dict[str, str] = {}
    truth = folder / "truth.json"
    try:
        if os.path.lexists(truth):
            require_no_link(truth)
            drawn = dict(read_json(truth)["sha256"])
        for name in CLASSES:
            require_no_link(folder / name)
            for path in sorted((folder / name).glob("WBC-*.jpg")):
                is_file = path.is_file() and not path.is_symlink()
                if not is_file or drawn.get(f"{name}/{path.name}") != hashlib.sha256(path.read_bytes()).hexdigest():
                    raise DataError(f"{path} was not drawn here and may be replaced. Give another folder.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} cannot be drawn into ({error}). Give another folder.") from error


class _Class(NamedTuple):
    code: int
    name: str
    look: Look


@dataclass
class _Drawer:
    """The images of one class."""

    folder: Path
    truth: Truth
    faults: Faults
    own: _Class
    size_px: int
    saved: int = 0

    def draw(self, rng: np.random.Generator, count: int) -> None:
        """Draw `count` images, and those that are planted beside them."""
        series = self.faults.get("series", 0)
        stains = [draw_stain(rng) for _ in range(series)]
        for index in range(count):
            # Series follow one another in number, as slides do under a microscope.
            number = index * series // count if series else -1
            stain = stains[number] if series else draw_stain(rng)
            self._draw_one(rng, index, number, stain)

    def _draw_one(self, rng: np.random.Generator, index: int, series: int, stain: Stain) -> None:
        size_px, truth, faults = self.size_px, self.truth, self.faults
        shift = rng.integers(size_px // 6, size_px // 2, 2) * rng.choice([-1, 1], 2)
        pair = index < faults.get("shared_fields", 0)
        margin = np.abs(shift) if pair else np.zeros(2, dtype=np.int64)
        height, width = size_px + int(margin[1]), size_px + int(margin[0])
        wide = draw_field(rng, self.own.look, stain, height, width, size_px / 224)
        first = np.maximum(-shift, 0) * pair
        bar = _choose_bar(rng, self.own.code, series) if rng.random() < faults.get("overlay_share", 0.0) else ""
        if faults.get("bar_by_class", 0):
            bar = (*BARS, "")[self.own.code % (len(BARS) + 1)]

        def crop(x: int, y: int) -> np.ndarray:
            return _burn(wide[y : y + size_px, x : x + size_px].copy(), bar)

        pixels = crop(int(first[0]), int(first[1]))
        data = _encode(pixels)
        path = self._save(data)
        planted = [path]
        if index < faults.get("duplicates", 0):
            planted.append(self._save(data))
            truth.duplicates.append((path, planted[-1]))
        if index < faults.get("near_duplicates", 0):
            planted.append(self._save(_encode(_turn(rng, pixels), int(rng.integers(60, 86)))))
            truth.near_duplicates.append((path, planted[-1]))
        if pair:
            second = np.maximum(shift, 0)
            planted.append(self._save(_encode(crop(int(second[0]), int(second[1])))))
            truth.shared_fields.append((path, planted[-1], int(shift[0]), int(shift[1])))
        for item in planted:
            if bar:
                truth.overlay[item] = bar
            if series >= 0:
                truth.series[item] = f"{self.own.name}-{series + 1}"

    def _save(self, data: bytes) -> str:
        self.saved += 1
        path = f"{self.own.name}/WBC-{self.own.name}-{self.saved:03d}.jpg"
        with replacing(self.folder / path, sweep=False) as partial:
            partial.write_bytes(data)
        self.truth.label[path] = self.own.name
        self.truth.sha256[path] = hashlib.sha256(data).hexdigest()
        return path


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
