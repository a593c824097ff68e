"""What a cache lacks of a collection of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ball_features.cache import LABELLING, LISTING, MOST_SHARDS, SHARD, Cache, read_cache, verify_cache
from ball_features.config import ExtractConfig
from ball_features.dataset.decode import may_pass
from ball_features.dataset.manifest import Manifest, Rejected
from ball_features.errors import CacheError, ConfigError
from ball_features.extraction.loading import load_image
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.outputs import require_outside_bundles

__all__ = ["Request", "Update", "plan_update", "require_file_name", "shard_of"]


@dataclass(frozen=True, eq=False)
class Request:
    """What an extraction is asked for, once names are looked up and images are listed.

    Attributes:
        out: path of the cache.
        manifest: images of the collection.
        config: settings: device, images in a forward pass, and limit, for which no row of a larger cache is dropped.
        preprocessing: how images are to be embedded, which follows from the settings.
        shard: number of this shard, from 1, and number of shards; None for a whole collection.
        whole: images of the whole collection, on which choices are made that all shards must share.
    """

    out: Path
    manifest: Manifest
    config: ExtractConfig
    preprocessing: Preprocessing
    shard: tuple[int, int] | None = None
    whole: Manifest | None = None

    @property
    def sample(self) -> Manifest:
        """Images on which precision and overlay mask are chosen."""
        return self.whole or self.manifest

    @property
    def shard_attributes(self) -> dict[str, object]:
        """Attributes of a shard: its number, and of which images it is one; none for a whole collection."""
        if self.shard is None or self.whole is None:
            return {}
        digest = hashlib.sha256("\n".join(self.whole.path).encode(errors="surrogateescape")).hexdigest()
        listing = f"{len(self.whole.path)}:{digest}"
        return {SHARD: [*self.shard], LISTING: listing, LABELLING: _labelling(self.whole)}


def _labelling(manifest: Manifest) -> str:
    """Hash of the class and the columns of each image."""
    names = sorted(manifest.columns)
    digest = hashlib.sha256(repr(names).encode(errors="surrogateescape"))
    for row in zip(manifest.label, *(manifest.columns[name] for name in names), strict=True):
        digest.update(repr(row).encode(errors="surrogateescape"))
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Update:
    """The difference between a cache and a collection.

    Attributes:
        request: what is asked for.
        manifest: images of the collection; those that are known to be unusable are rejected.
        old: cache as it is, without its embeddings; None if there is none, or if it is to be replaced.
        damaged: whether parts of the cache are not those that were written, and are to be made again.
    """

    request: Request
    manifest: Manifest
    old: Cache | None
    damaged: bool = False

    @property
    def missing(self) -> int:
        """Number of images to compute."""
        known = set(self.old.content[self.old.committed].tolist()) if self.old else set()
        return sum(content not in known for content in self.manifest.content)

    @property
    def removed(self) -> int:
        """Number of images in the cache that the collection lacks."""
        return len(set(self.old.path.tolist()) - set(self.manifest.path)) if self.old else 0

    @property
    def remark(self) -> str:
        """What the user should know of classes that are others than in the cache, or ""."""
        if self.old is None:
            return ""
        before = dict(zip(self.old.path.tolist(), self.old.label.tolist(), strict=True))
        rows = zip(self.manifest.path, self.manifest.label, strict=True)
        changed = [(path, before[path], label) for path, label in rows if before.get(path, label) != label]
        if not changed:
            return ""
        path, old, new = changed[0]
        return (
            f"The class of {len(changed)} of {len(self.manifest.path)} images is another one than in the cache: {path} "
            f"was {old or 'without a class'}, now {new or 'without a class'}. If a sheet gave them, give it again; no "
            "image is computed again."
        )

    @property
    def same_rows(self) -> bool:
        """Whether the cache has a row for each image, in the same order and with the same label, and no others."""
        return (
            self.old is not None
            and not self.damaged
            and self.old.attributes.items() >= self.request.shard_attributes.items()
            and self.old.path.tolist() == list(self.manifest.path)
            and self.old.label.tolist() == list(self.manifest.label)
            and self.old.content.tolist() == list(self.manifest.content)
            and {name: tuple(values) for name, values in self.old.columns.items()} == dict(self.manifest.columns)
            and _sorted(self.old.rejected) == _sorted(self.manifest.rejected)
        )


def require_file_name(out: Path) -> None:
    """Check that a path can be that of a cache, before its lock is made there.

    Raises:
        CacheError: It is a folder, or cannot be looked up.
        DataError: It lies in a bundle.
    """
    require_outside_bundles(out, "output file")
    try:
        if out.is_dir():
            raise CacheError(f"Got the folder {out}, expected the name of a file, such as {out / 'cache.h5'}.")
    except OSError as error:  # a name that is too long, or a folder without permission
        raise CacheError(f"{out} cannot be written ({error.strerror}). Give another output file.") from error


def shard_of(manifest: Manifest, shard: tuple[int, int]) -> Manifest:
    """Select the images of a shard: every so many-th, so that each shard has images of every class.

    Args:
        manifest: images of the whole collection.
        shard: number of the shard, from 1, and number of shards.

    Raises:
        ConfigError: The numbers are no shard, or there are fewer images than shards, or too many shards.
    """
    number, total = shard
    if total > MOST_SHARDS:
        raise ConfigError(f"Got shard {number}/{total}, expected I/N with N up to {MOST_SHARDS}. Make fewer shards.")
    if not 1 <= number <= total <= len(manifest.path):
        raise ConfigError(
            f"Got shard {number}/{total} of {len(manifest.path)} images, expected I/N with I from 1 to N, and N at "
            "most the number of images."
        )
    rows = range(number - 1, len(manifest.path), total)
    return replace(
        manifest,
        path=tuple(manifest.path[row] for row in rows),
        label=tuple(manifest.label[row] for row in rows),
        sha256=tuple(manifest.sha256[row] for row in rows),
        columns={name: tuple(cells[row] for row in rows) for name, cells in manifest.columns.items()},
        twin=tuple(manifest.twin[row] for row in rows) if manifest.twin else (),
        twin_sha256=tuple(manifest.twin_sha256[row] for row in rows) if manifest.twin_sha256 else (),
        part=True,
    )


def plan_update(request: Request, *, overwrite: bool = False, prune: bool = False, repair: bool = False) -> Update:
    """Compare a collection with the cache that is there.

    Args:
        request: what is asked for.
        overwrite: replace the cache.
        prune: remove rows of images that the collection lacks.
        repair: make again what does not match its checksums; otherwise that is an error.

    Raises:
        CacheError: The cache was made with other settings, cannot be read, or has rows that would be dropped.
    """
    out, manifest = request.out, request.manifest
    if overwrite or not out.exists():
        return Update(request, manifest, None)
    old, damaged = _sound_part(request) if repair else (read_cache(out, embeddings=False), False)
    different = request.preprocessing.differences(old.attributes)
    if different:
        raise CacheError(
            f"{out} was made with other settings: {'; '.join(different)}. "
            "Give another output file, or overwrite=True to replace it."
        )
    reasons = _unusable(request, old)
    known = _with_columns(manifest.without(reasons) if reasons else manifest, old)
    update = Update(request, known, old, damaged)
    if request.shard != _shard_of(old):
        own, asked = (f"shard {one[0]} of {one[1]}" if one else "no shard" for one in (_shard_of(old), request.shard))
        raise CacheError(f"{out} is {own}, and {asked} was asked for. Give another output file, one for each shard.")
    if update.removed and request.config.limit:
        raise CacheError(
            f"{out} holds {len(old.path)} images, and the limit of {len(manifest.path)} would drop {update.removed} of "
            "them. Give another output file, or leave the limit out."
        )
    if not prune:
        _require_wanted(update)
    return update


def _unusable(request: Request, old: Cache) -> dict[int, str]:
    """Rows that are known to be unusable, and why; what no decoder could read is tried again: one may be there now."""
    manifest, input_px = request.manifest, request.preprocessing.backbone.input_px
    bad = {item.sha256: item.reason for item in old.rejected if item.sha256 and not may_pass(item.reason)}
    found = {row: bad[digest] for row, digest in enumerate(manifest.sha256) if digest in bad}
    passing = {item.path: item.reason for item in old.rejected if may_pass(item.reason)}
    for row, path in enumerate(manifest.path):
        if path in passing and load_image(manifest, row, input_px) == passing[path]:
            found[row] = passing[path]
    return found


def _shard_of(cache: Cache) -> tuple[int, int] | None:
    own = cache.attributes.get(SHARD)
    return (own[0], own[1]) if own else None


def _sound_part(request: Request) -> tuple[Cache, bool]:
    """What a cache holds for certain, rows that match their checksums, and whether that is less than all."""
    out = request.out
    found = verify_cache(out)
    old = read_cache(out, embeddings=False, verify=False)
    committed = old.committed.copy()
    committed[found.damaged] = False
    if found.index:
        return replace(old, committed=committed), not found.sound
    lost = sorted(old.columns.keys() - request.manifest.columns.keys())
    if lost:
        raise CacheError(f"The texts of {out} are damaged. Give the sheet with the columns {', '.join(lost)}.")
    if Preprocessing.from_attributes(old.attributes).fingerprint != old.fingerprint:
        raise CacheError(f"The settings of {out} are damaged too. Extract into another file, or set overwrite=True.")
    return replace(old, committed=committed, rejected=(), columns={}), True


def _with_columns(manifest: Manifest, old: Cache) -> Manifest:
    """A manifest with the columns that only the cache has: a sheet need not be given again."""
    row = {path: number for number, path in enumerate(old.path.tolist())}
    kept = {
        name: tuple(str(values[row[path]]) if path in row else "" for path in manifest.path)
        for name, values in old.columns.items()
        if name not in manifest.columns
    }
    return replace(manifest, columns={**manifest.columns, **kept}) if kept else manifest


def _require_wanted(update: Update) -> None:
    """Raise `CacheError` for rows whose images are gone: a share that dropped out looks like that too."""
    assert update.old is not None
    there = {*update.manifest.path, *(item.path for item in update.manifest.rejected if item.sha256)}
    moved = set(update.manifest.content)
    rows = zip(update.old.path.tolist(), update.old.content.tolist(), strict=True)
    gone = [path for path, content in rows if path not in there and content not in moved]
    whole = update.request.whole
    others = sorted(set(gone) & set(whole.path)) if whole else []
    if others:
        raise CacheError(
            f"{update.request.out} is a shard of other images: {len(others)} of its {len(update.old.path)} belong to "
            f"other shards now (first: {others[0]}), since images were added or removed. Nothing was changed. Extract "
            "the images as they were, or give another output file; to compute what the shard lacks, and drop what it "
            "has too much, set prune=True."
        )
    if gone:
        raise CacheError(
            f"{update.request.out} holds {len(update.old.path)} images, of which {len(gone)} are not in the folder or "
            f"cannot be read (first: {gone[0]}). Nothing was changed. If a share or a folder is missing, bring it "
            "back; to remove these images from the cache, extract the folder into it with prune=True, or give another "
            "output file."
        )


def _sorted(rejected: Sequence[Rejected]) -> list[tuple[str, str]]:
    return sorted((item.path, item.reason) for item in rejected)
