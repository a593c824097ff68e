"""A folder of images as a list of files, hashed, in an order that is the same on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.dataset.listing import Rejected, list_images, natural_key, printable
from ball_features.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MAX_BYTES",
    "Manifest",
    "Rejected",
    "hash_file",
    "scan",
    "spread_rows",
]

# A smear of 100 megapixels, uncompressed in 16 bits, is 600 MB; larger files are whole slides.
MAX_BYTES = 600_000_000


@dataclass(frozen=True)
class Manifest:
    """The images of a folder.

    Attributes:
        root: image folder.
        path: ids of the images, relative to root with forward slashes, in natural order.
        label: class of each image.
        sha256: content hash of each image, hexadecimal.
        rejected: files that cannot be used.
        note: remarks on the folder for the user, or "".
        twin: file of each image's segmented twin, absolute; empty where none are used.
        twin_sha256: content hash of each twin.
    """

    root: Path
    path: tuple[str, ...]
    label: tuple[str, ...]
    sha256: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()
    note: str = ""
    twin: tuple[Path, ...] = ()
    twin_sha256: tuple[str, ...] = ()

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
            known: whether the content is at fault, so that a file of equal content is not tried again.

        Raises:
            DataError: Fewer than two classes are left.
        """
        keep = [row for row in range(len(self.path)) if row not in reasons]
        new = (Rejected(self.path[row], why, self.sha256[row] if known else "") for row, why in reasons.items())
        rejected = tuple(sorted((*self.rejected, *new), key=lambda item: item.path))
        kept = dataclasses.replace(
            self,
            path=tuple(self.path[row] for row in keep),
            label=tuple(self.label[row] for row in keep),
            sha256=tuple(self.sha256[row] for row in keep),
            twin=tuple(self.twin[row] for row in keep if self.twin),
            twin_sha256=tuple(self.twin_sha256[row] for row in keep if self.twin_sha256),
            rejected=rejected,
        )
        if len(set(kept.label)) < 2:
            listed = "".join(f"\n  {item.path}: {item.reason}" for item in rejected[:5])
            raise DataError(
                f"{len(keep)} images of {len(set(kept.label))} classes in {self.root} can be used, "
                f"expected images of at least two classes. Rejected files:{listed}"
            )
        return kept


def spread_rows(count: int, most: int) -> np.ndarray:
    """Choose at most `most` of `count` rows, evenly spread: int, increasing."""
    import numpy as np

    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def scan(root: Path | str, *, limit: int = 0) -> Manifest:
    """List and hash the images below a folder with one folder a class.

    Args:
        root: image folder. Where it holds `Original/` and `Segmented/`, Original is taken.
        limit: number of images to keep, spread evenly over each class; 0 keeps all.

    Raises:
        DataError: No such folder, or none that can be read, no image, or fewer than two classes.
    """
    root = Path(root)
    try:
        if not root.is_dir():
            got = "a file" if root.exists() else "nothing"
            raise DataError(f"Found {got} at {root}, expected a folder with one folder of images a class.")
        root, notes = _original(root)
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}). Ask its owner, or name another folder.") from error
    names, ignored, unreadable = list_images(root)
    images, loose = [name for name in names if "/" in name], [name for name in names if "/" not in name]
    if ignored:
        files = "1 other file" if ignored == 1 else f"{ignored} other files"
        notes.append(
            f"{files} in {root} {'is not an image and was' if ignored == 1 else 'are not images and were'} left out."
        )
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda name: hash_file(root / name), images))
    rejected = [*unreadable]
    rejected += [Rejected(printable(name), "lies outside the class folders; move it into one") for name in loose]
    rows = []
    for name, (digest, reason) in zip(images, digests, strict=True):
        if reason:
            rejected.append(Rejected(printable(name), reason))
        else:
            rows.append((name, name.split("/", 1)[0], digest))
    classes = sorted({label for _, label, _ in rows})
    if len(classes) < 2:
        found = f"images of one class, {classes[0]!r}" if classes else f"no usable image ({len(rejected)} rejected)"
        hint = "Give the folder that holds the class folders."
        if loose and not classes:
            hint = "The images lie in it directly: give its parent, if that has one folder a class."
        listed = "".join(f"\n  {item.path}: {item.reason}" for item in rejected[:5])
        raise DataError(f"Found {found} in {root}, expected at least two class folders with images. {hint}{listed}")
    if limit:
        rows = _spread(rows, limit, classes)
    return Manifest(
        root=root,
        path=tuple(path for path, _, _ in rows),
        label=tuple(label for _, label, _ in rows),
        sha256=tuple(digest for _, _, digest in rows),
        rejected=tuple(sorted(rejected, key=lambda item: item.path)),
        note=" ".join(notes),
    )


def _original(root: Path) -> tuple[Path, list[str]]:
    folders = {child.name.lower(): child for child in root.iterdir() if child.is_dir()}
    if "original" in folders and "segmented" in folders:
        return folders["original"], [f"Took {folders['original']}; {folders['segmented'].name}/ was left out."]
    return root, []


def hash_file(path: Path) -> tuple[str, str]:
    """(SHA-256, "") or ("", reason)."""
    if printable(str(path)) != str(path):
        return "", "its name is not UTF-8; rename it"
    try:
        size = path.stat().st_size
        if size == 0:
            return "", "is empty (0 bytes)"
        if size > MAX_BYTES:
            return "", f"has {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; cut it into fields"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), ""
    except OSError as error:
        return "", f"cannot be read ({error.strerror})"


def _spread(rows: list[tuple[str, str, str]], limit: int, classes: list[str]) -> list[tuple[str, str, str]]:
    """`limit` rows, shared out by class size with at least one each, evenly spaced within a class."""
    if limit < len(classes):
        raise DataError(f"Got a limit of {limit} images for {len(classes)} classes, expected at least one a class.")
    if limit >= len(rows):
        return rows
    count = Counter(label for _, label, _ in rows)
    share = {label: max(1, limit * count[label] // len(rows)) for label in classes}
    while sum(share.values()) != limit:
        step = 1 if sum(share.values()) < limit else -1
        # The class that is furthest from its exact share gives or takes one.
        movable = [label for label in classes if 1 <= share[label] + step <= count[label]]
        label = max(movable, key=lambda name: step * (limit * count[name] / len(rows) - share[name]))
        share[label] += step
    kept = []
    for label in classes:
        own = [row for row in rows if row[1] == label]
        kept += [own[(2 * place + 1) * len(own) // (2 * share[label])] for place in range(share[label])]
    return sorted(kept, key=lambda row: natural_key(row[0]))
