"""Rows of a cache that are read block by block, for models whose rows exceed the memory.

Two orders: that of the file, for one pass that adds up, and shuffled windows for stochastic gradients. A window joins
many small blocks from all over the file, and its rows are shuffled before use (CorgiPile: Xu et al. 2022,
"In-database machine learning with CorgiPile", doi 10.1145/3514221.3526150). The next window is read while a model
trains on the present one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from ball_features.cache import read_rows

__all__ = ["RowStream", "stratified"]

WINDOWS = 8  # of the memory: two windows are held, with copies of parts in float32
BLOCKS_A_WINDOW = 512  # at least, so that the classes of a window are mixed as those of all rows
BLOCK_IMAGES = 64  # of a shuffled block, at most: some 250 kB of 1,920 float16, which a disk reads at full speed
PASS_BYTES = 64_000_000  # of a block in float32 in a pass in the order of the file
_SPARSE = 4  # images of the file for each image read, above which a run of images ends


@dataclass(frozen=True, eq=False)
class RowStream:
    """Training or validation rows that are read when they are used.

    Attributes:
        numbers: embeddings, float (images, views, columns); usually a memory map.
        images: numbers of the images, increasing, int (images,).
        codes: class of every image of `numbers`, int.
        views: numbers of the views; each view of an image is a row.
        memory: bytes that the fit may hold beside the program.
        weight: weight of every image of `numbers` in a loss, float32, or None.
    """

    numbers: np.ndarray
    images: np.ndarray
    codes: np.ndarray
    views: tuple[int, ...]
    memory: int
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of rows: images times views."""
        return len(self.images) * len(self.views)

    @property
    def columns(self) -> int:
        """Number of columns of a row."""
        return int(self.numbers.shape[2])

    @property
    def y(self) -> Int[np.ndarray, " rows"]:
        """Class of each row, in the order of `blocks`."""
        return np.repeat(self.codes[self.images], len(self.views))

    @property
    def window_images(self) -> int:
        """Number of images of a shuffled window."""
        row = self.numbers.shape[1] * self.numbers.shape[2] * self.numbers.dtype.itemsize
        return max(2, min(len(self.images), self.memory // WINDOWS // row))

    @property
    def block_images(self) -> int:
        """Number of images of a shuffled block."""
        return max(1, min(BLOCK_IMAGES, self.window_images // BLOCKS_A_WINDOW))

    def blocks(self) -> Iterator[tuple[np.ndarray, Int[np.ndarray, " rows"]]]:
        """Yield all rows in the order of the file: their numbers as stored, (rows, columns), and their classes."""
        step = max(1, min(PASS_BYTES, self.memory // WINDOWS) // (4 * self.numbers.shape[1] * self.columns))
        parts = [self.images[start : start + step] for start in range(0, len(self.images), step)]
        for images, X in _ahead(self, parts):
            yield X, np.repeat(self.codes[images], len(self.views))

    def windows(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, Int[np.ndarray, " rows"]]]:
        """Yield all rows once, in windows of blocks that are drawn without replacement.

        Args:
            rng: generator of the order of the blocks.

        Yields:
            Numbers as stored, (rows, columns), sorted by image within a window, and the image of each row. The rows of
            a window are yet to be shuffled. The views of an image are consecutive.
        """
        size = self.block_images
        starts = rng.permutation(np.arange(0, len(self.images), size))
        count = max(1, self.window_images // size)
        parts = []
        for first in range(0, len(starts), count):
            chosen = np.sort(starts[first : first + count])
            parts.append(np.concatenate([self.images[start : start + size] for start in chosen]))
        if len(parts) > 1 and len(parts[-1]) * len(self.views) < 2:  # batch norm cannot take a single row
            parts[-2:] = [np.sort(np.concatenate(parts[-2:]))]
        for images, X in _ahead(self, parts):
            yield X, np.repeat(images, len(self.views))

    def read(self, images: Int[np.ndarray, " images"]) -> np.ndarray:
        """Read the chosen views of images, increasing, as rows (images * views, columns), as they are stored."""
        runs = np.split(images, np.flatnonzero(np.diff(images) > _SPARSE) + 1)
        if len(runs) * _SPARSE > len(images):
            runs = [images]
        found = np.empty((len(images), len(self.views), self.columns), self.numbers.dtype)
        start = 0
        for run in runs:
            found[start : start + len(run)] = read_rows(self.numbers, run)[:, list(self.views)]
            start += len(run)
        return found.reshape(len(images) * len(self.views), -1)

    def sample(self, images: int, seed: int) -> RowStream:
        """Return the same rows of a stratified sample of images; see `stratified`."""
        return replace(self, images=stratified(self.images, self.codes, images, seed))

    def without(self, images: Int[np.ndarray, " images"]) -> RowStream:
        """Return the rows of the other images."""
        return replace(self, images=np.setdiff1d(self.images, images, assume_unique=True))


def _ahead(stream: RowStream, parts: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (images, rows) of each part; the next part is read meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(stream.read, parts[0]) if parts else None
        for number, images in enumerate(parts):
            assert coming is not None
            X = coming.result()
            if number + 1 < len(parts):
                coming = pool.submit(stream.read, parts[number + 1])
            yield images, X
            del X


def stratified(images: np.ndarray, codes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw images without replacement, each class in its share, but at least two of each where it has them.

    Args:
        images: numbers of the images, int.
        codes: class of every image, indexed by these numbers.
        count: number of images to draw; all are returned where there are no more.
        seed: seed of the draw.

    Returns:
        Numbers of the drawn images, increasing.
    """
    if len(images) <= count:
        return images
    rng, drawn = np.random.default_rng(seed), []
    own = codes[images]
    for code in np.unique(own):
        members = images[own == code]
        share = min(len(members), max(2, round(count * len(members) / len(images))))
        drawn.append(rng.choice(members, share, replace=False))
    return np.sort(np.concatenate(drawn))
