"""Runs compared with each other where they tested the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ball_features.dataset.units import merge_units
from ball_features.errors import DataError
from ball_features.evaluation.across_runs import Candidate, Standing, best_of_runs, standings
from ball_features.evaluation.results import BestOf
from ball_features.evaluation.run_details import read_details
from ball_features.evaluation.stored_predictions import read_predictions
from ball_features.evaluation.stored_results import PREDICTIONS, read_measurement
from ball_features.files import read_csv
from ball_features.reporting.words import counted

__all__ = ["Comparable", "choice_of_runs", "comparable_runs"]


@dataclass(frozen=True, eq=False)
class _Tested:
    """What a run tested.

    Attributes:
        name: name of the run.
        images: digest of the images' content; "" where the run does not keep it.
        tests: (path, label) -> number of tests.
        unit: path -> unit that counts once.
        hits: model -> path -> number of correct predictions; shortcuts left out.
    """

    name: str
    images: str
    tests: dict[tuple[str, str], int]
    unit: dict[str, str]
    hits: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Comparable:
    """Runs that tested the same images.

    Attributes:
        runs: names of the runs.
        images: number of distinct images that each tested.
        best_of: accuracy of the best model, corrected for its choice, with interval; None for a single model.
        standings: models of all runs but shortcuts, the best first; empty where they were not asked for.
    """

    runs: list[str]
    images: int
    best_of: BestOf | None
    standings: list[Standing]

    def to_dict(self) -> dict[str, object]:
        """Everything but the tests, ready for JSON."""
        best = None if self.best_of is None else asdict(self.best_of)
        return {"runs": self.runs, "images": self.images, "best_of": best}


def comparable_runs(runs: Sequence[tuple[str, Path]], *, tests: bool = True) -> list[Comparable]:
    """Group runs by what they tested, and compare the models within each group that has several runs.

    The test images are the same where path, class and number of tests of each are, and the images have the same
    content. Runs without predictions of one protocol, such as a ladder, are left out.

    Args:
        runs: name and folder of each run.
        tests: False for the corrected accuracy alone, which is faster.
    """
    groups: dict[tuple[str, frozenset[tuple[tuple[str, str], int]]], list[_Tested]] = {}
    for name, folder in runs:
        found = _read(name, folder)
        if found is not None:
            groups.setdefault((found.images, frozenset(found.tests.items())), []).append(found)
    return [_compared(group, tests) for group in groups.values() if len(group) > 1]


def _read(name: str, folder: Path) -> _Tested | None:
    """Read the predictions of a run; None where it has none of one protocol."""
    try:
        measurement, details = read_measurement(folder), read_details(folder, ())
        kind = {row.model: row.kind for row in measurement.models}
        tests: dict[str, dict[tuple[str, str], int]] = {}
        hits: dict[str, dict[str, int]] = {}
        for (model,), found in read_predictions(folder / PREDICTIONS, measurement.classes).items():
            if kind.get(model, "shortcut") == "shortcut":
                continue
            own, right = tests.setdefault(model, {}), hits.setdefault(model, {})
            for path, code, hit in zip(found.path, found.truth.tolist(), found.hit.tolist(), strict=True):
                key = (path, measurement.classes[code])
                own[key] = own.get(key, 0) + 1
                right[path] = right.get(path, 0) + hit
        rows = (row for row in read_csv(folder / "splits.csv") if row["split"] == "test")
        unit = {row["path"]: row.get("unit") or row["path"] for row in rows}
    except (DataError, OSError, ValueError, KeyError):
        return None
    if not tests:
        return None
    first = next(iter(tests.values()))
    return _Tested(name, str(details.get("images_sha256", "")), first, unit, hits)


def _compared(group: Sequence[_Tested], tests: bool) -> Comparable:
    keys = sorted(group[0].tests)
    paths = [path for path, _ in keys]
    count = np.array([group[0].tests[key] for key in keys])
    units = merge_units(*([run.unit.get(path, path) for path in paths] for run in group))
    candidates = [
        Candidate(run.name, model, np.array([own.get(path, 0) for path in paths]))
        for run in group
        for model, own in run.hits.items()
    ]
    best = best_of_runs(candidates, count, units)
    found = standings(candidates, count, units) if tests else []
    return Comparable([run.name for run in group], len(paths), best, found)


def choice_of_runs(groups: Sequence[Comparable], total: int) -> list[str]:
    """Say which runs can be compared, and what choosing the best of them by test images is worth.

    Args:
        groups: groups of runs that tested the same images.
        total: number of runs in all.
    """
    if total < 2:
        return []
    if not groups:
        return ["No two of these runs tested the same images: their accuracies are not tested against each other."]
    notes = []
    for group in groups:
        which = f"All {total} runs" if len(group.runs) == total else f"{len(group.runs)} runs ({_few(group.runs)})"
        note = f"{which} tested the same {counted(group.images, 'image')}."
        best = group.best_of
        if best is not None and math.isfinite(best.accuracy):
            note += (
                f" Choosing the best of their {best.models} models by these images flatters it. Corrected accuracy: "
                f"{100 * best.accuracy:.2f} % (95 % CI {100 * best.low:.1f} to {100 * best.high:.1f}; bootstrap "
                "bias-corrected cross-validation over runs, Tsamardinos et al. 2018)."
            )
        notes.append(note)
    alone = total - sum(len(group.runs) for group in groups)
    if alone:
        notes.append(
            "One other run tested other images, or none under one protocol; no test compares it."
            if alone == 1
            else f"{alone} other runs tested other images, or none under one protocol; no test compares them."
        )
    return notes


def _few(names: Sequence[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
