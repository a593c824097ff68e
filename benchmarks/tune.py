"""`ball tune` against training every setting in full, one after another.

    python benchmarks/tune.py CACHE.h5 --trials 18 --turns 3

Prints seconds of both, their ratio, and how the setting that each chose does in the other's order.
"""

import argparse
import statistics
import time

import numpy as np

from ball_features.cache import read_cache
from ball_features.config import FitConfig
from ball_features.dataset.splits import ImageTable, make_splits
from ball_features.evaluation.search import draw_trials, search
from ball_features.models.mlp import MLPHead


def main() -> None:
    """Measure both on one split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--trials", type=int, default=18)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    cache = read_cache(arguments.cache)
    codes = np.unique(cache.label, return_inverse=True)[1]
    (split,), _ = make_splits(FitConfig(repeats=1), ImageTable(cache.path, cache.label, cache.sha256))
    X = np.ascontiguousarray(cache.embeddings[:, :1])
    trials = draw_trials(arguments.trials, 0, 40, 1)
    ours, theirs = [], []
    for _ in range(arguments.turns):
        start = time.perf_counter()
        found = search(X, codes, split, trials)
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        full = []
        for trial in trials:
            head = MLPHead(**trial.head.to_dict(), random_state=0)
            train, val = (X[rows, 0].astype(np.float32) for rows in (split.train, split.val))
            head.fit(train, codes[split.train], X_val=val, y_val=codes[split.val])
            full.append(float(np.nanmin(head.history_["val_loss"])))
        theirs.append(time.perf_counter() - start)
    place = next(n for n, trial in enumerate(trials) if trial.head == found[0].head)
    print(f"one after another, 40 epochs each: {statistics.median(theirs):.1f} s")
    print(f"ball tune: {statistics.median(ours):.1f} s, {statistics.median(theirs) / statistics.median(ours):.1f} x")
    rank = sorted(full).index(full[place]) + 1
    print(
        f"its choice: validation log loss {full[place]:.4f}, number {rank} of {len(full)}; the best has {min(full):.4f}"
    )


if __name__ == "__main__":
    main()
