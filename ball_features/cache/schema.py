"""The cache: one HDF5 file of embeddings with its provenance. Only this package uses h5py.

Layout (schema 1). Datasets, with a row for each image in the order of the manifest:

    embeddings (N, V, D) float16 | float32    path, label, sha256 (N,) UTF-8    committed (N,) bool
    shortcuts/NAME (N, F) float32             view (V,) UTF-8
    rejected/path, rejected/reason, rejected/sha256 (R,) UTF-8
    twin_sha256 (N,) UTF-8, if segmented twins come from files
    columns/NAME (N,) UTF-8: what sheet and folders tell of the images; in NAME, / is written %2F and % is %25
    timing (2,) float64: images computed, and seconds from decoding to disk

With several channels (attribute `channels`), the channels of a view are stored as consecutive views.

Root attributes: schema_version, fingerprint, every setting that changes a number (`extraction.preprocessing`), and
provenance.

A file is created whole (every array allocated) under a temporary name, closed, synced and then renamed, so a file with
the final name is always valid. After that only raw data is overwritten: first a block of embeddings, synced, then its
`committed` flags, synced. A process killed at any moment leaves rows that are complete or not committed.

Arrays are uncompressed and contiguous in the file, so a large cache is memory-mapped instead of read: processes that
fit models on it share one copy in the system's page cache.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.dataset.manifest import Rejected
from ball_features.errors import CacheError, ConfigError, MissingExtraError

__all__ = [
    "SCHEMA_VERSION",
    "Cache",
    "choose_channels",
    "column_key",
    "column_name",
    "content_hashes",
    "file_identity",
    "labelled_rows",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Cache:
    """Contents of a cache.

    Attributes:
        embeddings: embeddings, float16 or float32 (images, views, dim); a read-only memory map if the cache is large.
        path: ids of the images, str (images,): paths relative to the image folder, with forward slashes.
        label: class of each image, str (images,).
        sha256: hash of each file, str (images,).
        committed: whether each row is computed, bool (images,).
        view: names of the views, "plain" first.
        shortcuts: pixel statistics by name, float32 (images, statistics), for models without a backbone.
        attributes: settings and provenance.
        rejected: files that could not be used.
        twin_sha256: hash of each segmented twin, str (images,); empty if no twins are used.
        columns: further columns of the sheet and the folders by name, such as patient, str (images,); "" for no value.
        unlabelled: number of images without a class that were left out after reading.
        images_per_s: images embedded in a second, all views of each; NaN if it was not measured.
        mapped: path and identity of the file that the embeddings are a map of; None if they were read.
    """

    embeddings: np.ndarray
    path: np.ndarray
    label: np.ndarray
    sha256: np.ndarray
    committed: np.ndarray
    view: tuple[str, ...]
    shortcuts: dict[str, np.ndarray]
    attributes: dict[str, Any]
    rejected: tuple[Rejected, ...]
    twin_sha256: np.ndarray = field(default_factory=lambda: np.empty(0, dtype="<U1"))
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    unlabelled: int = 0
    images_per_s: float = float("nan")
    mapped: tuple[Path, tuple[int, ...]] | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every setting that changes a number."""
        return str(self.attributes["fingerprint"])

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return str(self.attributes["backbone"])

    @property
    def recipe(self) -> str:
        """Recipe of the views, or "plain"."""
        return str(self.attributes["recipe"])

    @property
    def precision(self) -> str:
        """Number format of the forward pass: "fp32", "bf16" or "fp16"."""
        return str(self.attributes["precision"])

    @property
    def device(self) -> str:
        """Type of the device that computed the first rows."""
        return str(self.attributes.get("device", "cpu"))

    @property
    def forward_pass(self) -> str:
        """Forward pass that was used: "torchvision" for that library's own, or "" for the usual one."""
        return str(self.attributes.get("pass", ""))

    @property
    def deviation_cosine(self) -> float:
        """Smallest cosine to embeddings in float32 on a sample when the cache was begun; NaN if not measured."""
        return float(self.attributes.get("deviation_cosine", float("nan")))

    @property
    def overlay_mask(self) -> str:
        """Packed mask of overlays, or ""."""
        return str(self.attributes.get("overlay_mask", ""))

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of a view."""
        return tuple(self.attributes.get("channels", ["original"]))

    @property
    def channels_used(self) -> tuple[str, ...]:
        """Names of the channels that `choose_channels` joined; ("original",) for a cache of one channel."""
        return tuple(self.attributes.get("channels_used", ["original"]))

    @property
    def combine(self) -> str:
        """How `choose_channels` joined the channels: "concat" or "mean"."""
        return str(self.attributes.get("combine", "concat"))

    @property
    def segmentation(self) -> str:
        """Source of segmented pictures: "hsv" (the published thresholds), "twins" (files), or ""."""
        return str(self.attributes.get("segmentation", ""))

    @property
    def content(self) -> np.ndarray:
        """Identity of each image's pixels, str (images,): its hash, followed by that of its twin if there is one."""
        if not len(self.twin_sha256):
            return self.sha256
        return np.char.add(np.char.add(self.sha256, ":"), self.twin_sha256)

    @property
    def complete(self) -> bool:
        """Whether every row is committed."""
        return bool(self.committed.all())

    def frame(self) -> Any:
        """The rows as a pandas data frame, or one of polars where only that is installed.

        Returns:
            Data frame with path, label, sha256 and the columns of the sheet, in the order of the embeddings.

        Raises:
            MissingExtraError: Neither is installed.
        """
        columns = {"path": self.path, "label": self.label, "sha256": self.sha256, **self.columns}
        for name in ("pandas", "polars"):
            try:
                library = importlib.import_module(name)
            except ImportError:
                continue
            return library.DataFrame({key: values.tolist() for key, values in columns.items()})
        raise MissingExtraError("A data frame needs pandas or polars. Install one: pip install pandas")

    def require_unchanged(self) -> None:
        """Raise `CacheError` if the file that the embeddings are a map of was replaced, or written to."""
        if self.mapped is not None and (not self.mapped[0].exists() or file_identity(self.mapped[0]) != self.mapped[1]):
            raise CacheError(f"{self.mapped[0]} was replaced or changed while it was in use. Run the command again.")


