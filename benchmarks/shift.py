"""Views and training options on series never seen: mean and worst recall, and benign against malignant.

    python benchmarks/shift.py CACHE.h5 groups.csv --models mlp,robust-logistic [--sets "plain;a-1;a-1,b-2"]

Each set of views trains and tests (by the mean of its views' probabilities). Prints a row a set and model.
"""

import argparse
import time

import numpy as np

from ball_features.cache import read_cache
from ball_features.config import FitConfig
from ball_features.dataset.splits import make_splits, read_groups
from ball_features.evaluation.protocols import evaluate
from ball_features.heads.registry import select
from ball_features.reporting.groups import group_rows, over_groups


def main() -> None:
    """Measure every set with every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("groups")
    parser.add_argument("--models", default="mlp,logistic,robust-logistic")
    parser.add_argument("--sets", default="")
    parser.add_argument("--each", action="store_true", help="print every series too")
    arguments = parser.parse_args()
    cache = read_cache(arguments.cache)
    series = read_groups(arguments.groups, "series", cache.path.tolist())
    sets = arguments.sets.split(";") if arguments.sets else list(cache.view)
    print("| views | model | mean recall | worst | benign or not | s |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for views in sets:
        config = FitConfig(
            protocol="leave-group-out", groups=arguments.groups, group_column="series", repeats=1, train_views=views,
            test_views=views,
        )  # fmt: skip
        splits, _ = make_splits(config, cache.path, cache.label, cache.sha256, series)
        for name in arguments.models.split(","):
            start = time.perf_counter()
            (result,) = evaluate(cache, select([name]), splits, config, group=series)
            if not result.fitted:
                print(f"| {views} | {name} | {result.failure} |")
                continue
            rows = over_groups(group_rows(cache, [result]), name)
            mean, worst, sided = (
                100 * f([row[key] for row in rows])
                for f, key in ((np.mean, "recall"), (min, "recall"), (np.mean, "benign_malignant"))
            )
            took = time.perf_counter() - start
            print(f"| {views} | {name} | {mean:.1f} | {worst:.1f} | {sided:.1f} | {took:.0f} |", flush=True)
            if arguments.each:
                for row in rows:
                    print(f"    {row['group']} {row['images']} {100 * row['recall']:.1f} {row['taken_for']}")


if __name__ == "__main__":
    main()
