"""Segmentation of a folder of images: all pixels but nuclei become black."""

from __future__ import annotations

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ball_features.dataset.manifest import Manifest, Rejected, scan
from ball_features.dataset.sources import Source
from ball_features.errors import ConfigError, DataError, ImageError
from ball_features.extraction.segmentation import METHODS, NUCLEI_NUMBERS, clean_masks, nuclei_numbers, nucleus_mask
from ball_features.files import clear_partial, read_csv, replacing, write_csv
from ball_features.outputs import require_folder, require_own_files, require_untouched
from ball_features.threads import core_count

__all__ = ["Segmentation", "segment_folder"]

_TABLE = "nuclei.csv"


@dataclass(frozen=True)
class Segmentation:
    """Result of `segment_folder`.

    Attributes:
        images: number of images written.
        empty: number of images without a nucleus.
        median_area: median share of an image that nuclei cover.
        rejected: files that could not be used.
    """

    images: int
    empty: int
    median_area: float
    rejected: tuple[Rejected, ...]


def segment_folder(
    images: Path | str,
    out: Path | str,
    *,
    method: str = "hsv",
    clean: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Segmentation:
    """Segment each image, in its own size, into `OUT/CLASS/NAME.png`, and count nuclei in `OUT/nuclei.csv`.

    The table lists the pictures of `ball`: only these are replaced. While pictures are written it has their names.

    Args:
        images: folder, archive or address with one folder for each class.
        out: output folder, outside of `images`.
        method: key of `segmentation.METHODS`.
        clean: fill holes, close gaps and drop small components.
        progress: function that takes (images done, images in all).

    Raises:
        ConfigError: The method is unknown, or `out` lies inside `images`.
        DataError: There is no usable image, two have the same name, or the output cannot be written: a folder in it is
            a link, or a file that would be replaced is not listed in its table.
    """
    from PIL import Image

    from ball_features.dataset.decode import decode

    if method not in METHODS:
        raise ConfigError(f"Unknown method {method!r}. Valid: {', '.join(METHODS)}.")
    manifest, out = scan(images, anywhere=True), Path(out)
    if not isinstance(manifest.root, Source) and out.resolve().is_relative_to(manifest.root.resolve()):
        raise ConfigError(f"Got the output folder {out} inside {manifest.root}, expected a folder outside of it.")
    names = [_name(path) for path in manifest.path]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"Two images of {manifest.root} would both become {twice}. Rename one.")

    def one(row: int) -> np.ndarray | str:
        try:
            image = decode(manifest.root / manifest.path[row])  # (3, height, width)
        except ImageError as error:
            return str(error)
        pixels = image[None].float() / 255
        mask = nucleus_mask(pixels, method)
        if clean:
            mask = clean_masks(mask)
        target = out / names[row]
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, sweep=False) as partial:
            Image.fromarray((image * mask).permute(1, 2, 0).numpy()).save(partial, "PNG")
        return nuclei_numbers(pixels, mask)[0].numpy()

    require_folder(out)
    made = _made(manifest, out)
    inputs = [] if isinstance(manifest.root, Source) else [manifest.root / path for path in manifest.path]
    require_own_files(out, names, _TABLE, "nuclei table", made=made, inputs=inputs)
    header = ["path", *(name.replace(" ", "_") for name in NUCLEI_NUMBERS)]
    for folder in {(out / name).parent for name in names}:
        clear_partial(folder)
    blank = ("",) * len(NUCLEI_NUMBERS)
    write_csv(out / _TABLE, header, ((path, *blank) for path in manifest.path))  # tells an interrupted run what it made
    require_untouched(out / _TABLE, "output folder")
    rejected, numbers, paths = list(manifest.rejected), [], []
    try:
        with ThreadPoolExecutor(min(16, core_count())) as pool:
            for row, found in enumerate(pool.map(one, range(len(names)))):
                if isinstance(found, str):
                    rejected.append(Rejected(manifest.path[row], found))
                else:
                    numbers.append(found)
                    paths.append(manifest.path[row])
                if progress:
                    progress(row + 1, len(names))
        if not numbers:
            raise DataError(f"No image of {manifest.root} can be decoded ({len(rejected)} rejected).")
        rows = [[path, *(f"{value:.6g}" for value in row)] for path, row in zip(paths, numbers, strict=True)]
        # Of an earlier run, and the image cannot be read now: the picture stays, and so does its name.
        left = made - {_name(path) for path in paths}
        rows += [[item.path, *blank] for item in rejected if _name(item.path) in left]
        write_csv(out / _TABLE, header, rows)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror}). Give another output folder.") from error
    table = np.stack(numbers)
    return Segmentation(len(table), int((table[:, 0] == 0).sum()), float(np.median(table[:, 0])), tuple(rejected))


def _name(path: str) -> str:
    """Name of the picture of an image, in the output folder."""
    return str(PurePosixPath(path).with_suffix(".png"))


def _made(manifest: Manifest, out: Path) -> set[str]:
    """Names of pictures that an earlier run made, by its table.

    A row without numbers is of a picture that an interrupted run may have made: the one that is there must be part of
    its image.
    """
    try:
        rows = [(_name(row["path"]), bool(row["area"])) for row in read_csv(out / _TABLE)]
    except (OSError, ValueError, KeyError, csv.Error):  # none, or one that is refused
        return set()
    made = {name for name, finished in rows if finished}
    begun = {name for name, _ in rows} - made
    own = [path for path in manifest.path if _name(path) in begun and (out / _name(path)).is_file()]
    with ThreadPoolExecutor(min(16, core_count())) as pool:
        parts = pool.map(lambda path: _is_part(out / _name(path), manifest.root / path), own)
        return made | {_name(path) for path, part in zip(own, parts, strict=True) if part}


def _is_part(picture: Path, image: Path) -> bool:
    """Whether a picture has the pixels of an image, or black ones; of one that cannot be read none is written."""
    from ball_features.dataset.decode import decode

    try:
        whole = decode(image)  # (3, height, width)
    except ImageError:
        return True
    try:
        drawn = decode(picture)
    except ImageError:
        return False
    return drawn.shape == whole.shape and bool(((drawn == whole).all(0) | (drawn == 0).all(0)).all())
