"""A folder of images as a list of files, hashed, in an order that is the same on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ball_features.config import CollectionConfig
from ball_features.config.paths import disk_path
from ball_features.dataset.decode import MAX_BYTES, may_pass
from ball_features.dataset.labels import Labels, read_labels
from ball_features.dataset.listing import Listing, Rejected, list_images, printable
from ball_features.dataset.remarks import (
    alike_remark,
    conflict_remark,
    count_classes,
    dark_remark,
    some,
    twin_names_remark,
)
from ball_features.dataset.sources import open_source
from ball_features.dataset.spread import spread_classes, spread_rows
from ball_features.errors import DataError

__all__ = [
    "MAX_BYTES",
    "Manifest",
    "Rejected",
    "check_file",
    "hash_file",
    "hash_images",
    "open_images",
    "scan",
    "spread_rows",
]


@dataclass(frozen=True)
class Manifest:
    """The images of a folder.

    Attributes:
        root: image folder; a `Source` where the images lie in archives or under an address, which has the methods of a
            `Path` that reading needs.
        path: ids of the images, relative to root with forward slashes, in natural order.
        label: class of each image; "" where it is not known.
        sha256: content hash of each image, hexadecimal.
        rejected: files that cannot be used.
        note: remarks on the collection for the user, one per line, or "".
        columns: further columns: name -> text of each image, "" where it is not known.
        classes: classes with their counts, and where they were read from: two lines for the user.
        twin: file of each image's segmented twin, absolute; empty where none are used.
        twin_sha256: content hash of each twin.
        part: whether it is a part of a collection, which may lack classes, and images too.
    """

    root: Path
    path: tuple[str, ...]
    label: tuple[str, ...]
    sha256: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()
    note: str = ""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    twin: tuple[Path, ...] = ()
    twin_sha256: tuple[str, ...] = ()
    part: bool = False

    @property
    def content(self) -> tuple[str, ...]:
        """Key of each image's embeddings: its content hash, and its twin's where there is one."""
        if not self.twin_sha256:
            return self.sha256
        return tuple(f"{own}:{twin}" for own, twin in zip(self.sha256, self.twin_sha256, strict=True))

    def without(self, reasons: Mapping[int, str], *, known: bool = True) -> Manifest:
        """The manifest without these rows, which join its rejected files.

        Args:
            reasons: row -> reason.
            known: whether the content is at fault, so that a file of equal content is not tried again; never where a
                file cannot be read, which may pass.

        Raises:
            DataError: Fewer than two classes are left of a whole collection.
        """
        keep = [row for row in range(len(self.path)) if row not in reasons]
        new = (
            Rejected(self.path[row], why, self.sha256[row] if known and not may_pass(why) else "")
            for row, why in reasons.items()
        )
        rejected = tuple(sorted((*self.rejected, *new), key=lambda item: item.path))
        kept = dataclasses.replace(
            self,
            path=tuple(self.path[row] for row in keep),
            label=tuple(self.label[row] for row in keep),
            sha256=tuple(self.sha256[row] for row in keep),
            columns={name: tuple(cells[row] for row in keep) for name, cells in self.columns.items()},
            twin=tuple(self.twin[row] for row in keep if self.twin),
            twin_sha256=tuple(self.twin_sha256[row] for row in keep if self.twin_sha256),
            rejected=rejected,
        )
        if not self.part and len(set(kept.label) - {""}) < 2:
            listed = "".join(f"\n  {item.path}: {item.reason}" for item in rejected[:5])
            raise DataError(
                f"{len(keep)} images of {len(set(kept.label) - {''})} classes in {self.root} can be used, "
                f"expected images of at least two classes. Rejected files:{listed}"
            )
        return kept


def scan(
    root: Path | str,
    *,
    limit: int = 0,
    collection: CollectionConfig | None = None,
    sheet: Any = None,
    least_classes: int = 2,
    anywhere: bool = False,
    hashed: bool = True,
) -> Manifest:
    """List and hash the images below a folder, with what its folders, their names and a sheet say of them.

    Args:
        root: image folder. Folders above everything that hold nothing else are passed through, and masks beside the
            images are left out: where it holds `Original/` and `Segmented/`, Original is taken.
        limit: number of images to keep, spread evenly over each class; 0 keeps all.
        collection: layout of the folders, and path and columns of a sheet.
        sheet: a pandas or polars data frame, the path of a sheet, or a list of these.
        least_classes: fewest classes that the images must have.
        anywhere: take archives and addresses too; what reads the images must read a `Source` then.
        hashed: False leaves hashes out, for `hash_images` on a part of the images.

    Raises:
        ConfigError: The layout is no layout.
        DataError: No such folder, or none that can be read, no image, too few classes, two possible readings of the
            folders, or a sheet that does not fit.
    """
    root = disk_path(root) or root
    source: Any = open_source(root) if anywhere else None
    place: Path = source or _folder(Path(root))
    listing = list_images(place)
    config = CollectionConfig.of(collection)
    tables = "" if sheet is not None or config.sheet else _tables(listing)
    try:
        known = read_labels(place, listing.images, config, sheet)
    except DataError as error:
        if not tables:
            raise
        raise DataError(f"{error}{tables}") from error
    with ThreadPoolExecutor(8) as pool:
        look: Callable[[Path], tuple[str, str]] = hash_file if hashed else lambda path: ("", check_file(path))
        digests = list(pool.map(lambda name: look(known.root / name), known.path))
    rejected = [*listing.rejected, *known.rejected]
    rejected += [Rejected(printable(n), why) for n, (_, why) in zip(known.path, digests, strict=True) if why]
    rows = [row for row, (_, why) in enumerate(digests) if not why]
    label = [known.label[row] for row in rows]
    if least_classes > 1 or not label:
        _require_classes(place, label, known, listing, rejected, tables)
    chosen = [rows[row] for row in spread_classes(label, limit)] if limit else rows
    path, label = [known.path[row] for row in chosen], [known.label[row] for row in chosen]
    sha256 = [digests[row][0] for row in chosen]
    took = [f"Took the images in {known.root}."] if known.root != place else []
    lost = sorted({name for name in known.label if name} - set(label)) if not limit else []
    remarks = [*took, *listing.remarks(), *known.remarks]
    remarks += [f"All images of the class {name} were rejected." for name in lost]
    remarks += [alike_remark(label), twin_names_remark(path), conflict_remark(path, label, sha256) if hashed else ""]
    remarks += [dark_remark(known.root, path)]
    return Manifest(
        root=known.root,
        path=tuple(path),
        label=tuple(label),
        sha256=tuple(sha256),
        rejected=tuple(sorted(rejected, key=lambda item: item.path)),
        note="\n".join(filter(None, remarks)),
        columns={name: tuple(cells[row] for row in chosen) for name, cells in known.columns.items()},
        classes=(f"Classes: {count_classes(label)}.", f"Read from: {known.source}."),
    )


def _tables(listing: Listing) -> str:
    """Where a sheet may lie, in a sentence."""
    names = sorted(listing.tables, key=lambda name: (name.count("/"), name))
    return (
        f" Tables lie there; where one has a row for each image, give it as sheet: {some(names, 3)}." if names else ""
    )


def _folder(root: Path) -> Path:
    """A folder that can be listed.

    Raises:
        DataError: It is none, or cannot be read.
    """
    try:
        if not root.is_dir():
            got = "a file" if root.exists() else "nothing"
            raise DataError(f"Found {got} at {root}, expected a folder of images.")
        next(root.iterdir(), None)
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}). Ask its owner, or name another folder.") from error
    return root


def open_images(root: Path | str) -> Path:
    """Open what holds images whose ids are known: a folder, or an archive or address as a `Source`.

    Raises:
        DataError: Nothing is there, or it cannot be read.
    """
    root = disk_path(root) or root
    source: Any = open_source(root)
    if source is None and not Path(root).is_dir():
        raise DataError(f"No folder or archive at {root}, expected that of the images.")
    return source or Path(root)


def _require_classes(
    root: Path, label: Sequence[str], known: Labels, listing: Listing, rejected: Sequence[Rejected], tables: str
) -> None:
    classes = sorted(set(label) - {""})
    if len(classes) > 1:
        return
    found = f"images of one class, {classes[0]!r}" if classes else f"no usable image ({len(rejected)} rejected)"
    if label and not classes:
        found = f"{len(label)} images without a class"
    hint = f"Give the folder that holds the class folders, or a sheet with a row for each image.{tables}"
    listed = "".join(f"\n  {item.path}: {item.reason}" for item in rejected[:5])
    passed = "".join(f"\n  {line}" for line in [*listing.remarks(), *known.remarks])
    raise DataError(f"Found {found} in {root}, expected images of at least two classes. {hint}{listed}{passed}")


def hash_images(manifest: Manifest) -> Manifest:
    """Hash the images of a manifest that was listed without; those that cannot be read are rejected."""
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda name: hash_file(manifest.root / name), manifest.path))
    hashed = dataclasses.replace(manifest, sha256=tuple(digest for digest, _ in digests))
    reasons = {row: why for row, (_, why) in enumerate(digests) if why}
    return hashed.without(reasons, known=False) if reasons else hashed


def check_file(path: Path) -> str:
    """Why a file cannot be an image, as far as its name and size tell, or ""."""
    if printable(str(path)) != str(path):
        return "its name is not UTF-8; rename it"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is no regular file"
        size = status.st_size
        if size == 0:
            return "is empty (0 bytes)"
        if size > MAX_BYTES:
            return f"has {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; cut it into fields"
        return ""
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def hash_file(path: Path) -> tuple[str, str]:
    """(SHA-256, "") or ("", reason)."""
    reason = check_file(path)
    if reason:
        return "", reason
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), ""
    except OSError as error:
        return "", f"cannot be read ({error.strerror})"
