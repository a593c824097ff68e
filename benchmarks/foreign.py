"""Foreign images for `benchmarks/unusual.py`, drawn from what is at hand.

    python benchmarks/foreign.py OUT [--crops NAME=FILE ...] [--erase NAME=FOLDER ...] [--cells FOLDER]
        [--alter NAME=FOLDER ...]

Always: natural photographs and tissue (pictures that come with scikit-image and scikit-learn), screenshots of text,
blank images and noise. `--crops` takes squares out of a large picture, such as a field of red cells or a photograph
through the eyepiece. `--erase` paints over what is stained most in each image: slides without the cells that a model
looks for. `--cells` lays single cells on grounds of other colours, as fields. `--alter` makes of own images what
a stranger may send, into KIND@NAME: another stain, inverted, grey, blurred, noisy, nearer, farther, within a dark rim,
on a page; and "turned@NAME", images turned by 90 degrees, which are nothing unusual.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

COUNT = 30
TURNED = 130  # enough that 20 to 30 of them are held out


def other_stain(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The optical density of each channel times a number of its own, from a half to twice, and another ground."""
    density = -np.log((picture.astype(float) + 1) / 256)
    factors = rng.permutation([0.5, 1.0, 2.0]) * rng.uniform(0.85, 1.15, 3)
    return _bytes(256 * np.exp(-density * factors) * rng.uniform(0.8, 1, 3) - 1)


def inverted(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The negative."""
    return 255 - picture


def grey(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Without colour."""
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)


