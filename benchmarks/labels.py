"""Planted wrong labels: how many of the first 50 doubtful ones are wrong, beside cleanlab where it is installed.

python benchmarks/labels.py all.h5:groups.csv hospitals.h5
"""

from __future__ import annotations

import argparse
import contextlib
import io
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from sklearn.metrics import average_precision_score

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.dataset.grouping import read_grouping
from ball_features.dataset.units import merge_units
from ball_features.evaluation.label_doubt import doubts, neighbour_votes
from ball_features.evaluation.protocols import evaluate
from ball_features.evaluation.tasks import Evaluation
from ball_features.models.registry import select
from ball_features.runs.checks import complete_cache, split_by

NOISE = (0.02, 0.05, 0.10)
MODELS = ("logistic", "lda")


@dataclass(frozen=True)
class Method:
    """A ranking (the more doubtful, the higher), and the flags of a method that has some."""

    score: np.ndarray
    flagged: np.ndarray | None = None


def main() -> None:
    """Plant noise in each cache several times and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("caches", nargs="+", help="CACHE, or CACHE:GROUPS")
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    print(
        "| data | planted | method | of the first 50 | area under PR | flagged | of them wrong | of the wrong found |"
    )
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for argument in arguments.caches:
        path, _, groups = argument.partition(":")
        cache = complete_cache(path)
        config = FitConfig(protocol="cv", repeats=1, groups=groups or None)
        for noise in NOISE:
            figures: dict[str, list[list[float]]] = {}
            for draw in range(arguments.draws):
                for name, own in planted(cache, config, noise, draw).items():
                    figures.setdefault(name, []).append(own)
            for name, own in figures.items():
                first, area, flagged, precision, recall = np.mean(own, axis=0)
                counts = f"{flagged:.0f} | {precision:.2f} | {recall:.2f}" if np.isfinite(flagged) else " | | "
                name_of = f"{path.rsplit('/', 1)[-1]} | {100 * noise:.0f} % | {name}"
                print(f"| {name_of} | {first:.2f} | {area:.3f} | {counts} |", flush=True)


def planted(cache: Cache, config: FitConfig, noise: float, draw: int) -> dict[str, list[float]]:
    """Give some images another class, and rank all by every method."""
    classes, truth = np.unique(cache.label, return_inverse=True)
    rng = np.random.default_rng([draw, round(1000 * noise)])
    wrong = rng.choice(len(truth), round(noise * len(truth)), replace=False)
    given = truth.copy()
    given[wrong] = (truth[wrong] + rng.integers(1, len(classes), len(wrong))) % len(classes)
    cache = replace(cache, label=classes[given])
    is_wrong = given != truth
    grouping = read_grouping(config, cache.path, cache.label, cache.columns)
    splits, _ = split_by(config, cache, grouping)
    probabilities = {}
    for result in evaluate(Evaluation(cache, tuple(select(MODELS)), tuple(splits), config)):
        probabilities[result.spec.name] = np.zeros((len(given), len(classes)))
        for item in result.fitted:
            probabilities[result.spec.name][item.split.test] = item.probability
    units = merge_units(cache.sha256) if grouping is None else grouping.units(config.protocol, cache.sha256)
    votes, neighbours = neighbour_votes(cache.embeddings[:, 0], given, units, len(classes))
    found = doubts(list(probabilities.values()), votes, neighbours, given)
    methods = {"ball labels": Method(found.doubt, found.flagged)}
    methods["models alone"] = Method(-np.mean(list(probabilities.values()), 0)[np.arange(len(given)), given])
    methods["neighbours alone"] = Method(-votes[np.arange(len(given)), given])
    if find_spec("cleanlab"):
        methods |= by_cleanlab(given, probabilities)
    return {name: figures(own, is_wrong) for name, own in methods.items()}


def by_cleanlab(given: np.ndarray, probabilities: dict[str, np.ndarray]) -> dict[str, Method]:
    """Rank by cleanlab's self-confidence, of each model and of its ensemble of both, with its flags."""
    from cleanlab.filter import find_label_issues  # pyright: ignore[reportMissingImports]
    from cleanlab.rank import (  # pyright: ignore[reportMissingImports]
        get_label_quality_ensemble_scores,
        get_label_quality_scores,
    )

    found = {
        f"cleanlab, {name}": Method(-get_label_quality_scores(given, own), find_label_issues(given, own))
        for name, own in probabilities.items()
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its weights
        both = -get_label_quality_ensemble_scores(given, list(probabilities.values()))
    mean = np.mean(list(probabilities.values()), 0)
    return found | {"cleanlab, both": Method(both, find_label_issues(given, mean))}


def figures(method: Method, wrong: np.ndarray) -> list[float]:
    """Share of the first 50 that are wrong, area under the precision-recall curve, and what is flagged."""
    first = np.argsort(-method.score, kind="stable")[:50]
    found = [float(wrong[first].mean()), float(average_precision_score(wrong, method.score))]
    if method.flagged is None:
        return [*found, np.nan, np.nan, np.nan]
    hit = float(wrong[method.flagged].sum())
    return [*found, float(method.flagged.sum()), hit / max(method.flagged.sum(), 1), hit / wrong.sum()]


if __name__ == "__main__":
    main()
