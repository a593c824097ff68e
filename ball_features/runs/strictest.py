"""The model that `save="best"` saves: the best by the strictest protocol that was run on the same cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.config import PROTOCOLS
from ball_features.errors import DataError
from ball_features.evaluation.stored_results import read_ladder, read_measurement
from ball_features.files import read_json

__all__ = ["Choice", "choose_best"]

# From the most lenient to the strictest, as the rungs of the ladder; those of one number test the same.
_STRICTNESS = {
    "holdout": 0,
    "cv": 0,
    "given": 1,
    "group-cv": 2,
    "block-cv": 3,
    "patient-cv": 4,
    "leave-group-out": 5,
    "leave-site-out": 6,
}
_SAME = ("images_sha256", "cache_fingerprint", "classes")  # of runs that can be compared


@dataclass(frozen=True)
class Choice:
    """A model to save.

    Attributes:
        model: its name.
        note: which run chose it, for the reader; "" where the present run did.
    """

    model: str
    note: str = ""


@dataclass(frozen=True)
class _Earlier:
    """A run on the same cache: how strict it is, when it was made, and the figure of each model."""

    strictness: int
    created: str
    name: str
    protocol: str
    scores: dict[str, float]


def choose_best(root: Path, details: Mapping[str, Any], models: Sequence[str]) -> Choice:
    """Choose a model by the strictest protocol that was run: of this run, or of earlier ones in the same folder.

    Args:
        root: folder of the runs.
        details: contents of the present run's `run.json`.
        models: names of the models that can be saved, the first of the present table first.
    """
    own = _STRICTNESS[details["config"]["protocol"]]
    found = [run for file in sorted(root.glob("*/run.json")) if (run := _read(file, details)) is not None]
    stricter = [run for run in found if run.strictness > own and sum(name in run.scores for name in models) > 1]
    if not stricter:
        return Choice(models[0])
    strictest = max(stricter, key=lambda item: (item.strictness, item.created))
    known = [name for name in models if name in strictest.scores]
    best = max(known, key=lambda name: strictest.scores[name])
    note = f"Saved {best}, the best of {len(known)} models under {strictest.protocol} ({strictest.name})"
    if best == models[0]:
        return Choice(best, f"{note} too.")
    note += f", the strictest protocol that was run on this cache. By this run's table it would be {models[0]}."
    return Choice(best, note)


def _read(file: Path, details: Mapping[str, Any]) -> _Earlier | None:
    """An earlier run on the same cache with the same adaptation; None for any other, or one that cannot be read."""
    try:
        own = read_json(file)
        if any(own[key] != details[key] for key in _SAME):
            return None
        if own["config"].get("adapt", "none") != details["config"]["adapt"]:
            return None
        rungs = own.get("rungs")
        if rungs:
            last = max(rungs, key=lambda rung: _STRICTNESS.get(rung["protocol"], -1))
            protocol = last["protocol"]
            rows = [row for row in read_ladder(file.parent) if row.rung == last["rung"]]
        else:
            protocol, rows = own["config"]["protocol"], read_measurement(file.parent).models
        if protocol not in PROTOCOLS:
            return None
        scores = {row.model: row.accuracy for row in rows}
        return _Earlier(_STRICTNESS[protocol], str(own["created"]), file.parent.name, protocol, scores)
    except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
