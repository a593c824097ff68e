"""Numbers in the sentences of a verdict."""

from __future__ import annotations

from ball_features.config import FitConfig
from ball_features.reporting.evidence import Evidence, ModelEvidence
from ball_features.reporting.finding import Command

__all__ = ["cache_of", "extract_again", "fit_again", "folder_of", "groups_of", "interval", "percent", "points"]


_MOST_DIGITS = 3
_LEAST_FOLDS = 3  # to train, validate and test


def percent(share: float, digits: int = 1) -> str:
    """A share as text, in per cent: 0 and 100 only where nothing or all is meant, with more digits where it is not."""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    text = f"{100 * share:.{digits}f}"
    if float(text) in (0, 100) and digits < _MOST_DIGITS:
        return percent(share, digits + 1)
    return f"{text} %"


def points(share: float) -> str:
    """A difference of shares as text, in percentage points."""
    return f"{100 * share:.1f} points"


def interval(model: ModelEvidence) -> str:
    """Accuracy with its 95 % interval as text."""
    return f"{percent(model.accuracy)} (95 % CI {100 * model.low:.0f} to {100 * model.high:.0f})"


def fit_again(evidence: Evidence, protocol: str, unit: str) -> str:
    """The command that fits under a protocol that keeps units together; "" where a class has too few of them for it.

    Args:
        evidence: all results.
        protocol: name of the protocol.
        unit: what it keeps together, a key of `DataEvidence.fewest`.
    """
    data, usual = evidence.data, FitConfig().folds
    fewest = usual if data is None else data.fewest.get(unit, usual)
    if fewest < _LEAST_FOLDS:
        return ""
    options: dict[str, object] = {"protocol": protocol}
    if data is None or data.groups:
        options["groups"] = groups_of(evidence)
    if fewest < usual:
        options["folds"] = fewest
    return str(Command("fit", (cache_of(evidence),), options))


def extract_again(evidence: Evidence, **options: object) -> str:
    """The command that embeds the images anew, from the sheet that they were read with."""
    sheet = {"sheet": "SHEET.csv"} if evidence.data and evidence.data.sheet else {}
    return str(Command("extract", (folder_of(evidence),), options | sheet))


def folder_of(evidence: Evidence) -> str:
    """Folder of the images for commands; a placeholder where it is not known."""
    return (evidence.data.folder if evidence.data else "") or "IMAGES"


def cache_of(evidence: Evidence) -> str:
    """Path of the cache for commands; a placeholder where it is not known."""
    return evidence.data.cache if evidence.data else "CACHE.h5"


def groups_of(evidence: Evidence) -> str:
    """Path of the groups file for commands; a placeholder where it is not known."""
    return (evidence.data.groups if evidence.data else "") or "groups.csv"
