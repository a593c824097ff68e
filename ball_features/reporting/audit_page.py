"""An audit for people: a summary for the terminal, and a page with the pairs side by side."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ball_features.cache import read_cache
from ball_features.dataset.audit import Audit, load_square
from ball_features.dataset.manifest import Manifest
from ball_features.dataset.pairs import orient
from ball_features.errors import CacheError
from ball_features.reporting.figures import thumbnail

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["cached_embeddings", "summary", "write_page"]

PAIRS_SHOWN = 40
KIND_IMAGES = 24


def cached_embeddings(path: Path, manifest: Manifest) -> np.ndarray:
    """Embeddings of the plain view, float (images, dim), in the manifest's order, matched by content.

    Raises:
        CacheError: The cache does not hold all images of the manifest.
    """
    cache = read_cache(path)
    rows = {digest: row for row, digest in enumerate(cache.sha256.tolist()) if cache.committed[row]}
    missing = sum(digest not in rows for digest in manifest.sha256)
    if missing:
        raise CacheError(
            f"{path} lacks {missing} of {len(manifest.path)} images. Bring it up to date with `ball extract`, or "
            "leave --cache out."
        )
    return cache.embeddings[[rows[digest] for digest in manifest.sha256], 0]


def _findings(found: Audit) -> list[tuple[str, str]]:
    facts = found.to_dict()
    share = 100 * facts["images_in_pairs"] / facts["images"]
    rows = [
        ("images", f"{facts['images']} ({', '.join(f'{k} {v}' for k, v in facts['classes'].items())})"),
        ("identical pixels", f"{facts['exact_duplicate_pairs']} pairs"),
        ("near-duplicates", f"{facts['near_duplicate_pairs']} pairs"),
        ("shared fields", f"{facts['shared_field_pairs']} pairs; {share:.0f} % of images share a view with another"),
        ("groups", f"{facts['groups']} that a split must keep together; the largest has {facts['largest_group']}"),
        ("label conflicts", f"{len(facts['label_conflicts'])} pairs that show the same under different labels"),
    ]
    for kind, item in facts["overlays"].items():
        classes = ", ".join(f"{name} {count}" for name, count in item["classes"].items())
        where = f" at x {item['box_px'][0]}-{item['box_px'][2]}, y {item['box_px'][1]}-{item['box_px'][3]} of 224" if (
            item["box_px"]
        ) else ""  # fmt: skip
        rows.append((f"overlay {kind}" if kind == "none" else kind, f"{item['images']} images ({classes}){where}"))
    rows.append(("overlay and class", f"{facts['overlay_class_mutual_information_bits']:.2f} bits in common"))
    if len(facts["encodings"]) > 1:
        kinds = "; ".join(
            f"{kind}: {', '.join(f'{name} {count}' for name, count in classes.items())}"
            for kind, classes in facts["encodings"].items()
        )
        rows.append(("kinds of file", kinds))
    for name, value in facts["shortcut_accuracy"].items():
        rows.append((f"{name}", f"{100 * value:.1f} % accuracy without looking at a cell"))
    rows.append(("likely series", f"{len(facts['series'])}, inferred from class, overlay and kind of file; not known"))
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
"""


def write_page(found: Audit, root: Path, path: Path) -> None:
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

    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in _findings(found))
    parts = [f"<h1>Audit of {len(found.path)} images</h1><table>{rows}</table>"]
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
    for kind in np.unique(found.overlay):
        own = np.flatnonzero(found.overlay == kind)
        parts.append(f"<h2>{html.escape(str(kind))}: {len(own)} images</h2>")
        for row in own[np.unique(np.linspace(0, len(own) - 1, min(KIND_IMAGES, len(own))).astype(int))]:
            parts.append(f"<figure>{picture(int(row))}</figure>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    text = f'<!doctype html><html lang="en"><head>{head}<title>Audit</title></head><body>{"".join(parts)}</body></html>'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
