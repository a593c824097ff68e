"""Segmentation of a folder of images: all pixels but nuclei become black."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from ball_features.dataset.decode import NO_MEMORY, decode
from ball_features.dataset.image_kinds import open_image
from ball_features.dataset.manifest import Manifest, Rejected, scan
from ball_features.dataset.sources import Source
from ball_features.errors import ConfigError, DataError, ImageError
from ball_features.extraction.segmentation import METHODS, NUCLEI_NUMBERS, clean_masks, nuclei_numbers, nucleus_mask
from ball_features.files import clear_partial, is_expected, read_csv, replacing, write_csv
from ball_features.outputs import require_folder, require_own_files, require_untouched
from ball_features.threads import core_count, is_out_of_memory

__all__ = ["Segmentation", "segment_folder"]

_TABLE = "nuclei.csv"
_HEADER = ("path", *(name.replace(" ", "_") for name in NUCLEI_NUMBERS))
_TOGETHER = 64  # pictures that are made between two writes of the table, or more:
_WRITES = 50  # at most so many writes
_MADE_BY = ("Software", "ball segment")  # a text of each picture


@dataclass(frozen=True)
class Segmentation:
    """Result of `segment_folder`.

    Attributes:
        images: number of images written.
        empty: number of images without a nucleus.
        median_area: median share of an image that nuclei cover.
        rejected: files that could not be used.
        left: names of pictures of an earlier run, whose images are not in the folder any more; they stay.
    """

    images: int
    empty: int
    median_area: float
    rejected: tuple[Rejected, ...]
    left: tuple[str, ...] = ()


def segment_folder(
    images: Path | str,
    out: Path | str,
    *,
    method: str = "hsv",
    clean: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Segmentation:
    """Segment each image, in its own size, into `OUT/CLASS/NAME.png`, and count nuclei in `OUT/nuclei.csv`.

    The table lists the pictures of `ball`: only these are replaced. While some are written it has their names; the rows
    of others stay.

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
    import torch  # noqa: F401  (before the work, which goes on where memory is short for an image)
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if method not in METHODS:
        raise ConfigError(f"Unknown method {method!r}. Valid: {', '.join(METHODS)}.")
    manifest, out = scan(images, anywhere=True), Path(out)
    if not isinstance(manifest.root, Source) and out.resolve().is_relative_to(manifest.root.resolve()):
        raise ConfigError(f"Got the output folder {out} inside {manifest.root}, expected a folder outside of it.")
    names = [_name(path) for path in manifest.path]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"Two images of {manifest.root} would both become {twice}. Rename one.")

    about = PngInfo()
    about.add_text(*_MADE_BY)

    def one(row: int) -> np.ndarray | str:
        try:
            image = decode(manifest.root / manifest.path[row])  # (3, height, width)
            pixels = image[None].float() / 255
            mask = nucleus_mask(pixels, method)
            if clean:
                mask = clean_masks(mask)
            found, content = nuclei_numbers(pixels, mask)[0].numpy(), io.BytesIO()
            Image.fromarray((image * mask).permute(1, 2, 0).numpy()).save(content, "PNG", pnginfo=about)
        except ImageError as error:
            return str(error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return NO_MEMORY
        target = out / names[row]
        target.parent.mkdir(parents=True, exist_ok=True)
        table.begun.add(names[row])
        with replacing(target, sweep=False) as partial:
            partial.write_bytes(content.getbuffer())
        return found

    def note(row: int, found: np.ndarray | str) -> None:
        if isinstance(found, str):
            rejected.append(Rejected(manifest.path[row], found))
        else:
            table.made[names[row]] = [manifest.path[row], *(f"{value:.6g}" for value in found)]
            numbers.append(found)
        if progress:
            progress(len(numbers) + len(rejected) - len(manifest.rejected), len(names))

    require_folder(out)
    table = _Table.begin(out, manifest)
    inputs = [] if isinstance(manifest.root, Source) else [manifest.root / path for path in manifest.path]
    require_own_files(out, names, _TABLE, "nuclei table", made=table.own(manifest), inputs=inputs)
    for folder in {(out / name).parent for name in names}:
        clear_partial(folder)
    rejected, numbers = list(manifest.rejected), []
    together = max(_TOGETHER, math.ceil(len(names) / _WRITES))
    try:
        for first in range(0, len(names), together):
            rows = range(first, min(first + together, len(names)))
            table.write({names[row] for row in rows})
            with ThreadPoolExecutor(min(16, core_count())) as pool:
                short = []
                for row, found in zip(rows, pool.map(one, rows), strict=True):
                    if isinstance(found, str) and found == NO_MEMORY:
                        short.append(row)
                    else:
                        note(row, found)
            for row in short:  # alone, in the memory of all threads
                note(row, one(row))
        if not numbers:
            first = rejected[0]
            why = f"{len(rejected)} rejected; the first, {first.path}, {first.reason}"
            raise DataError(f"No image of {manifest.root} can be decoded ({why}).")
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror}). Give another output folder.") from error
    finally:
        if is_expected(out / _TABLE):  # no other file has come to its name
            table.write()
    area = np.stack(numbers)[:, 0]
    left = table.others({_name(item.path) for item in manifest.rejected})
    return Segmentation(len(area), int((area == 0).sum()), float(np.median(area)), tuple(rejected), tuple(left))


