"""Numbers in the sentences of a verdict."""

from __future__ import annotations

from ball_features.reporting.evidence import Evidence, ModelEvidence

__all__ = ["cache_of", "groups_of", "interval", "percent", "points"]


def percent(share: float, digits: int = 1) -> str:
    """A share as text, in per cent."""
    return f"{100 * share:.{digits}f} %"


def points(share: float) -> str:
    """A difference of shares as text, in percentage points."""
    return f"{100 * share:.1f} points"


def interval(model: ModelEvidence) -> str:
    """Accuracy with its 95 % interval as text."""
    return f"{percent(model.accuracy)} (95 % CI {100 * model.low:.0f} to {100 * model.high:.0f})"


def cache_of(evidence: Evidence) -> str:
    """Path of the cache for commands; a placeholder where it is not known."""
    return evidence.data.cache if evidence.data else "CACHE.h5"


def groups_of(evidence: Evidence) -> str:
    """Path of the groups file for commands; a placeholder where it is not known."""
    return evidence.data.groups if evidence.data else "groups.csv"
