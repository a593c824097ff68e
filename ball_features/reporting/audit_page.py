"""An audit for people: a summary for the terminal, and a page with pictures of what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.audit.findings import Audit
from ball_features.audit.orientation import orient
from ball_features.audit.overlays import NO_OVERLAY
from ball_features.audit.series import Trust
from ball_features.audit.traits import load_square
from ball_features.cache import read_cache
from ball_features.dataset.manifest import Manifest, spread_rows
from ball_features.errors import CacheError
from ball_features.reporting.markup import Cell, Picture, Row, Table, thumbnail, write_page

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["cached_embeddings", "summary", "write_audit"]

PAIRS_SHOWN = 40
KIND_IMAGES = 24
WHOLE_IMAGES = 6
ODD_IMAGES = 24
_ZOOM_MARGIN = 0.4  # of the box, on each side
_ZOOM_PX = 240


def cached_embeddings(path: Path, manifest: Manifest) -> np.ndarray:
    """Embeddings of the plain view, float (images, dim), in the manifest's order, matched by content.

    Those of images that the cache knows to be unusable are NaN.

    Raises:
        CacheError: The cache does not know all images of the manifest.
    """
    cache = read_cache(path)
    rows = {digest: row for row, digest in enumerate(cache.sha256.tolist()) if cache.committed[row]}
    rejected = {item.sha256 or item.path for item in cache.rejected}  # without a hash where a twin was at fault
    here = np.array([digest in rows for digest in manifest.sha256])
    known = [{digest, name} & rejected for digest, name in zip(manifest.sha256, manifest.path, strict=True)]
    missing = sum(not found and not own for found, own in zip(here, known, strict=True))
    if missing:
        raise CacheError(
            f"{path} lacks {missing} of {len(manifest.path)} images. Bring it up to date with `ball extract`, or "
            "leave the cache out."
        )
    found = np.full((len(here), cache.embeddings.shape[2]), np.nan, dtype=cache.embeddings.dtype)
    found[here] = cache.embeddings[[rows[digest] for digest in manifest.sha256 if digest in rows], 0]
    return found


def _how_sure(parts: dict[str, Any]) -> str:
    """Agreement beyond chance over the images of series or batches."""
    images = sum(part["images"] for part in parts.values())
    mean = sum(part["images"] * part["confidence"] for part in parts.values()) / images
    return f"confidence {mean:.2f} of 1 (stain of other images, beyond chance)"


def _findings(found: Audit) -> list[tuple[str, str]]:
    facts = found.to_dict()
    share = 100 * facts["images_in_pairs"] / facts["images"]
    rows = [
        ("images", f"{facts['images']} ({', '.join(f'{k} {v}' for k, v in facts['classes'].items())})"),
        ("identical pixels", f"{facts['exact_duplicate_pairs']} pairs"),
        ("near-duplicates", f"{facts['near_duplicate_pairs']} pairs"),
        ("shared fields", f"{facts['shared_field_pairs']} pairs; {share:.0f} % of images show part of another's field"),
        ("groups", f"{facts['groups']} that a split must keep together; the largest has {facts['largest_group']}"),
        ("label conflicts", f"{len(facts['label_conflicts'])} pairs that show the same under different labels"),
    ]
    for kind, item in facts["overlays"].items():
        classes = ", ".join(f"{name} {count}" for name, count in item["classes"].items())
        where = f" at x {item['box_px'][0]}-{item['box_px'][2]}, y {item['box_px'][1]}-{item['box_px'][3]} of 224" if (
            item["box_px"]
        ) else ""  # fmt: skip
        rows.append((f"overlay {kind}" if kind == "none" else kind, f"{item['images']} images ({classes}){where}"))
    bits = facts["overlay_class_mutual_information_bits"]
    rows.append(("overlay and class", f"{bits:.2f} bits of mutual information; 0: overlays tell nothing of the class"))
    if len(facts["encodings"]) > 1:
        kinds = "; ".join(
            f"{kind}: {', '.join(f'{name} {count}' for name, count in classes.items())}"
            for kind, classes in facts["encodings"].items()
        )
        rows.append(("kinds of file", kinds))
    for name, value in facts["shortcut_accuracy"].items():
        rows.append((f"{name}", f"{100 * value:.1f} % accuracy without looking at a cell"))
    rows.append(("likely series", f"{len(facts['series'])}, inferred; {_how_sure(facts['series'])}"))
    rows.append(
        (
            "likely batches",
            f"{len(facts['batches'])}, by stain and file order within class, overlay and kind of file; "
            f"{_how_sure(facts['batches'])}",
        )
    )
    rows.append(("outliers", f"{len(facts['outliers'])} blank, blurred or oddly coloured images"))
    if facts["rejected"]:
        rows.append(("rejected", f"{len(facts['rejected'])} files that cannot be decoded"))
    return rows


def summary(found: Audit) -> RenderableType:
    """The findings as a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _findings(found):
        table.add_row(Text(name, style="bold"), Text(value))
    return table


@dataclass(frozen=True)
class _Figure:
    """Pictures side by side with a caption; `zoom` shows them at their own size."""

    pictures: tuple[Picture, ...]
    caption: str = ""
    zoom: bool = False


@dataclass(frozen=True)
class _Section:
    """A heading with text, a table and figures below."""

    title: str
    text: str = ""
    table: Table | None = None
    figures: tuple[_Figure, ...] = ()