def _name(path: str) -> str:
    """Name of the picture of an image, in the output folder."""
    return str(PurePosixPath(path).with_suffix(".png"))


@dataclass(frozen=True)
class _Table:
    """The table of pictures, which is true of them at any moment.

    Attributes:
        out: output folder.
        path: name of a picture -> its image.
        earlier: name of a picture -> its row in the table of an earlier run.
        begun: names of pictures that this run may have replaced.
        made: name of a picture that this run has finished -> its row.
    """

    out: Path
    path: dict[str, str]
    earlier: dict[str, list[str]]
    begun: set[str] = field(default_factory=set)
    made: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def begin(cls, out: Path, manifest: Manifest) -> _Table:
        """The table of an earlier run, as far as its pictures are there; empty if there is none, or it is refused."""
        try:
            rows = [[row["path"], *(row.get(name) or "" for name in _HEADER[1:])] for row in read_csv(out / _TABLE)]
        except (OSError, ValueError, KeyError, csv.Error):
            rows = []
        there = {name: row for row in rows if ".." not in (name := _name(row[0])).split("/") and (out / name).is_file()}
        return cls(out, {_name(path): path for path in manifest.path}, there)

    def own(self, manifest: Manifest) -> set[str]:
        """Names of the pictures that an earlier run made.

        A row without numbers is of a picture that an interrupted run may have made: the one that is there must say so,
        and be part of its image.
        """
        sure = {name for name, row in self.earlier.items() if row[1]}
        doubtful = [name for name in self.earlier.keys() & self.path.keys() - sure if (self.out / name).is_file()]
        with ThreadPoolExecutor(min(16, core_count())) as pool:
            parts = pool.map(lambda name: _is_part(self.out / name, manifest.root / self.path[name]), doubtful)
            return sure | {name for name, part in zip(doubtful, parts, strict=True) if part}

    def others(self, known: Collection[str] = ()) -> list[str]:
        """Names of pictures of an earlier run whose image is not there, nor among those known."""
        return [name for name in self.earlier if not (name in self.path or name in known)]

    def write(self, begin: Collection[str] = ()) -> None:
        """Write the table, before some pictures are made, or after; one that is half made has a row without numbers."""
        half = {name: [self.path[name], *("" for _ in NUCLEI_NUMBERS)] for name in (*self.begun, *begin)}
        rows = self.earlier | half | self.made
        order = (*self.path, *self.others())
        write_csv(self.out / _TABLE, _HEADER, [rows[name] for name in order if name in rows])
        require_untouched(self.out / _TABLE, "output folder")


def _is_part(picture: Path, image: Path) -> bool:
    """Whether a picture was made here, of the pixels of an image and black ones, as far as the image can be read."""
    try:
        drawn = decode(picture)
        with open_image(picture) as opened:
            name, value = _MADE_BY
            if opened.info.get(name) != value:
                return False
    except (ImageError, OSError):
        return False
    try:
        whole = decode(image)  # (3, height, width)
    except ImageError:  # of which none is written
        return True
    return drawn.shape == whole.shape and bool(((drawn == whole).all(0) | (drawn == 0).all(0)).all())
