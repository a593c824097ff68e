"""Segmented twins: pictures of the same name in a folder beside the images."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from ball_features.dataset.listing import list_images
from ball_features.dataset.manifest import Manifest, hash_file
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

    An image without one is rejected.

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
    by_name: dict[str, str] = {str(PurePosixPath(name).with_suffix("")): name for name in names if "/" in name}
    found = [by_name.get(str(PurePosixPath(path).with_suffix(""))) for path in manifest.path]
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda name: hash_file(folder / name) if name else ("", ""), found))
    reasons = {}
    for row, (name, (_, reason)) in enumerate(zip(found, digests, strict=True)):
        if name is None:
            reasons[row] = f"has no segmented twin in {folder.name}/; make it: ball segment"
        elif reason:
            reasons[row] = f"its segmented twin {reason}"
    twins = dataclasses.replace(
        manifest,
        twin=tuple(folder / (name or "") for name in found),
        twin_sha256=tuple(digest for digest, _ in digests),
    )
    return twins.without(reasons, known=False) if reasons else twins
