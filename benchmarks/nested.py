"""Views chosen anew for each series left out, on the other series alone: what the choice of a recipe is worth.

    python benchmarks/nested.py CACHE.h5 groups.csv [--views 1,3,4] [--most 4] [--jobs 2]
    python benchmarks/nested.py CACHE.h5 groups.csv --sets "each;1d,11d;1d,8d,11d,4l"

For each pair of series every view of the cache gets a discriminant and a logistic regression that see neither. For
each series left out, the set of views and models with the best mean recall on the others (each left out in its turn)
is taken, and the twenty best sets together, which hang less on the six series that choose; what they say of the series
left out is printed. No number of that series enters the choice. Beside them the ensemble selection of Caruana et al.
2004 (doi 10.1145/1015330.1015432): from a random half of the views and models that which helps most is added, with
replacement, and this twenty times over.

With --sets nothing is chosen: each view and model on its own, or sets of them (d: discriminant, l: logistic).
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections import Counter

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from ball_features.cache import read_cache
from ball_features.dataset.grouping import read_groups
from ball_features.dataset.splits import MIN_CLASS_TRAIN
from ball_features.errors import BallError
from ball_features.evaluation.left_out import LEAST_IMAGES
from ball_features.evaluation.views import choose_views
from ball_features.models.robust import GroupRobustDiscriminant, GroupRobustLogistic

BAGS, PICKS = 20, 10  # of the ensemble selection
BEST = 20  # sets kept while they are widened, and averaged
MAKERS = {
    "discriminant": GroupRobustDiscriminant,
    "logistic": lambda: GroupRobustLogistic(directions=(3,), balance=(True,)),
}


def log_probabilities(
    X: np.ndarray, y: np.ndarray, series: np.ndarray, group: np.ndarray, hidden: tuple[str, ...], model: str
) -> dict[str, np.ndarray]:
    """Series -> (images, classes) of a model that saw none of the hidden ones."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train = ~np.isin(group, group[np.isin(series, hidden)])  # nor anything that shows the same
        fitted = MAKERS[model]().fit(X[train], y[train], groups=series[train])
        return {name: np.log(np.clip(fitted.predict_proba(X[series == name]), 1e-4, 1)) for name in hidden}


