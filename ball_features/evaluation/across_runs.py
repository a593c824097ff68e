"""Models of several runs on the same test images: paired tests against the best, and the price of choosing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ball_features.evaluation.intervals import Interval
from ball_features.evaluation.paired_tests import corrected_best, holm, paired_bootstrap
from ball_features.evaluation.results import BestOf

__all__ = ["Candidate", "Standing", "best_of_runs", "standings"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One model of one run, which a reader may choose.

    Attributes:
        run: name of the run.
        model: name of the model.
        hits: number of correct predictions of each image, int (images,).
    """

    run: str
    model: str
    hits: np.ndarray


@dataclass(frozen=True)
class Standing:
    """One model of one run against the best of all runs.

    Attributes:
        run: name of the run.
        model: name of the model.
        behind: 95 % interval of the accuracy that the best has more; not corrected.
        p: p-value of the paired permutation test against the best, Holm-corrected; 1 for the best.
    """

    run: str
    model: str
    behind: Interval = (0.0, 0.0)
    p: float = 1.0


def standings(candidates: Sequence[Candidate], tests: np.ndarray, units: np.ndarray) -> list[Standing]:
    """Test each model of each run against the best of all.

    Args:
        candidates: models of runs that tested the same images.
        tests: number of tests of each image, int (images,), the same in every run.
        units: int (images,); images of one unit count as one image.

    Returns:
        The candidates, the best first.
    """
    order = sorted(candidates, key=lambda own: -int(own.hits.sum()))
    best, others = order[0], order[1:]
    found = [paired_bootstrap(best.hits - own.hits, units, tests=tests) for own in others]
    adjusted = holm([p for _, _, p in found]).tolist()
    rows = [Standing(best.run, best.model)]
    for own, (low, high, _), p in zip(others, found, adjusted, strict=True):
        rows.append(Standing(own.run, own.model, (low, high), p))
    return rows


def best_of_runs(candidates: Sequence[Candidate], tests: np.ndarray, units: np.ndarray) -> BestOf | None:
    """Correct the accuracy of the best model of several runs for having been chosen by the test images.

    The method is that of `paired_tests.corrected_best`, over the models of all runs; None for a single model. Other
    arguments as `standings`.
    """
    if len(candidates) < 2:
        return None
    right = np.column_stack([own.hits for own in candidates])
    return BestOf(len(candidates), *corrected_best(right, tests, units))
