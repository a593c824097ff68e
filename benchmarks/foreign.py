"""Foreign images for `benchmarks/unusual.py`, drawn from what is at hand.

    python benchmarks/foreign.py OUT [--crops NAME=FILE ...] [--erase NAME=FOLDER ...] [--cells FOLDER]

Always: natural photographs and tissue (pictures that come with scikit-image), blank images and noise. `--crops` takes
squares out of a large picture, such as a field of red cells or a photograph through the eyepiece. `--erase` paints over
what is stained most in each image: slides without the cells that a model looks for. `--cells` lays single cells on
grounds of other colours, as fields.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage import data

COUNT = 30


def crops(picture: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Squares of a picture, a fifth to nine tenths of its shorter side, turned and mirrored."""
    short = min(picture.shape[:2])
    for _ in range(count):
        side = int(rng.integers(short // 5, 9 * short // 10))
        y, x = (int(rng.integers(0, length - side)) for length in picture.shape[:2])
        part = np.rot90(picture[y : y + side, x : x + side], int(rng.integers(4)))
        yield part[:, ::-1] if rng.random() < 0.5 else part


def erased(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A picture without what is stained most; None where little else would be left."""
    density = -np.log(np.clip(cv2.GaussianBlur(picture, (0, 0), 1.5)[:, :, 0].astype(float), 1, 255) / 255)
    grey = np.clip(100 * density, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
    side = max(9, len(picture) // 14) | 1
    mask = cv2.dilate((grey > threshold).astype(np.uint8), np.ones((side, side), np.uint8))
    if (mask == 0).mean() < 0.35:
        return None
    filled = cv2.inpaint(picture, mask, 5, cv2.INPAINT_TELEA)
    soft = cv2.GaussianBlur(mask.astype(float), (0, 0), 3)[:, :, None]
    ground = np.median(picture[mask == 0], 0) + rng.normal(0, 2, picture.shape)
    return np.clip(filled * (1 - soft) + (filled + ground) / 2 * soft, 0, 255).astype(np.uint8)


def mosaic(cells: list[Path], rng: np.random.Generator) -> np.ndarray:
    """A field of single cells on a ground of one colour."""
    side = int(rng.integers(250, 500))
    field = rng.integers(190, 240, 3) + rng.normal(0, 3, (side, side, 3))
    for _ in range(int((side / 50) ** 2 * 0.6)):
        cell = read(cells[rng.integers(len(cells))]).astype(float)
        height, width = min(len(cell), side), min(cell.shape[1], side)
        y, x = int(rng.integers(0, side - height + 1)), int(rng.integers(0, side - width + 1))
        cell = cell[:height, :width]
        mask = cv2.GaussianBlur((cell.sum(2) > 60).astype(float), (0, 0), 1)[..., None]
        own = field[y : y + height, x : x + width]
        field[y : y + height, x : x + width] = own * (1 - mask) + cell * mask
    return np.clip(field, 0, 255).astype(np.uint8)


def blank(rng: np.random.Generator) -> np.ndarray:
    """An image of one colour with noise."""
    return np.clip(rng.integers(0, 256, 3) + rng.normal(0, rng.integers(1, 60), (224, 224, 3)), 0, 255).astype(np.uint8)


def read(file: Path) -> np.ndarray:
    """Pixels, uint8 (height, width, 3)."""
    return np.array(Image.open(file).convert("RGB"))


def write(folder: Path, pictures: Iterator[np.ndarray]) -> None:
    """Write pictures as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / f"{number:03d}.png")
    print(folder, len(list(folder.iterdir())))


def main() -> None:
    """Draw the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--crops", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--erase", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--cells", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(7)
    natural = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), np.stack([data.camera()] * 3, -1)]
    write(given.out / "photos", (part for picture in natural for part in crops(picture, COUNT // 5, rng)))
    tissue = [data.immunohistochemistry(), data.retina()]
    write(given.out / "tissue", (part for picture in tissue for part in crops(picture, COUNT // 2, rng)))
    write(given.out / "blank", (blank(rng) for _ in range(COUNT)))
    for item in given.crops:
        name, _, file = item.partition("=")
        write(given.out / name, crops(read(Path(file)), COUNT, rng))
    for item in given.erase:
        name, _, folder = item.partition("=")
        files = [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        found = (erased(read(files[row]), rng) for row in rng.permutation(len(files)))
        kept = (picture for picture in found if picture is not None)
        write(given.out / f"erased-{name}", (picture for picture, _ in zip(kept, range(COUNT), strict=False)))
    if given.cells is not None:
        cells = sorted(given.cells.rglob("*.png"))
        write(given.out / "mosaic", (mosaic(cells, rng) for _ in range(COUNT)))


if __name__ == "__main__":
    main()
