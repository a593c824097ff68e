"""The findings of an audit as evidence for the verdict."""

from __future__ import annotations

from collections import Counter

from ball_features.audit.findings import Audit
from ball_features.reporting.evidence import AuditEvidence

__all__ = ["audit_evidence"]


def audit_evidence(found: Audit) -> AuditEvidence:
    """Numbers of an audit that the verdict rests on."""
    kinds = Counter(pair.kind for pair in found.pairs)
    sizes = Counter(found.group.tolist())
    conflicts = found.conflicts
    example = tuple(str(found.path[row]) for row in conflicts[0]) if conflicts else ()
    return AuditEvidence(
        images=len(found.path),
        exact=sum(len(rows) * (len(rows) - 1) // 2 for rows in found.exact),
        near=kinds["near-duplicate"],
        shared=kinds["shared-field"],
        in_pairs=len({row for pair in found.pairs for row in (pair.first, pair.second)}),
        largest_group=max(sizes.values(), default=1),
        groups=len(sizes),
        conflicts=len(conflicts),
        conflict_example=example,
        overlay_accuracy=found.shortcuts.get("overlay, random folds", float("nan")),
        colour_accuracy=found.shortcuts.get("colour, grouped folds", float("nan")),
        majority=max(Counter(found.label.tolist()).values()) / len(found.label),
        series=len(found.series.series_trust),
    )
