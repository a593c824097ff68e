"""An audit for people: a summary for the terminal, and a page with the pairs side by side."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.audit.findings import Audit
from ball_features.audit.overlays import NO_OVERLAY
from ball_features.audit.positions import orient
from ball_features.audit.series import Trust
from ball_features.audit.traits import load_square
from ball_features.cache import read_cache
from ball_features.dataset.manifest import Manifest, spread_rows
from ball_features.errors import CacheError
from ball_features.reporting.figures import thumbnail
from ball_features.reporting.markup import frame

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
            "leave --cache out."
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


_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}
figure{display:inline-block;margin:.4rem}figcaption{font-size:.8rem;max-width:21rem;overflow-wrap:anywhere}
img{width:160px;height:160px;margin-right:2px}
img.zoom{width:auto;height:120px}
"""


def write_audit(found: Audit, root: Path, path: Path) -> None:
    """Write the findings as one self-contained HTML file, with thumbnails of pairs and overlays.

    Args:
        found: The audit.
        root: The image folder.
        path: The file to write.
    """

    def picture(row: int, orientation: int = 0) -> str:
        name = html.escape(str(found.path[row]))
        pixels = orient(load_square(root / found.path[row]), orientation)
        return f'<img loading="lazy" alt="{name}" src="{thumbnail(pixels)}">'

    def zoomed(row: int, box: tuple[int, int, int, int]) -> str:
        name = html.escape(f"{found.path[row]}, enlarged")
        return (
            f'<img loading="lazy" class="zoom" alt="{name}" src="{thumbnail(_zoom(found, root, row, box), _ZOOM_PX)}">'
        )

    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in _findings(found))
    parts = [f"<h1>Audit of {len(found.path)} images</h1><table>{rows}</table>"]
    copies = [(rows[0], row) for rows in found.exact for row in rows[1:]]
    for title, linked in (("Label conflicts", found.conflicts), ("Identical pixels", copies)):
        if linked:
            parts.append(f"<h2>{title}: {min(len(linked), PAIRS_SHOWN)} of {len(linked)}</h2>")
        for one, two in linked[:PAIRS_SHOWN]:
            names = html.escape(f"{found.path[one]} and {found.path[two]}")
            parts.append(f"<figure>{picture(one)}{picture(two)}<figcaption>{names}</figcaption></figure>")
    rng = np.random.default_rng(0)
    for kind in ("near-duplicate", "shared-field"):
        pairs = [pair for pair in found.pairs if pair.kind == kind]
        shown = sorted(rng.permutation(len(pairs))[:PAIRS_SHOWN].tolist())
        parts.append(f"<h2>{kind}s: {len(shown)} of {len(pairs)}</h2>")
        for pair in (pairs[place] for place in shown):
            names = f"{found.path[pair.first]} and {found.path[pair.second]}"
            moved = f"shifted by {pair.shift_x_px}, {pair.shift_y_px} px, correlation {pair.score:.2f}"
            parts.append(
                f"<figure>{picture(pair.first)}{picture(pair.second, pair.orientation)}"
                f"<figcaption>{html.escape(names)}: {moved}</figcaption></figure>"
            )
    for number, kind in enumerate([*found.overlays.names, NO_OVERLAY]):
        own = np.flatnonzero(found.overlay == kind)
        if not len(own):
            continue
        box = found.overlays.box(number) if kind != NO_OVERLAY else _around(found)
        parts.append(f"<h2>{html.escape(str(kind))}: {len(own)} images</h2>")
        if box is not None:
            parts.append("<p>" + ("The place, enlarged" if kind != NO_OVERLAY else "Where others have one") + ":</p>")
            parts += [f"<figure>{zoomed(int(row), box)}</figure>" for row in _spread(own, KIND_IMAGES)]
        parts += [f"<figure>{picture(int(row))}</figure>" for row in _spread(own, WHOLE_IMAGES)]
    for title, trusted in (("series", found.series.series_trust), ("batches", found.series.batch_trust)):
        parts.append(f"<h2>Likely {title}</h2>{_trust_table(trusted)}")
    if found.outlier:
        parts.append(f"<h2>Outliers: {min(len(found.outlier), ODD_IMAGES)} of {len(found.outlier)}</h2>")
        for row in _spread(np.array(sorted(found.outlier)), ODD_IMAGES):
            caption = html.escape(f"{found.path[row]}: {found.outlier[int(row)]}")
            parts.append(f"<figure>{picture(int(row))}<figcaption>{caption}</figcaption></figure>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(frame("Audit", _STYLE, parts), encoding="utf-8")


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


def _zoom(found: Audit, root: Path, row: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """The part of an image around a box, enlarged so that its longer side is 240 px."""
    from PIL import Image

    left, top, right, bottom = box
    margin = round(_ZOOM_MARGIN * max(right - left, bottom - top))
    part = load_square(root / found.path[row])[
        max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin
    ]
    scale = _ZOOM_PX / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    return np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST))


def _trust_table(trusted: dict[str, Trust]) -> str:
    names = ("images", "confidence", "agreement in stain", "agreement in file order", "by chance")
    lines = [f"<tr><th></th>{''.join(f'<th>{name}</th>' for name in names)}</tr>"]
    for name, own in trusted.items():
        values = "".join(f"<td>{value:.2f}</td>" for value in (own.confidence, own.stain, own.order, own.chance))
        lines.append(f"<tr><th>{html.escape(name)}</th><td>{own.images}</td>{values}</tr>")
    return f"<table>{''.join(lines)}</table>"
