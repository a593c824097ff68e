"""The page of `ball assess`: the verdict, the ladder, what the audit found, and the map of the embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ball_features.audit.summary import AuditSummary
from ball_features.cache import Cache
from ball_features.dataset.manifest import spread_rows
from ball_features.evaluation.stored_results import read_ladder
from ball_features.reporting.answer_colours import Answers, ladder_answers
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
        answered_by: model whose predictions colour the map; "" where none do.
    """

    about: str
    ladder: LadderSection
    overlays: Heat | None
    overlay_text: str
    facts: list[tuple[str, str]]
    audit_command: str
    map: EmbeddingMap | None
    answered_by: str = ""
    template: str = "assess_section.html"


def write_assess_report(
    out: Path, folder: Path, cache: Cache, groups: Path, found: AuditSummary, images: str, remark: str = ""
) -> Path:
    """Write the page.

    Args:
        out: file to write.
        folder: folder of the ladder, with its verdict.
        cache: embeddings of the images.
        groups: groups file of the audit.
        found: what the audit found.
        images: folder of the images, for a command.
        remark: what a reader should know of the groups file, or "".

    Raises:
        DataError: The folder holds no ladder, or the page cannot be written.
    """
    command = Command("audit", (images,), {"out": "groups.csv", "page": "audit.html"})
    model, answers = _answers(folder)
    rungs = ladder_section(folder)
    section = AssessSection(
        about=_about(cache),
        ladder=replace(rungs, notes=[*([remark] if remark else []), *rungs.notes]),
        overlays=overlay_counts(found),
        overlay_text=OVERLAY_TEXT,
        facts=audit_facts(found),
        audit_command=str(command),
        map=_map(cache, str(groups), answers),
        answered_by=model if answers else "",
    )
    return write_page(out, "report.html", _TITLE, named=False, sections=[section], side_by_side=None)


def _about(cache: Cache) -> str:
    names, count = np.unique(cache.label, return_counts=True)
    classes = ", ".join(f"{name} {number}" for name, number in zip(names.tolist(), count.tolist(), strict=True))
    random = " with random weights" if cache.attributes.get("weights") == "random" else ""
    return (
        f"{counted(len(cache.path), 'image')} in {len(names)} classes ({classes}), seen by the network {cache.backbone}"
        f"{random}. A score is the share of test images that a model gets right."
    )


def _answers(folder: Path) -> tuple[str, dict[str, Answers]]:
    """The best model with a network on the first rung, and its answers on the first and on the last."""
    rows = read_ladder(folder)
    rungs = list(dict.fromkeys(row.rung for row in rows))
    first = [row for row in rows if row.rung == rungs[0]]
    best = max([row for row in first if row.kind != "shortcut"] or first, key=lambda row: row.accuracy)
    return best.model, ladder_answers(folder, dict.fromkeys([rungs[0], rungs[-1]]), best.model)


def _map(cache: Cache, groups: str, answers: Mapping[str, Answers]) -> EmbeddingMap | None:
    rows = spread_rows(len(cache.path), _MAP_IMAGES)
    if len(rows) < 3:
        return None
    paths, label = cache.path[rows].tolist(), cache.label[rows]
    colourings = {"class": told_apart(label)}
    words = [f"{path}: {name}" for path, name in zip(paths, label, strict=True)]
    for rung, own in answers.items():
        colourings[f"prediction ({rung})"] = own.predicted(paths, label)
        colourings[f"error ({rung})"] = own.errors(paths)
        said = (f", predicted {own.first[path]} ({rung})" if path in own.first else "" for path in paths)
        words = [f"{word}{more}" for word, more in zip(words, said, strict=True)]
    for column, values in known_columns(cache, groups, {}).items():
        colourings[f"{column} (sheet)" if column in colourings else column] = told_apart(values[rows])
        words = [f"{word}, {column} {value}" for word, value in zip(words, values[rows], strict=True)]
    return embedding_map(plane(unit_length(cache, rows)), words, colourings)