def main() -> None:
    """Choose and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("groups")
    parser.add_argument("--views", default="all", help="names or numbers with commas between")
    parser.add_argument(
        "--sets", default="", help="sets to measure instead, such as 1d,11d,4l, with semicolons between"
    )
    parser.add_argument("--most", type=int, default=4, help="views in a set")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    cache = read_cache(arguments.cache)
    series, group = (read_groups(arguments.groups, name, cache.path.tolist()) for name in ("series", "group"))
    classes, y = np.unique(cache.label, return_inverse=True)
    benign = [str(name).lower() == "benign" for name in classes].index(True)
    label_of = {name: y[series == name][0] for name in np.unique(series)}
    left = [
        name
        for name in np.unique(series).tolist()
        if (series == name).sum() >= LEAST_IMAGES
        and ((y == label_of[name]) & (series != name)).sum() >= MIN_CLASS_TRAIN
    ]
    keys = list(itertools.product(choose_views(cache.view, arguments.views), MAKERS))
    hidden = [*itertools.combinations(left, 2), *((name,) for name in left)]
    sets = []
    for text in filter(None, arguments.sets.split(";")):
        short = {name[0]: name for name in MAKERS}
        sets += [(key,) for key in keys] if text == "each" else []
        sets += [] if text == "each" else [tuple((int(part[:-1]), short[part[-1]]) for part in text.split(","))]
    if sets:
        keys, hidden = list(dict.fromkeys(key for chosen in sets for key in chosen)), [(name,) for name in left]

    def one(view: int, model: str, out: tuple[str, ...]) -> tuple[tuple[int, str], tuple[str, ...], dict]:
        X = cache.embeddings[:, view].astype(np.float32)
        X = X[:, X.std(0) > 0]
        return (view, model), out, log_probabilities(X, y, series, group, out, model)

    tasks = [(view, model, out) for view, model in keys for out in hidden]
    found: dict = {}
    for key, out, answers in Parallel(arguments.jobs, return_as="generator_unordered", mmap_mode="r")(
        delayed(one)(*task) for task in tasks
    ):
        for name, values in answers.items():
            found[key, name, frozenset(out)] = values

    def summed(chosen: tuple, name: str, out: frozenset) -> np.ndarray:
        return sum(found[key, name, out] for key in chosen)

    def recall_and_side(values: np.ndarray, name: str) -> tuple[float, float]:
        called = values.argmax(1)
        sides = (called == benign) == (label_of[name] == benign)
        return float((called == label_of[name]).mean()), float(sides.mean())

    if sets:
        print("| views and models | mean | worst | right side |\n| --- | ---: | ---: | ---: |")
        for chosen in sets:
            pairs = [recall_and_side(summed(chosen, name, frozenset((name,))), name) for name in left]
            own, right = 100 * np.array(pairs).T
            names = ", ".join(f"{cache.view[view]} {model}" for view, model in chosen)
            print(f"| {names} | {own.mean():.1f} | {own.min():.1f} | {right.mean():.1f} |")
        return

    # The best sets of one view are widened by one view at a time: all sets of four would be thousands a series.
    def choose(outer: str) -> list[tuple]:
        inner = [name for name in left if name != outer]

        def score(chosen: tuple) -> float:
            right = [summed(chosen, n, frozenset((n, outer))).argmax(1) == label_of[n] for n in inner]
            return float(np.mean([hit.mean() for hit in right]))

        beam = sorted(((key,) for key in keys), key=score, reverse=True)[:BEST]
        seen = list(beam)
        for _ in range(arguments.most - 1):
            wider = {tuple(sorted((*chosen, key))) for chosen in beam for key in keys if key not in chosen}
            beam = sorted(wider, key=score, reverse=True)[:BEST]
            seen += beam
        return sorted(seen, key=score, reverse=True)[:BEST]

    def bagged(outer: str) -> Counter:
        """How often each view and model is taken."""
        inner, rng = [name for name in left if name != outer], np.random.default_rng(0)
        taken: Counter = Counter()
        for _ in range(BAGS):
            library = [keys[place] for place in rng.choice(len(keys), (len(keys) + 1) // 2, replace=False)]
            total = {name: np.zeros(1) for name in inner}
            for _ in range(PICKS):
                score = {}
                for key in library:
                    sums = (total[n] + found[key, n, frozenset((n, outer))] for n in inner)
                    score[key] = np.mean(
                        [(v.argmax(1) == label_of[n]).mean() for n, v in zip(inner, sums, strict=True)]
                    )
                best = max(library, key=lambda key: score[key])
                taken[best] += 1
                total = {n: total[n] + found[best, n, frozenset((n, outer))] for n in inner}
        return taken

    print("| series left out | images | best set | best sets together | bagged | the best set on the others |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    recalls, sides = [], []
    for outer in left:
        found_sets = choose(outer)
        alone = frozenset((outer,))
        each = [summed(found_sets[0], outer, alone), sum(summed(c, outer, alone) / len(c) for c in found_sets)]
        each.append(sum(count * found[key, outer, alone] for key, count in bagged(outer).items()))
        pairs = [recall_and_side(values, outer) for values in each]
        recalls.append([recall for recall, _ in pairs])
        sides.append([side for _, side in pairs])
        names = "; ".join(f"{cache.view[view]} {model}" for view, model in found_sets[0])
        shown = " | ".join(f"{100 * value:.1f}" for value in recalls[-1])
        print(f"| {outer} | {(series == outer).sum()} | {shown} | {names} |")
    for place, name in enumerate(("best set", f"best {BEST} sets together", "bagged ensemble selection")):
        own, right = np.array(recalls)[:, place], np.array(sides)[:, place]
        print(f"{name}: mean {100 * own.mean():.1f}, worst {100 * own.min():.1f}, right side {100 * right.mean():.1f}")


if __name__ == "__main__":
    try:
        main()
    except BallError as error:
        raise SystemExit(f"Error: {error}") from None
