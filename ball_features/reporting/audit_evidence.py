"""The findings of an audit as evidence for the verdict."""

from __future__ import annotations

from ball_features.audit.findings import Audit
from ball_features.audit.summary import AuditSummary
from ball_features.reporting.evidence import AuditEvidence

__all__ = ["audit_evidence"]


def audit_evidence(found: Audit) -> AuditEvidence:
    """What an audit says of its images."""
    counted = AuditSummary.of(found)
    linked = {row for pair in found.pairs for row in (pair.first, pair.second)}
    linked |= {row for rows in found.exact for row in rows}
    conflicts = found.conflicts
    names = found.path.tolist()
    return AuditEvidence(
        images=counted.images,
        exact=counted.exact_duplicate_pairs,
        near=counted.near_duplicate_pairs,
        shared=counted.shared_field_pairs,
        in_pairs=len(linked),
        largest_group=counted.largest_group,
        groups=counted.groups,
        conflicts=len(conflicts),
        conflict_example=tuple(names[row] for row in conflicts[0]) if conflicts else (),
        overlay_accuracy=found.shortcuts.get("overlay, random folds", float("nan")),
        colour_accuracy=found.shortcuts.get("colour, grouped folds", float("nan")),
        majority=found.shortcuts.get("majority", float("nan")),
        series=len(counted.series),
    )
