"""The cache: one HDF5 file of embeddings with its provenance. Only this package uses h5py.

Layout (schema 1). Datasets, a row an image, in the manifest's order:

    embeddings (N, V, D) float16 | float32    path, label, sha256 (N,) UTF-8    committed (N,) bool
    shortcuts/NAME (N, F) float32             view (V,) UTF-8
    rejected/path, rejected/reason, rejected/sha256 (R,) UTF-8
    twin_sha256 (N,) UTF-8, where segmented twins come from files
    timing (2,) float64: images computed, and seconds from decoding to disk

A view of several channels (attribute `channels`) is as many views, one behind the other.

Root attributes: schema_version, fingerprint, every setting that changes a number, and provenance that does not.

A file is created whole (every chunk allocated) under another name, closed, synced and then renamed, so a name in
place is a valid file. After that only raw data is overwritten: first a block of embeddings, synced, then its
`committed` flags, synced. A process killed at any moment leaves complete rows, or rows that are not committed.

Chunks are not compressed and lie one behind the other in the file, so a large cache is not read but mapped: processes
that fit models on it share one copy, which the system keeps in memory as it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.dataset.manifest import Rejected
from ball_features.errors import CacheError, ConfigError

__all__ = ["SCHEMA_VERSION", "Cache", "choose_channels", "content_hashes", "file_identity"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Cache:
    """What a cache holds.

    Attributes:
        embeddings: float16 or float32 (images, views, dim); of a large cache a read-only map of the file.
        path: str (images,), relative to the image folder, with forward slashes: the image's id.
        label: str (images,), the class.
        sha256: str (images,), of the file's bytes.
        committed: bool (images,), False for rows that are still to be computed.
        view: Names of the views, "plain" first.
        shortcuts: Name -> float32 (images, numbers): pixel statistics for models without a backbone.
        attributes: Settings and provenance.
        rejected: Files that could not be used.
        twin_sha256: str (images,), of the twin's bytes; empty where no twins are used.
        images_per_s: Images embedded a second, all views of each; NaN where it was not measured.
        mapped: The file that the embeddings are a map of, and which one it was; None where they were read.
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
    images_per_s: float = float("nan")
    mapped: tuple[Path, tuple[int, int]] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of a view."""
        return tuple(self.attributes.get("channels", ["original"]))

    @property
    def content(self) -> np.ndarray:
        """What an image's numbers come from, str (images,): its hash, and its twin's."""
        if not len(self.twin_sha256):
            return self.sha256
        return np.char.add(np.char.add(self.sha256, ":"), self.twin_sha256)

    @property
    def complete(self) -> bool:
        """Whether every row is committed."""
        return bool(self.committed.all())

    def require_unchanged(self) -> None:
        """Raise `CacheError` where other processes may have mapped another file than this one."""
        if self.mapped is not None and (not self.mapped[0].exists() or file_identity(self.mapped[0]) != self.mapped[1]):
            raise CacheError(f"{self.mapped[0]} was replaced while it was in use. Run it again.")


def choose_channels(cache: Cache, wanted: Sequence[str] = (), combine: str = "concat") -> Cache:
    """A cache as models see it: one embedding a view, of one channel or of several.

    Args:
        cache: With its embeddings.
        wanted: Channels; empty for all.
        combine: "concat" sets them behind one another (images, views, channels * dim), "mean" averages them.

    Raises:
        ConfigError: The cache has no such channel.
    """
    own = cache.channels
    for name in wanted:
        if name not in own:
            raise ConfigError(
                f"The cache has no channel {name!r}, expected some of: {', '.join(own)}. "
                "Extract it: ball extract --channels original,segmented"
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


def file_identity(path: Path) -> tuple[int, int]:
    """Device and inode of a file."""
    found = path.stat()
    return found.st_dev, found.st_ino


def content_hashes(file: Any) -> list[str]:
    """Content hash of each row of an open cache, with that of its twin behind it where there is one."""
    own = file["sha256"].asstr()[:]
    if "twin_sha256" not in file:
        return list(own)
    return [f"{first}:{second}" for first, second in zip(own, file["twin_sha256"].asstr()[:], strict=True)]
