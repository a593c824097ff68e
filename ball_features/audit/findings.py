"""Audit of a folder of images: copies, shared fields, overlays, likely series, and the accuracy of shortcuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.audit.confirmation import Pair
from ball_features.audit.frames import frame
from ball_features.audit.indicators import find_outliers, mutual_information_bits, shortcut_accuracy
from ball_features.audit.overlays import OverlayModel, learn_overlays
from ball_features.audit.pairs import find_pairs
from ball_features.audit.series import Series, find_series
from ball_features.audit.traits import collect, grey, images, load_square
from ball_features.audit.transformed import find_transformed
from ball_features.dataset.manifest import Manifest, scan, spread_rows
from ball_features.dataset.table_files import extend_table
from ball_features.dataset.units import merge_units
from ball_features.errors import ConfigError, DataError, ImageError
from ball_features.threads import one_blas_thread

__all__ = ["HEADER", "VERSION", "Audit", "audit", "write_groups"]

VERSION = 4  # higher whenever the audit of the same images finds something else

HEADER = ("path", "group", "series", "batch", "overlay", "block", "duplicate_of")  # of a groups file
BLOCK_IMAGES = 20
_SAMPLE = 4000  # images that the overlays are learnt from

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Audit:
    """Findings about a folder.

    Attributes:
        path: ids of the images that could be decoded, str (images,).
        label: class of each image, str (images,).
        sha256: content hash of the file of each image, str (images,).
        exact: lists of rows with identical decoded pixels.
        pairs: near-duplicates and shared fields.
        overlay: name of each image's burned-in overlay, str (images,), "none" for images without one.
        overlays: appearance of the overlays.
        encoding: kind of file of each image (format, size, JPEG tables, resolution), str (images,): "encoding-1" is the
            most frequent, "other" stands for kinds of fewer than 20 images.
        series: likely series and batches of acquisition; inferred, not known.
        block: runs of consecutive images within class and series, int (images,); a group is in one block of its class.
        group: connected copies and shared fields, which a split must keep together, int (images,).
        outlier: row -> reason why the image is unlike the others.
        rejected: files that could not be decoded, with the reason.
        shortcuts: name -> cross-validated accuracy of colour, overlay or kind of file alone.
        association_bits: mutual information of overlay and class, in bits.
    """

    path: np.ndarray
    label: np.ndarray
    sha256: np.ndarray
    exact: list[list[int]]
    pairs: list[Pair]
    overlay: np.ndarray
    overlays: OverlayModel
    encoding: np.ndarray
    series: Series
    block: np.ndarray
    group: np.ndarray
    outlier: dict[int, str]
    rejected: list[tuple[str, str]]
    shortcuts: dict[str, float]
    association_bits: float

    @property
    def conflicts(self) -> list[tuple[int, int]]:
        """Pairs of rows that show the same thing but have different labels."""
        linked = [(rows[0], row) for rows in self.exact for row in rows[1:]]
        linked += [(pair.first, pair.second) for pair in self.pairs]
        return [(a, b) for a, b in linked if self.label[a] != self.label[b]]


@one_blas_thread()
def audit(
    manifest: Manifest | Path | str, *, embeddings: np.ndarray | None = None, progress: Progress | None = None
) -> Audit:
    """Find what makes a random split of these images misleading.

    Args:
        manifest: manifest from `scan`, or the folder, archive or address that holds one folder for each class.
        embeddings: embeddings in the manifest's order, float (images, dim), NaN where there is none; they reveal images
            far from all others.
        progress: called with (steps done, total steps).

    Raises:
        ConfigError: The embeddings are not those of so many images.
        DataError: Fewer than two classes can be decoded.
    """
    if not isinstance(manifest, Manifest):
        manifest = scan(manifest, anywhere=True)
    if embeddings is not None:
        embeddings = _required(embeddings, len(manifest.path))
    report = progress or (lambda done, total: None)
    total = 5 * len(manifest.path)
    rejected: dict[str, str] = {item.path: item.reason for item in manifest.rejected}
    count = len(manifest.path)
    sample = spread_rows(count, _SAMPLE).tolist()
    model = learn_overlays(lambda: (image for _, image in images(manifest, sample, rejected)))
    report(count, total)
    seen = collect(manifest, model, rejected, lambda done: report(count + done, total))
    path, label, sha256 = (np.array(own)[seen.rows] for own in (manifest.path, manifest.label, manifest.sha256))
    if len(np.unique(label)) < 2:
        raise DataError(
            f"{len(path)} images of {len(np.unique(label))} classes in {manifest.root} can be decoded, expected at "
            "least two classes. Give the folder that holds one folder a class."
        )
    root = manifest.root

    def picture(row: int) -> np.ndarray:
        try:
            return grey(load_square(root / path[row], sha256[row]))
        except ImageError as error:
            reason = str(error).partition(";")[0]
            raise DataError(
                f"{root / path[row]} {reason}, after it was read before. Audit the images again once they stay."
            ) from error

    pairs = find_pairs(
        seen.small,
        model.mask(),
        picture,
        side_px=seen.side_px,
        progress=lambda done, all_: report(2 * count + 2 * count * done // all_, total),
    )
    pairs += _transformed(
        picture, model.mask(), seen.digest, pairs, lambda part: report(int((4 + part) * count), total)
    )
    pairs.sort(key=lambda pair: (pair.first, pair.second))
    group, exact = _groups(seen.digest, pairs, path)
    found = find_series(seen.stain, label, seen.overlay, seen.encoding, group)
    report(total, total)
    return Audit(
        path=path,
        label=label,
        sha256=sha256,
        exact=exact,
        pairs=[pair for pair in pairs if seen.digest[pair.first] != seen.digest[pair.second]],
        overlay=seen.overlay,
        overlays=model,
        encoding=seen.encoding,
        series=found,
        block=_blocks(found.series, label, group),
        group=group,
        outlier=find_outliers(seen, embeddings[seen.rows] if embeddings is not None else None),
        rejected=sorted(rejected.items()),
        shortcuts=shortcut_accuracy(seen, label, group),
        association_bits=mutual_information_bits(seen.overlay, label),
    )


def _required(embeddings: np.ndarray, count: int) -> np.ndarray:
    """The embeddings, if they are numbers of so many images."""
    own = np.asarray(embeddings)
    if own.dtype.kind not in "fiu" or own.ndim != 2 or len(own) != count or not own.shape[1] or np.isinf(own).any():
        raise ConfigError(
            f"Got embeddings of {own.dtype} and of the shape {own.shape}, expected ({count}, dim): a row of finite "
            "numbers, or of NaN, for each image of the manifest. Read both from one cache."
        )
    return own


def _transformed(
    picture: Callable[[int], np.ndarray],
    overlay: np.ndarray,
    digest: list[str],
    known: list[Pair],
    progress: Callable[[float], None],
) -> list[Pair]:
    """Pairs that differ by any angle, a zoom or a reflection, and that are not known yet.

    Args:
        picture: row -> grey picture, uint8 (side, side).
        overlay: places that overlays cover, bool (side, side).
        digest: digest of the pixels of each image; identical images are no news.
        known: pairs that were found by other means.
        progress: called with the share of the work that is done.
    """

    def visible(row: int) -> tuple[np.ndarray, np.ndarray]:
        own = picture(row)
        covered = overlay if overlay.shape == own.shape else np.zeros(own.shape, dtype=bool)
        return own, ~(covered | frame(own))

    found = find_transformed(
        visible,
        len(digest),
        known=[(pair.first, pair.second) for pair in known],
        progress=lambda done, total: progress(done / max(total, 1)),
    )
    return [pair for pair in found if digest[pair.first] != digest[pair.second]]


def _groups(digest: list[str], pairs: list[Pair], path: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Return each image's connected component, numbered in order of appearance, and the sets of identical pixels."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array([(pair.first, pair.second) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(path), len(path)))
    _, component = connected_components(graph, directed=False)
    sets: dict[str, list[int]] = {}
    for row, value in enumerate(digest):
        sets.setdefault(value, []).append(row)
    return merge_units(component, digest), [rows for rows in sets.values() if len(rows) > 1]


def _blocks(series: np.ndarray, label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Number runs of `BLOCK_IMAGES` in file order within a series; a group belongs to the block of its first image.

    A group with several labels has a block in each class, so that no block mixes classes.
    """
    block = np.empty(len(series), dtype=np.int64)
    first: dict[tuple[str, int], int] = {}
    blocks = 0
    for name in np.unique(series):
        rows = np.flatnonzero(series == name)
        for index, row in enumerate(rows):
            own = (str(label[row]), int(group[row]))
            block[row] = first.setdefault(own, blocks + index // BLOCK_IMAGES)
        blocks += -(-len(rows) // BLOCK_IMAGES)
    return block


def write_groups(found: Audit, path: Path | str) -> str:
    """Write path,group,series,batch,overlay,block,duplicate_of, or add these columns to the table that is there.

    Returns:
        What the user should know of a former table that was kept, or "".

    Raises:
        DataError: The file cannot be written, or is no table of these images.
    """
    original = {row: rows[0] for rows in found.exact for row in rows[1:]}
    path = Path(path)
    copy_of = [found.path[original[row]] if row in original else "" for row in range(len(found.path))]
    columns = (found.path, found.group, found.series.series, found.series.batch, found.overlay, found.block, copy_of)
    named: dict[str, Iterable[object]] = dict(zip(HEADER[1:], columns[1:], strict=True))
    return extend_table(path, found.path.tolist(), named)