def labelled_rows(cache: Cache) -> Cache:
    """A cache without the images that have no class; the same one where all have."""
    rows = np.flatnonzero(cache.label != "")
    if len(rows) == len(cache.label):
        return cache
    return replace(
        cache,
        embeddings=cache.embeddings[rows] if len(cache.embeddings) else cache.embeddings,
        path=cache.path[rows],
        label=cache.label[rows],
        sha256=cache.sha256[rows],
        committed=cache.committed[rows],
        shortcuts={name: values[rows] for name, values in cache.shortcuts.items()},
        twin_sha256=cache.twin_sha256[rows] if len(cache.twin_sha256) else cache.twin_sha256,
        columns={name: values[rows] for name, values in cache.columns.items()},
        unlabelled=len(cache.label) - len(rows),
        mapped=None,
    )


def column_key(name: str) -> str:
    """Name of a column as the name of a dataset."""
    key = name.replace("%", "%25").replace("/", "%2F")
    return key if key.strip(".") else key.replace(".", "%2E")


def column_name(key: str) -> str:
    """Name of the column of a dataset."""
    return key.replace("%2E", ".").replace("%2F", "/").replace("%25", "%")


def choose_channels(cache: Cache, wanted: Sequence[str] = (), combine: str = "concat") -> Cache:
    """Join the channels of each view into one embedding, as models see it.

    Args:
        cache: cache with its embeddings.
        wanted: names of the channels; empty for all.
        combine: "concat" for embeddings (images, views, channels * dim), "mean" for their average.

    Raises:
        ConfigError: The cache has no such channel.
    """
    own = cache.channels
    for name in wanted:
        if name not in own:
            raise ConfigError(
                f"The cache has no channel {name!r}, expected some of: {', '.join(own)}. "
                "Extract both: channels=('original', 'segmented')."
            )
    chosen = [own.index(name) for name in dict.fromkeys(wanted or own)]
    if len(own) == 1:
        return cache
    images, views, dim = cache.embeddings.shape
    split = cache.embeddings.reshape(images, views // len(own), len(own), dim)  # a view of the same memory
    if combine == "mean" and len(chosen) > 1:
        embeddings = split[:, :, chosen].mean(2, dtype=np.float32)
    elif len(chosen) == 1:
        embeddings = split[:, :, chosen[0]]
    else:
        picked = split if chosen == list(range(len(own))) else split[:, :, chosen]
        embeddings = picked.reshape(images, views // len(own), len(chosen) * dim)
    used = {"channels_used": [own[place] for place in chosen], "combine": combine}
    return replace(cache, embeddings=embeddings, view=cache.view[:: len(own)], attributes=cache.attributes | used)


def file_identity(path: Path) -> tuple[int, ...]:
    """Device and inode number of a file, its size, and the time of its last change in nanoseconds."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def content_hashes(file: Any) -> list[str]:
    """Content hash of each row of an open cache, followed by that of its twin if there is one."""
    own = file["sha256"].asstr()[:]
    if "twin_sha256" not in file:
        return list(own)
    return [f"{first}:{second}" for first, second in zip(own, file["twin_sha256"].asstr()[:], strict=True)]
