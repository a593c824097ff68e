"""The page of `ball assess`: the verdict, the ladder, what the audit found, and the map of the embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.audit.summary import AuditSummary
from ball_features.cache import Cache
from ball_features.dataset.manifest import spread_rows
from ball_features.reporting.audit_page import audit_facts
from ball_features.reporting.audit_sections import OVERLAY_TEXT, overlay_counts
from ball_features.reporting.finding import Command
from ball_features.reporting.heat import Heat
from ball_features.reporting.ladder_page import LadderSection, ladder_section
from ball_features.reporting.map_columns import known_columns, plane, unit_length
from ball_features.reporting.markup import write_page
from ball_features.reporting.scatter import EmbeddingMap, embedding_map, told_apart
from ball_features.reporting.words import counted

__all__ = ["AssessSection", "write_assess_report"]

_MAP_IMAGES = 4000
_TITLE = "What is a score on these images worth?"


@dataclass(frozen=True, eq=False)
class AssessSection:
    """The one part of the page; `template` renders it.

    Attributes:
        about: images, classes and network in a sentence.
        ladder: verdict, ladder and table.
        overlays: images of each class by kind of burned-in overlay, or None.
        overlay_text: what such overlays do.
        facts: what the audit found, a name and a text each.
        audit_command: command that shows the pictures of the audit.
        map: map of the embeddings.
    """

    about: str
    ladder: LadderSection
    overlays: Heat | None
    overlay_text: str
    facts: list[tuple[str, str]]
    audit_command: str
    map: EmbeddingMap | None
    template: str = "assess_section.html"


def write_assess_report(out: Path, folder: Path, cache: Cache, groups: Path, found: AuditSummary, images: str) -> Path:
    """Write the page.

    Args:
        out: file to write.
        folder: folder of the ladder, with its verdict.
        cache: embeddings of the images.
        groups: groups file of the audit.
        found: what the audit found.
        images: folder of the images, for a command.

    Raises:
        DataError: The folder holds no ladder, or the page cannot be written.
    """
    command = Command("audit", (images,), {"out": "groups.csv", "page": "audit.html"})
    section = AssessSection(
        about=_about(cache),
        ladder=ladder_section(folder),
        overlays=overlay_counts(found),
        overlay_text=OVERLAY_TEXT,
        facts=audit_facts(found),
        audit_command=str(command),
        map=_map(cache, str(groups)),
    )
    return write_page(out, "report.html", _TITLE, sections=[section], side_by_side=None)


def _about(cache: Cache) -> str:
    names, count = np.unique(cache.label, return_counts=True)
    classes = ", ".join(f"{name} {number}" for name, number in zip(names.tolist(), count.tolist(), strict=True))
    random = " with random weights" if cache.attributes.get("weights") == "random" else ""
    return (
        f"{counted(len(cache.path), 'image')} in {len(names)} classes ({classes}), seen by the network {cache.backbone}"
        f"{random}. A score is the share of test images that a model gets right."
    )


def _map(cache: Cache, groups: str) -> EmbeddingMap | None:
    rows = spread_rows(len(cache.path), _MAP_IMAGES)
    if len(rows) < 3:
        return None
    colourings = {"class": told_apart(cache.label[rows])}
    words = [f"{path}: {label}" for path, label in zip(cache.path[rows], cache.label[rows], strict=True)]
    for column, values in known_columns(cache, groups, {}).items():
        colourings[f"{column} (sheet)" if column in colourings else column] = told_apart(values[rows])
        words = [f"{word}, {column} {value}" for word, value in zip(words, values[rows], strict=True)]
    return embedding_map(plane(unit_length(cache, rows)), words, colourings)