class _Album:
    """Pictures of the images of an audit."""

    def __init__(self, found: Audit, root: Path) -> None:
        self._found, self._root = found, root

    def whole(self, row: int, orientation: int = 0) -> Picture:
        pixels = orient(load_square(self._root / self._found.path[row]), orientation)
        return Picture(str(self._found.path[row]), thumbnail(pixels))

    def zoomed(self, row: int, box: tuple[int, int, int, int]) -> Picture:
        pixels = _zoom(load_square(self._root / self._found.path[row]), box)
        return Picture(f"{self._found.path[row]}, enlarged", thumbnail(pixels, _ZOOM_PX))


def write_audit(found: Audit, root: Path, path: Path) -> None:
    """Write the findings as one self-contained HTML file, with thumbnails of pairs and overlays.

    Args:
        found: audit to show.
        root: image folder.
        path: file to write.

    Raises:
        DataError: The file cannot be written.
    """
    album = _Album(found, root)
    sections = [*_copies(found, album), *_pairs(found, album), *_overlays(found, album), *_series(found)]
    sections += _outliers(found, album)
    facts = _findings(found)
    write_page(path, "audit.html", "Audit", images=len(found.path), facts=facts, sections=sections)


def _copies(found: Audit, album: _Album) -> list[_Section]:
    copies = [(rows[0], row) for rows in found.exact for row in rows[1:]]
    sections = []
    for title, linked in (("Label conflicts", found.conflicts), ("Identical pixels", copies)):
        figures = tuple(
            _Figure((album.whole(one), album.whole(two)), f"{found.path[one]} and {found.path[two]}")
            for one, two in linked[:PAIRS_SHOWN]
        )
        if figures:
            sections.append(_Section(f"{title}: {len(figures)} of {len(linked)}", figures=figures))
    return sections


def _pairs(found: Audit, album: _Album) -> list[_Section]:
    rng = np.random.default_rng(0)
    sections = []
    for kind in ("near-duplicate", "shared-field"):
        pairs = [pair for pair in found.pairs if pair.kind == kind]
        shown = sorted(rng.permutation(len(pairs))[:PAIRS_SHOWN].tolist())
        figures = tuple(
            _Figure(
                (album.whole(pair.first), album.whole(pair.second, pair.orientation)),
                f"{found.path[pair.first]} and {found.path[pair.second]}: shifted by {pair.shift_x_px}, "
                f"{pair.shift_y_px} px, correlation {pair.score:.2f}",
            )
            for pair in (pairs[place] for place in shown)
        )
        sections.append(_Section(f"{kind}s: {len(shown)} of {len(pairs)}", figures=figures))
    return sections


def _overlays(found: Audit, album: _Album) -> list[_Section]:
    sections = []
    for number, kind in enumerate([*found.overlays.names, NO_OVERLAY]):
        own = np.flatnonzero(found.overlay == kind)
        if not len(own):
            continue
        box = found.overlays.box(number) if kind != NO_OVERLAY else _around(found)
        figures, text = [], ""
        if box is not None:
            text = "The overlay, enlarged:" if kind != NO_OVERLAY else "The place of the others' overlay, enlarged:"
            figures = [_Figure((album.zoomed(int(row), box),), zoom=True) for row in _spread(own, KIND_IMAGES)]
        figures += [_Figure((album.whole(int(row)),)) for row in _spread(own, WHOLE_IMAGES)]
        sections.append(_Section(f"{kind}: {len(own)} images", text, figures=tuple(figures)))
    return sections


def _series(found: Audit) -> list[_Section]:
    trusted = (("series", found.series.series_trust), ("batches", found.series.batch_trust))
    return [_Section(f"Likely {title}", table=_trust_table(own, title)) for title, own in trusted]


def _outliers(found: Audit, album: _Album) -> list[_Section]:
    if not found.outlier:
        return []
    figures = tuple(
        _Figure((album.whole(int(row)),), f"{found.path[row]}: {found.outlier[int(row)]}")
        for row in _spread(np.array(sorted(found.outlier)), ODD_IMAGES)
    )
    return [_Section(f"Outliers: {len(figures)} of {len(found.outlier)}", figures=figures)]


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most so many of the rows, evenly spread."""
    return rows[spread_rows(len(rows), count)]


def _around(found: Audit) -> tuple[int, int, int, int] | None:
    """The box that holds those of all kinds."""
    boxes = np.array([found.overlays.box(number) for number in range(len(found.overlays.names))]).reshape(-1, 4)
    if not len(boxes):
        return None
    left, top, right, bottom = (int(edge) for edge in (*boxes[:, :2].min(0), *boxes[:, 2:].max(0)))
    return left, top, right, bottom


def _zoom(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The part of an image around a box, enlarged so that its longer side is 240 px."""
    from PIL import Image

    left, top, right, bottom = box
    margin = round(_ZOOM_MARGIN * max(right - left, bottom - top))
    part = pixels[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin]
    scale = _ZOOM_PX / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    return np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST))


def _trust_table(trusted: dict[str, Trust], title: str) -> Table:
    header = (title, "images", "confidence", "agreement in stain", "agreement in file order", "by chance")
    rows = tuple(
        Row(
            (
                Cell(name),
                Cell(str(own.images), float(own.images)),
                *(Cell(f"{value:.2f}", value) for value in (own.confidence, own.stain, own.order, own.chance)),
            )
        )
        for name, own in trusted.items()
    )
    return Table(header, rows, f"Likely {title}")
