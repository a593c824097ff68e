"""Image files below a folder, in natural order, and what was passed over."""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ball_features.dataset.archives import is_archive
from ball_features.dataset.folder_names import is_system, skipped_names
from ball_features.dataset.remarks import some
from ball_features.dataset.sources import Source
from ball_features.files import IMAGE_SUFFIXES, walk

__all__ = ["Listing", "Rejected", "list_images", "natural_key", "printable"]

# Pictures that no decoder here reads: one that vanished without a word could be a whole class.
_UNSUPPORTED = frozenset(
    (
        ".svs .ndpi .mrxs .scn .vms .vmu .svslide .bif .czi .lif .nd2 .oib .oif .vsi .dcm .dicom .heic .heif "
        ".psd .svg .raw .cr2 .cr3 .nef .arw .dng .orf .nii .mha .npy .npz .mat .zarr .pdf .jxl .exr .hdr "
        ".fits .ai .eps"
    ).split()
)
_TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".ods", ".parquet", ".jsonl")
_MASK_OF = re.compile(
    r"(.+?)[ _-](?:masks?|seg|segmentation|segmented|annotation|annotated|gt|overlay|labels?|binary|contour)"
    r"(?:[ _-]?\d+)?"
)


@dataclass(frozen=True)
class Rejected:
    """A file that cannot be used, and the reason.

    Attributes:
        path: path relative to the image folder.
        reason: reason, as the end of a sentence that the path begins.
        sha256: content hash, where the content is known to be bad; "" where the failure may pass.
    """

    path: str
    reason: str
    sha256: str = ""


@dataclass
class Listing:
    """Files below a folder.

    Attributes:
        images: paths of image files, relative, with forward slashes, in natural order.
        others: ending -> number of files that are no images.
        skipped: folder, or "*_mask files" -> (what it is taken for, number of images in it).
        rejected: folders that cannot be read, and pictures of kinds that are not supported.
        bare: folder -> (ending -> number) of those that hold files and no image.
        tables: paths of files that may be sheets.
        archives: paths of archives, which are not looked into.
    """

    images: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, tuple[str, int]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    bare: dict[str, Counter[str]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)

    def remarks(self) -> list[str]:
        """What was passed over, in sentences."""
        found = []
        if self.skipped:
            names = [
                f"{name} ({count} image{'s' * (count > 1)}, {kind})" for name, (kind, count) in self.skipped.items()
            ]
            found.append(f"Skipped by name: {some(names, 20)}. Rename a folder to have it read.")
        if self.others:
            endings = ", ".join(f"{count} {ending}" for ending, count in self.others.most_common(8))
            count = self.others.total()
            found.append(
                f"Skipped {count} {'file that is no image' if count == 1 else 'files that are no images'}: {endings}."
            )
        if self.archives:
            found.append(f"Archives beside images are not read: {some(self.archives, 3)}. Unpack what is missing here.")
        for name, endings in self.bare.items():
            listed = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(3))
            found.append(f"{name}/ holds no image that can be read, only {listed}: it is no class here.")
        return found


def list_images(root: Path | Source) -> Listing:
    """List image files below a folder, or in a source.

    Hidden files and folders of systems are left out, and so are masks, results and copies that lie beside other
    folders. Links to folders are followed, each folder once.
    """
    found = Listing()
    held: dict[str, tuple[bool, Counter[str]]] = {}  # folder -> whether it has images, and its other files

    def note(error: OSError) -> None:
        below = Path(error.filename).relative_to(str(root)).as_posix()
        found.rejected.append(Rejected(printable(below), f"cannot be read ({error.strerror})"))

    for below, names, files in root.walk() if isinstance(root, Source) else _walk(root, note):
        before = "" if below == "." else f"{below}/"
        own = _sort_files(files, before, found)
        _prune(root, names, before, found, bool(own[0]))
        held[below] = (bool(own[0]), own[1])
        found.images += own[0]
    found.bare = _bare(held)
    found.images.sort(key=natural_key)
    return found


