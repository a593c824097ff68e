"""The findings of an audit as evidence for the verdict."""

from __future__ import annotations

from collections import Counter

from ball_features.audit.findings import Audit
from ball_features.reporting.evidence import AuditEvidence

__all__ = ["audit_evidence"]


def audit_evidence(found: Audit) -> AuditEvidence:
    """What an audit says of its images."""
    kinds = Counter(pair.kind for pair in found.pairs)
    linked = {row for pair in found.pairs for row in (pair.first, pair.second)}
    linked |= {row for rows in found.exact for row in rows}
    conflicts = found.conflicts
    sizes = Counter(found.group.tolist())
    names = found.path.tolist()
    return AuditEvidence(
        images=len(found.path),
        exact=sum(len(rows) * (len(rows) - 1) // 2 for rows in found.exact),
        near=kinds["near-duplicate"],
        shared=kinds["shared-field"],
        in_pairs=len(linked),
        largest_group=max(sizes.values()),
        groups=len(sizes),
        conflicts=len(conflicts),
        conflict_example=tuple(names[row] for row in conflicts[0]) if conflicts else (),
        overlay_accuracy=found.shortcuts.get("overlay, random folds", float("nan")),
        colour_accuracy=found.shortcuts.get("colour, grouped folds", float("nan")),
        majority=found.shortcuts.get("majority", float("nan")),
        series=len(found.series.series_trust),
    )
