"""Segmented twins: pictures of the same name in a folder beside the images."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from ball_features.dataset.listing import list_images
from ball_features.dataset.manifest import Manifest, hash_file
from ball_features.dataset.remarks import told_apart
from ball_features.dataset.sources import Source
from ball_features.errors import DataError

__all__ = ["twin_folder", "with_twins"]


def twin_folder(manifest: Manifest) -> Path | None:
    """Find the folder `Segmented/` beside the images; None where there is none.

    Raises:
        DataError: The folder above the images cannot be listed.
    """
    if isinstance(manifest.root, Source):
        return None
    root = manifest.root.resolve()
    try:
        for child in root.parent.iterdir():
            if child.is_dir() and child.name.lower() == "segmented" and child != root:
                return child
    except OSError as error:
        raise DataError(
            f"{root.parent} cannot be read ({error.strerror}), so Segmented/ beside the images is not found. Name the "
            "folder by twins, or set twins=none."
        ) from error
    return None


def with_twins(manifest: Manifest, folder: Path) -> Manifest:
    """Give each image its segmented twin: the file of the same name below `folder`, whatever its ending.

    One of the very same name goes before those that differ by ending or the form of Unicode. An image without a twin is
    rejected, and so is one of which several could be the twin, or whose twin could be another image's.

    Raises:
        DataError: No such folder, one that cannot be read, or twins of fewer than two classes.
    """
    if not folder.is_dir():
        raise DataError(f"No folder {folder}, expected segmented twins of the images of {manifest.root}.")
    listing = list_images(folder)
    names = listing.images
    if listing.rejected:
        first = listing.rejected[0]
        raise DataError(f"{folder / first.path} {first.reason}. Set twins=none, or give other twins.")
    found, reasons = _pairs(manifest.path, [name for name in names if "/" in name], folder.name)
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda name: hash_file(folder / name) if name else ("", ""), found))
    reasons |= {row: f"its segmented twin {reason}" for row, (_, reason) in enumerate(digests) if reason}
    twins = dataclasses.replace(
        manifest,
        twin=tuple(folder / (name or "") for name in found),
        twin_sha256=tuple(digest for digest, _ in digests),
    )
    return twins.without(reasons, known=False) if reasons else twins


def _pairs(images: Sequence[str], twins: Sequence[str], folder: str) -> tuple[list[str | None], dict[int, str]]:
    """The twin of each image, and why others have none: row -> reason."""
    found: list[str | None] = [None] * len(images)
    reasons: dict[int, str] = {}
    rows, free = [*range(len(images))], [*twins]
    for key in (str, _bare, lambda name: unicodedata.normalize("NFC", _bare(name))):
        named: dict[str, list[str]] = {}
        for name in free:
            named.setdefault(key(name), []).append(name)
        count = Counter(key(images[row]) for row in rows)
        for row in rows:
            own, others = named.get(key(images[row]), []), count[key(images[row])] - 1
            if len(own) == 1 and not others:
                found[row] = own[0]
            elif own:
                reasons[row] = (
                    f"may have the segmented twin {' or '.join(told_apart(own))} in {folder}/"
                    + (", as another image of that name" if others else "")
                    + "; rename them so that each has its own"
                )
        rows = [row for row in rows if found[row] is None and row not in reasons]
        taken = {*found}
        free = [name for name in free if name not in taken]
    reasons |= {row: f"has no segmented twin in {folder}/; make it: ball segment" for row in rows}
    return found, reasons


def _bare(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