def _walk(root: Path, note: Callable[[OSError], None]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder below the root, folders in it, files in it), each folder once, however many links lead to it.

    A folder has its own name where it lies there, and that of a link only where it lies elsewhere.
    """
    seen: set[tuple[int, int]] = set()
    links = [root]
    while links:
        for folder, names, files in walk(links.pop(0), onerror=note):
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:  # a link that leads back
                names.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            yield Path(folder).relative_to(root).as_posix(), names, files
            links += [place for name in names if (place := Path(folder, name)).is_symlink()]


def _sort_files(files: list[str], before: str, found: Listing) -> tuple[list[str], Counter[str]]:
    """(images, endings of the others) of one folder."""
    images, others = [], Counter[str]()
    stems = {PurePosixPath(name).stem.casefold() for name in files}
    for name in files:
        if name.startswith("."):
            continue
        path = PurePosixPath(name)
        ending = path.suffix.lower()
        mask = _MASK_OF.fullmatch(path.stem.casefold())
        if ending in IMAGE_SUFFIXES and mask and mask[1] in stems:
            key = f"{before}*{path.stem[len(mask[1]) :]}{ending}"
            found.skipped[key] = ("masks", found.skipped.get(key, ("", 0))[1] + 1)
        elif ending in IMAGE_SUFFIXES:
            images.append(before + name)
        else:
            others[ending or "without an ending"] += 1
            if ending in _UNSUPPORTED:
                why = f"is a {ending} file, a kind that is not supported; convert it to PNG or TIFF"
                found.rejected.append(Rejected(printable(before + name), why))
            else:
                found.others[ending or "without an ending"] += 1
                found.tables += [printable(before + name)] if ending in _TABLES else []
                found.archives += [printable(before + name)] if is_archive(name) else []
    return images, others


def _prune(root: Path | Source, names: list[str], before: str, found: Listing, images: bool) -> None:
    """Remove the folders that are not walked into."""
    for name in [own for own in names if is_system(own)]:
        names.remove(name)
        _skip(_count(root, before + name), before + name, "system folder", found)
    for name, kind in skipped_names(names, images, lambda own: _folders(root, before + own)).items():
        names.remove(name)
        _skip(_count(root, before + name), before + name, kind, found)
    names.sort()


def _count(root: Path | Source, below: str) -> int:
    """Number of image files below a folder."""
    if isinstance(root, Source):
        return root.count_images(below)
    named = (file for _, _, files in walk(root / below) for file in files)
    return sum(PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES for file in named)


def _folders(root: Path | Source, below: str) -> list[str]:
    """Names of the folders in a folder; none where it cannot be read."""
    if isinstance(root, Source):
        return root.folders_in(below)
    try:
        with os.scandir(root / below) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _skip(count: int, name: str, kind: str, found: Listing) -> None:
    """Note a folder of so many images that is left out; of the same name in several folders there is one entry."""
    if not count:
        return
    key = printable(name)
    same = [other for other in found.skipped if other.rsplit("/", 1)[-1] == key.rsplit("/", 1)[-1] and "*" not in other]
    key = same[0] if same else key
    found.skipped[key] = (kind, found.skipped.get(key, ("", 0))[1] + count)


def _bare(held: dict[str, tuple[bool, Counter[str]]]) -> dict[str, Counter[str]]:
    """Topmost folders below the root that hold files, and no image at any depth."""
    full = {"."}
    for folder, (images, _) in held.items():
        if images:
            full |= {str(parent) for parent in (PurePosixPath(folder), *PurePosixPath(folder).parents)}
    bare: dict[str, Counter[str]] = {}
    for folder, (_, others) in held.items():
        if folder in full:
            continue
        chain = (PurePosixPath(folder), *PurePosixPath(folder).parents)
        top = next(str(own) for own, above in itertools.pairwise(chain) if str(above) in full)
        if others:
            bare.setdefault(printable(top), Counter()).update(others)
    return bare


def natural_key(path: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that puts 2 before 10, however long the numbers; the path itself breaks ties."""
    parts = re.split(r"(\d+)", path)  # text and numbers by turns
    for place in range(1, len(parts), 2):
        if not parts[place].isascii():
            parts[place] = "".join(str(unicodedata.decimal(digit)) for digit in parts[place])
        parts[place] = parts[place].lstrip("0")
    return [(len(part) if place % 2 else 0, part) for place, part in enumerate(parts)], path


def printable(path: str) -> str:
    """A path whose bytes that are not UTF-8 are written as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
