"""An audit for people: a summary for the terminal, and a page with pictures of what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ball_features.audit.findings import Audit
from ball_features.audit.overlays import NO_OVERLAY
from ball_features.audit.summary import AuditSummary, OverlaySummary
from ball_features.cache import read_cache
from ball_features.config.paths import shareable
from ball_features.dataset.manifest import Manifest
from ball_features.errors import CacheError
from ball_features.reporting.audit_evidence import audit_evidence
from ball_features.reporting.audit_sections import audit_sections
from ball_features.reporting.evidence import DataEvidence, Evidence
from ball_features.reporting.finding import Finding
from ball_features.reporting.markup import Thumbnails, write_page
from ball_features.reporting.verdict import verdict
from ball_features.reporting.words import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["audit_facts", "audit_verdict", "cached_embeddings", "summary", "write_audit"]

_BY_CHANCE = 0.05  # agreement beyond chance below which a series is no more alike than any images


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


def _inferred(parts: dict[str, dict[str, float]], by: str) -> str:
    """Number of series or batches, what they were inferred from, and their agreement beyond chance."""
    images = sum(part["images"] for part in parts.values())
    mean = sum(part["images"] * part["confidence"] for part in parts.values()) / images
    if mean < _BY_CHANCE:
        return f"none: parts by {by} are no more alike in stain than by chance"
    return (
        f"{len(parts)}, inferred from {by}; confidence {mean:.2f} (0: as by chance, 1: certain), from how well the "
        "stain of the other images fits"
    )


def _groups(of: AuditSummary) -> str:
    if of.largest_group <= 1:
        return "none: no image shows the same as another one"
    return f"the images make {of.groups} that a split must keep together; the largest has {of.largest_group} images"


def _counts(classes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in classes.items())


def _where(overlay: OverlaySummary) -> str:
    if overlay.box_px is None:
        return ""
    left, top, right, bottom = overlay.box_px
    return f" at x {left}-{right}, y {top}-{bottom} of 224"


def _overlays(of: AuditSummary) -> list[tuple[str, str]]:
    rows = []
    for kind, item in of.overlays.items():
        name = f"overlay {kind}" if kind == NO_OVERLAY else kind
        rows.append((name, f"{item.images} images ({_counts(item.classes)}){_where(item)}"))
    share = np.array(list(of.classes.values())) / sum(of.classes.values())
    told = of.overlay_class_mutual_information_bits / max(float(-(share * np.log2(share)).sum()), 1e-9)
    said = f"the overlay removes {100 * told:.0f} % of the uncertainty about the class (entropy)"
    return [*rows, ("overlay and class", said)]


def audit_facts(of: AuditSummary) -> list[tuple[str, str]]:
    """What an audit found, a name and a text each."""
    share = 100 * of.images_in_pairs / of.images
    rows = [
        ("images", f"{of.images} ({_counts(of.classes)})"),
        ("identical pixels", counted(of.exact_duplicate_pairs, "pair")),
        ("near-duplicates", counted(of.near_duplicate_pairs, "pair")),
        ("shared fields", f"{counted(of.shared_field_pairs, 'pair')}, each of which show part of one field"),
        ("in such pairs", f"{of.images_in_pairs} of {counted(of.images, 'image')} ({share:.0f} %)"),
        ("groups", _groups(of)),
        ("label conflicts", f"{counted(len(of.label_conflicts), 'pair')} that show the same under different labels"),
    ]
    if set(of.overlays) <= {NO_OVERLAY}:
        rows.append(("burned-in overlays", "none was found: no scale bar or text repeats at one place"))
    else:
        rows += _overlays(of)
    if len(of.encodings) > 1:
        rows.append(("kinds of file", "; ".join(f"{kind}: {_counts(own)}" for kind, own in of.encodings.items())))
    for name, value in of.shortcut_accuracy.items():
        rows.append((f"{name}", f"{100 * value:.1f} % accuracy without seeing a cell's shape"))
    rows.append(("likely series", _inferred(of.series, "class, overlay and kind of file")))
    rows.append(("likely batches", _inferred(of.batches, "stain and file order within a series")))
    rows.append(("outliers", f"{len(of.outliers)} blank, blurred or oddly coloured images"))
    if of.rejected:
        rows.append(("rejected", f"{len(of.rejected)} files that cannot be decoded"))
    return rows


def summary(found: Audit) -> RenderableType:
    """The findings as a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in audit_facts(AuditSummary.of(found)):
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def audit_verdict(found: Audit, groups: Path | str = "") -> list[Finding]:
    """The verdict on the images alone.

    Args:
        found: audit in question.
        groups: groups file that was written of it, for commands.
    """
    data = DataEvidence(images=len(found.path), groups=shareable(str(groups)))
    return verdict(Evidence(data=data, audit=audit_evidence(found)))


def write_audit(found: Audit, root: Path, path: Path, groups: Path | str = "") -> list[str]:
    """Write the findings as one self-contained HTML file, with thumbnails of overlays and pairs.

    A file that is no longer the one that was audited shows none.

    Args:
        found: audit to show.
        root: image folder.
        path: file to write.
        groups: groups file that was written of the audit, for commands.

    Returns:
        Remarks on pictures that were left out.

    Raises:
        DataError: The file cannot be written.
    """
    pictures = Thumbnails(root, found, "audited")
    sections = audit_sections(found, pictures)
    notes = pictures.notes()
    write_page(
        path,
        "audit.html",
        "Audit",
        images=len(found.path),
        verdict=audit_verdict(found, groups),
        facts=audit_facts(AuditSummary.of(found)),
        sections=sections,
        picture_notes=notes,
    )
    return notes
