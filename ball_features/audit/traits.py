"""Traits that the audit keeps of each image: a few numbers and a small grey picture, so that memory grows slowly."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ball_features.audit.frames import frame
from ball_features.audit.overlays import OverlayModel
from ball_features.audit.pairs import SMALL_PX, shrink
from ball_features.audit.series import OTHER_ENCODING
from ball_features.audit.stain_batches import stain_numbers
from ball_features.dataset.decode import decode_bytes, read_file
from ball_features.dataset.image_kinds import open_image
from ball_features.dataset.manifest import Manifest
from ball_features.errors import ImageError

__all__ = ["SIDE_PX", "Traits", "collect", "grey", "images", "load_square", "squared"]

SIDE_PX = 224
_TOGETHER = 64  # images in flight
_BINS = 16
_LEAST_ENCODING = 20  # least images of a kind of file

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, eq=False)
class Traits:
    """Arrays with one row for each image that could be decoded.

    Attributes:
        rows: row in the manifest, int (images,).
        digest: SHA-256 of the decoded pixels and their shape.
        encoding: kind of file, by traces of camera, export and compression in its header, str (images,).
        side_px: shorter side of the image as it was decoded, int (images,).
        small: grey picture, uint8 (images, 128, 128).
        colour: share of pixels in 16 bins of each channel, float32 (images, 48).
        moments: mean and standard deviation of each channel, float64 (images, 6).
        stain: stain values from `stain_batches.stain_numbers`, float32 (images, 9).
        overlay: name of the burned-in overlay, str (images,).
        spread: standard deviation of grey levels, float32 (images,).
        sharp: mean second difference of grey levels, float64 (images,).
    """

    rows: np.ndarray
    digest: list[str]
    encoding: np.ndarray
    side_px: np.ndarray
    small: np.ndarray
    colour: np.ndarray
    moments: np.ndarray
    stain: np.ndarray
    overlay: np.ndarray
    spread: np.ndarray
    sharp: np.ndarray


def load_square(path: Path, sha256: str = "") -> np.ndarray:
    """Decode an image and squeeze it to a square by area averaging: uint8 (224, 224, 3).

    Raises:
        ImageError: It cannot be decoded, or has not the content hash that is given.
    """
    return squared(decode_bytes(read_file(path, sha256)).permute(1, 2, 0).numpy())


def squared(pixels: np.ndarray, side_px: int = SIDE_PX) -> np.ndarray:
    """Squeeze pixels to a square by area averaging: uint8 (side_px, side_px, 3)."""
    from PIL import Image

    if pixels.shape[:2] == (side_px, side_px):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BOX))


def _described(path: Path, sha256: str) -> tuple[np.ndarray, str, int, tuple[object, ...]]:
    """Square picture, digest, shorter side, and traces in the file's header."""
    data = read_file(path, sha256)
    pixels = decode_bytes(data).permute(1, 2, 0).numpy()
    digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    return squared(pixels), digest, min(pixels.shape[:2]), _traces(data)


def _traces(data: bytes) -> tuple[object, ...]:
    """Traces of camera, export and compression in the header of an image file."""
    try:
        with open_image(io.BytesIO(data)) as image:
            tables = tuple(map(tuple, getattr(image, "quantization", {}).values()))
            return image.format, image.size, image.mode, tables, str(image.info.get("dpi"))
    except Exception:  # odd texts, which the decoder has passed over
        return ()


def grey(image: np.ndarray) -> np.ndarray:
    """Average the channels: uint8 (height, width)."""
    return (image.astype(np.uint16).sum(2) / 3).round().astype(np.uint8)


def images(manifest: Manifest, rows: Any, rejected: dict[str, str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows and decoded images in order; files that cannot be decoded go into `rejected`."""
    return _loaded(load_square, manifest, rows, rejected)


def _loaded(
    load: Callable[[Path, str], Loaded], manifest: Manifest, rows: Any, rejected: dict[str, str]
) -> Iterator[tuple[int, Loaded]]:
    """Yield rows and loaded values in order; files that cannot be decoded go into `rejected`."""

    def attempt(row: int) -> Loaded | ImageError:
        try:
            return load(manifest.root / manifest.path[row], manifest.sha256[row])
        except ImageError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(rows), _TOGETHER):  # a bounded number in flight
            part = rows[start : start + _TOGETHER]
            for row, result in zip(part, pool.map(attempt, part), strict=True):
                if isinstance(result, ImageError):
                    rejected[manifest.path[row]] = str(result)
                else:
                    yield row, result


def collect(
    manifest: Manifest, model: OverlayModel, rejected: dict[str, str], progress: Callable[[int], None]
) -> Traits:
    """Read every image once.

    Args:
        manifest: manifest from `scan`.
        model: overlays of the collection.
        rejected: path -> reason; files that cannot be decoded are added.
        progress: called with the number of images read.
    """
    mask = model.mask() if model.shape[0] else np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    rows: list[int] = []
    digest: list[str] = []
    side_px: list[int] = []
    traces: list[tuple[object, ...]] = []
    parts: list[tuple[np.ndarray, ...]] = []
    small = np.empty((len(manifest.path), SMALL_PX, SMALL_PX), dtype=np.uint8)
    waiting: list[np.ndarray] = []

    def digested() -> None:
        pictures = np.stack(waiting)
        greys = np.stack([grey(image) for image in pictures])
        flat = pictures.reshape(len(pictures), -1, 3)
        bins = [[np.bincount(pixels[:, k] >> 4, minlength=_BINS) for k in range(3)] for pixels in flat]
        small[len(rows) - len(pictures) : len(rows)] = shrink(greys)
        parts.append(
            (
                np.array(bins, dtype=np.float32).reshape(len(pictures), -1) / flat.shape[1],
                np.stack([np.concatenate([pixels.mean(0), pixels.std(0)]) for pixels in flat]),
                np.stack([stain_numbers(image, mask | frame(own)) for image, own in zip(pictures, greys, strict=True)]),
                model.assign(np.stack([model.evidence(image) for image in pictures])),
                greys.std((1, 2), dtype=np.float32),
                np.array([np.abs(np.diff(image.astype(np.int16), 2, axis=0)).mean() for image in greys]),
            )
        )
        waiting.clear()

    for row, (image, own, side, header) in _loaded(_described, manifest, range(len(manifest.path)), rejected):
        rows.append(row)
        digest.append(own)
        side_px.append(side)
        traces.append(header)
        waiting.append(image)
        if len(waiting) == _TOGETHER:
            digested()
            progress(row)
    if waiting:
        digested()
    colour, moments, stain, overlay, spread, sharp = (
        (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (np.zeros(0) for _ in range(6))
    )
    sides = np.array(side_px, dtype=np.int64)
    own = colour, moments, stain, overlay, spread, sharp
    return Traits(np.array(rows, dtype=np.int64), digest, _encodings(traces), sides, small[: len(rows)], *own)


def _encodings(traces: list[tuple[object, ...]]) -> np.ndarray:
    """Names of the kinds of file that have the same traces in their headers, str (files,)."""
    frequent = [item for item, count in Counter(traces).most_common() if count >= _LEAST_ENCODING]
    names = {item: f"encoding-{number}" for number, item in enumerate(frequent, 1)}
    return np.array([names.get(item, OTHER_ENCODING) for item in traces])