def blurred(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Far out of focus: cells are spots."""
    return cv2.GaussianBlur(picture, (0, 0), 0.04 * min(picture.shape[:2]))


def noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The noise of a sensor in the dark."""
    return _bytes(picture + rng.normal(0, rng.integers(40, 70), picture.shape))


def nearer(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The middle third, enlarged."""
    height, width = picture.shape[:2]
    return picture[height // 3 : height - height // 3, width // 3 : width - width // 3]


def farther(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A field three times as wide: the image with mirror images of itself around it."""
    return np.pad(picture, [(side, side) for side in picture.shape[:2]] + [(0, 0)], mode="symmetric")


def rimmed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through an eyepiece: a round picture that darkens towards its rim, on black."""
    rows, columns = (np.linspace(-1, 1, length) for length in picture.shape[:2])
    radius = np.hypot(rows[:, None], columns[None]) / rng.uniform(0.75, 0.95)
    light = np.clip((1 - radius) * 12, 0, 1) * (1 - 0.35 * np.clip(radius, 0, 1) ** 2)
    return _bytes(picture * light[..., None])


def on_a_page(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A screenshot: text, and the image in a part of it."""
    page = text(rng)
    side = int(rng.integers(150, 220))
    y, x = (int(rng.integers(0, length - side)) for length in page.shape[:2])
    page[y : y + side, x : x + side] = cv2.resize(picture, (side, side))
    return page


def turned(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by 90 degrees."""
    return np.rot90(picture, int(rng.choice([1, 3])))


ALTERED = {
    "stain": other_stain,
    "inverted": inverted,
    "grey": grey,
    "blurred": blurred,
    "noisy": noisy,
    "nearer": nearer,
    "farther": farther,
    "rimmed": rimmed,
    "page": on_a_page,
    "turned": turned,
}


# Drawn after the flag was settled, to test it on kinds that nothing was chosen by.
LATER = {
    "late-sepia": lambda picture, rng: _bytes(picture.mean(2)[..., None] * [1.07, 0.74, 0.43]),
    "late-posterised": lambda picture, rng: picture // 64 * 64 + 32,
    "late-solarised": lambda picture, rng: np.where(picture > 150, 255 - picture, picture),
    "late-motion": lambda picture, rng: cv2.blur(picture, (1 + len(picture[0]) // 5, 1)),
    "late-colourmap": lambda picture, rng: cv2.applyColorMap(
        cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLORMAP_JET
    ),
    "late-squeezed": lambda picture, rng: cv2.resize(picture, (400, 130)),
    "late-covered": lambda picture, rng: _covered(picture),
    "late-montage": lambda picture, rng: np.tile(cv2.resize(picture, (150, 150)), (2, 2, 1)),
}


def _covered(picture: np.ndarray) -> np.ndarray:
    """A finger over half of the lens."""
    found = picture.copy()
    found[:, : picture.shape[1] // 2] = [150, 90, 75]
    return cv2.GaussianBlur(found, (0, 0), 1)


def cartoon(rng: np.random.Generator) -> np.ndarray:
    """A drawing of cells in flat colours with outlines, as in a textbook."""
    page = np.full((360, 360, 3), rng.integers(225, 256, 3), np.uint8)
    for _ in range(int(rng.integers(10, 30))):
        centre, size = tuple(rng.integers(0, 360, 2).tolist()), int(rng.integers(14, 30))
        cv2.circle(page, centre, size, rng.integers(150, 230, 3).tolist(), -1, cv2.LINE_AA)
        cv2.circle(page, centre, size, (90, 30, 60), 2, cv2.LINE_AA)
    for _ in range(int(rng.integers(1, 4))):
        centre, size = tuple(rng.integers(60, 300, 2).tolist()), int(rng.integers(30, 60))
        cv2.circle(page, centre, size, (200, 185, 225), -1, cv2.LINE_AA)
        cv2.ellipse(
            page, centre, (size * 2 // 3, size // 2), int(rng.integers(180)), 0, 360, (95, 45, 130), -1, cv2.LINE_AA
        )
    return page


def chart(rng: np.random.Generator) -> np.ndarray:
    """A bar chart."""
    page = np.full((300, 400, 3), 255, np.uint8)
    colour = rng.integers(0, 200, 3).tolist()
    for place in range(30, 380, int(rng.integers(25, 60))):
        cv2.rectangle(page, (place, int(rng.integers(30, 250))), (place + 18, 270), colour, -1)
    cv2.line(page, (20, 270), (390, 270), (0, 0, 0), 2)
    cv2.line(page, (20, 20), (20, 270), (0, 0, 0), 2)
    return page


def text(rng: np.random.Generator) -> np.ndarray:
    """A screenshot of text, dark on light or light on dark."""
    page = np.full((400, 400, 3), 255, np.uint8) - rng.integers(0, 20, 3).astype(np.uint8)
    height = int(rng.integers(14, 34))
    for line in range(height, 400, height):
        letters = "".join(
            chr(int(code)) for code in rng.choice([32, *range(65, 91), *range(97, 123)], rng.integers(10, 60))
        )
        cv2.putText(page, letters, (8, line), cv2.FONT_HERSHEY_SIMPLEX, height / 40, rng.integers(0, 90, 3).tolist(), 1)
    return 255 - page if rng.random() < 0.3 else page


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).astype(np.uint8)


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


def write(folder: Path, pictures: Iterator[np.ndarray], names: list[str] | None = None) -> None:
    """Write pictures as PNG, by number or name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        name = names[number] if names else f"{number:03d}"
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / f"{name}.png")
    print(folder, len(list(folder.iterdir())))


def alter(out: Path, name: str, folder: Path) -> None:
    """Write every alteration of some images of a folder; "/" in a path becomes "=" in the name of the file."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    rng = np.random.default_rng(11)
    for kind, call in (ALTERED | LATER).items():
        count = TURNED if kind == "turned" else COUNT
        chosen = [files[row] for row in rng.permutation(len(files))[:count]]
        names = [path.relative_to(folder).as_posix().replace("/", "=") for path in chosen]
        write(out / f"{kind}@{name}", (call(read(path), rng) for path in chosen), names)


def main() -> None:
    """Draw the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--crops", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--erase", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--alter", nargs="*", default=[], metavar="NAME=FOLDER")
    given = parser.parse_args()
    rng = np.random.default_rng(7)
    natural = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), np.stack([data.camera()] * 3, -1)]
    write(given.out / "photos", (part for picture in natural for part in crops(picture, COUNT // 5, rng)))
    tissue = [data.immunohistochemistry(), data.retina()]
    write(given.out / "tissue", (part for picture in tissue for part in crops(picture, COUNT // 2, rng)))
    write(given.out / "blank", (blank(rng) for _ in range(COUNT)))
    scenes = list(load_sample_images().images)
    write(given.out / "scenes", (part for picture in scenes for part in crops(picture, COUNT // 2, rng)))
    write(given.out / "text", (text(rng) for _ in range(COUNT)))
    write(given.out / "late-cartoon", (cartoon(rng) for _ in range(COUNT)))
    write(given.out / "late-chart", (chart(rng) for _ in range(COUNT)))
    flat = np.ones((224, 224, 3), np.uint8)
    write(given.out / "black-white", (flat * np.uint8(level) for level in (0, 1, 3, 252, 254, 255)))
    for item in given.alter:
        name, _, folder = item.partition("=")
        alter(given.out, name, Path(folder))
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
