"""Views and training options where nothing shifts and on series never seen, with intervals by group.

    python benchmarks/shift.py CACHE.h5 groups.csv --models mlp,logistic,xgboost [--sets "plain;1;1,8,11"]
        [--test plain] [--rungs random,blocks,series] [--group-loss dro] [--consistency 1] [--per-image]
        [--center overlay] [--seed 1]

Each set of views trains, and tests by the mean of its views' probabilities where --test names no others. Prints a row
a set and model: accuracy on random hold-outs and on blocks; mean recall over the series left out, the worst, and the
right side of benign and malignant. The 95 % intervals are by the scatter of groups and of blocks, and Student's over
the series.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from scipy.stats import t

from ball_features.cache import Cache, read_cache
from ball_features.config import FitConfig
from ball_features.dataset.grouping import read_grouping
from ball_features.dataset.splits import ImageTable, make_splits
from ball_features.dataset.units import merge_units
from ball_features.errors import BallError
from ball_features.evaluation.intervals import share_interval
from ball_features.evaluation.left_out import group_rows, over_groups
from ball_features.evaluation.protocols import evaluate
from ball_features.evaluation.tasks import Evaluation
from ball_features.models.registry import MODELS

RUNGS = {"random": "holdout", "blocks": "block-cv", "series": "leave-group-out"}


def shown(value: float, interval: tuple[float, float]) -> str:
    """A share and its interval in %."""
    return f"{100 * value:.1f} ({100 * interval[0]:.1f} - {100 * interval[1]:.1f})"


def measure(cache: Cache, name: str, rung: str, config: FitConfig, each: bool) -> str:
    """The cells of one rung for one model, or why there are none."""
    config = replace(config, protocol=RUNGS[rung])
    grouping = read_grouping(config, cache.path, cache.label)
    assert grouping is not None
    # Hold-outs keep byte-identical copies together and nothing else, as the published figures do at best.
    kept = (grouping.group, grouping.together) if rung != "random" else ()
    splits, _ = make_splits(config, ImageTable(cache.path, cache.label, cache.sha256, *kept))
    (result,) = evaluate(Evaluation(cache, (MODELS[name],), tuple(splits), config, grouping))
    if not result.fitted:
        return str(result.failure)
    if rung == "series":
        rows = over_groups(group_rows(cache, [result], merge_units(cache.sha256, grouping.together)), name)
        recall = np.array([row.recall for row in rows])
        side = float(np.mean([row.benign_malignant for row in rows]))
        half = float(t.ppf(0.975, len(recall) - 1) * recall.std(ddof=1) / np.sqrt(len(recall)))
        if each:
            for row in rows:
                print(f"    {row.group} {row.images} {100 * row.recall:.1f} {row.taken_for}")
        interval = (max(0.0, float(recall.mean()) - half), min(1.0, float(recall.mean()) + half))
        return f"{shown(float(recall.mean()), interval)} | {100 * recall.min():.1f} | {100 * side:.1f}"
    codes = np.unique(cache.label, return_inverse=True)[1]
    where = np.concatenate([item.split.test for item in result.fitted])
    hit = np.concatenate([item.probability.argmax(1) == codes[item.split.test] for item in result.fitted])
    units = merge_units(cache.sha256, grouping.group, grouping.together)
    return shown(float(hit.mean()), share_interval(hit, units[where], images=len(np.unique(where))))


def main() -> None:
    """Measure every set with every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("groups")
    parser.add_argument("--models", default="mlp,logistic,xgboost")
    parser.add_argument("--sets", default="", help="sets of views, names or numbers, with semicolons between")
    parser.add_argument("--test", default="", help="views that test; those that train if left out")
    parser.add_argument("--rungs", default=",".join(RUNGS))
    parser.add_argument("--group-loss", choices=("balanced", "dro"))
    parser.add_argument("--consistency", type=float, default=0.0)
    parser.add_argument("--per-image", action="store_true", help="each embedding standardised in itself")
    parser.add_argument("--center", help="column of the groups file whose mean is taken from each embedding")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2, help="random hold-outs")
    parser.add_argument("--each", action="store_true", help="print every series too")
    arguments = parser.parse_args()
    cache = read_cache(arguments.cache)
    rungs = arguments.rungs.split(",")
    heading = {"random": "random", "blocks": "blocks", "series": "series, mean | worst | benign or not"}
    print(f"| views | model | {' | '.join(heading[rung] for rung in rungs)} | s |")
    print(f"| --- | --- |{' ---: |' * (len(rungs) + 1 + 2 * ('series' in rungs))}")
    for views in arguments.sets.split(";") if arguments.sets else list(cache.view):
        base = FitConfig(
            train_views=views,
            test_views=arguments.test or views,
            repeats=1,
            groups=arguments.groups,
            center=arguments.center,
            seed=arguments.seed,
        )
        names = ("group_loss", "consistency", "per_image")
        base = replace(base, head=replace(base.head, **{name: getattr(arguments, name) for name in names}))
        for name in arguments.models.split(","):
            start = time.perf_counter()
            cells = [
                measure(
                    cache,
                    name,
                    rung,
                    replace(base, repeats=arguments.repeats if rung == "random" else 1),
                    arguments.each,
                )
                for rung in rungs
            ]
            took = time.perf_counter() - start
            print(f"| {views} | {name} | {' | '.join(cells)} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BallError as error:
        raise SystemExit(f"Error: {error}") from None
