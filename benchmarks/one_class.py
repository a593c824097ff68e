"""Batches of one class of a new site against batches of its own mixture: who adapts, and what it costs, by model.

    python benchmarks/one_class.py CACHE SITES.csv --models logistic lda [--column site] [--images 60] [--draws 3]

Each site is left out in turn. A model is fitted on the others for setting B and adapts to batches of the new one by
`auto`. For both kinds of batch: how many it adapts to, accuracy without the site's offset and with what `auto` gives,
and the share of the most predicted class once adapted (10, 50 and 90 % of the batches). *Others*: mean recall of the
site's other classes without that offset and with it, for batches of one class: of all that were adapted to, and of
those that `ball adapt` would refuse for the share of the most predicted class. Models see the plain view, but for
`robust`, which takes every view of the cache.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ball_features.cache import read_cache
from ball_features.config import HeadConfig
from ball_features.deployment.adapt import MOST_OF_ONE
from ball_features.evaluation.views import fixed_views, view_roles
from ball_features.models.adaptation import SiteAdapter
from ball_features.models.recipe_choice import RecipeChoice
from ball_features.models.registry import MODELS


@dataclass(frozen=True)
class Batch:
    """What came of one batch.

    Attributes:
        site: the new site.
        adapted: whether the offset is its own.
        without: accuracy with the average offset of the training sites.
        auto: accuracy with the offset that `auto` gives.
        most: share of the most predicted class with that.
        others: mean recall of the site's classes that are not in the batch, without and with that offset; NaN if none.
    """

    site: str
    adapted: bool
    without: float
    auto: float
    most: float
    others: tuple[float, float]


def batches(
    build: Callable[[], Any], X: np.ndarray, y: np.ndarray, site: np.ndarray, images: int, draws: int
) -> Iterator[tuple[str, Batch]]:
    """Yield ("one class" or "mixture", batch): X float32 (images, views, dim), y and site (images,)."""
    for new in np.unique(site):
        known, own = site != new, np.flatnonzero(site == new)
        adapter = SiteAdapter("auto").fit(X[known], y[known], site[known])
        estimator = build().fit(adapter.center(X[known], site[known]), y[known])
        rng = np.random.default_rng(0)
        classes = [own[y[own] == code] for code in np.unique(y)]
        chosen = [("one class", rows) for rows in classes if len(rows) >= images // 3 for _ in range(draws)]
        for kind, rows in [*chosen, *[("mixture", own)] * (2 * draws)]:
            batch = rng.choice(rows, min(images, len(rows)), replace=False)
            shift = adapter.adapt(X[batch], estimator.predict_proba)
            rest = own[~np.isin(y[own], y[batch])]
            hits, others = [], []
            for offset in (adapter.average, shift.offset):
                called = estimator.predict(X[batch] - offset)
                hits.append(float(np.mean(called == y[batch])))
                right = estimator.predict(X[rest] - offset) == y[rest] if len(rest) else np.zeros(0, bool)
                others.append(
                    float(np.mean([right[y[rest] == code].mean() for code in np.unique(y[rest])] or [np.nan]))
                )
            most = np.unique(called, return_counts=True)[1].max() / len(batch)
            yield kind, Batch(str(new), shift.adapted, *hits, float(most), (others[0], others[1]))


def of_others(batches: Iterable[Batch]) -> str:
    """Mean recall of other classes without and with the offset, over batches, and their number."""
    found = np.array([batch.others for batch in batches])
    return f"{100 * found[:, 0].mean():.0f} {100 * found[:, 1].mean():.0f} ({len(found)})" if len(found) else ""


def plain(model: str) -> Any:
    """Model of the registry that takes views, and sees the first."""
    return make_pipeline(FunctionTransformer(lambda X: X[:, 0]), MODELS[model].build(0, HeadConfig()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("sites", type=Path)
    parser.add_argument("--models", nargs="+", default=["logistic", "lda"])
    parser.add_argument("--column", default="site")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    cache = read_cache(asked.cache)
    with asked.sites.open(newline="", encoding="utf-8") as file:
        named = {row["path"]: row[asked.column] for row in csv.DictReader(file)}
    site = np.array([named[path] for path in cache.path.tolist()])
    y = np.unique(cache.label, return_inverse=True)[1]
    views = (0, *fixed_views(cache))
    roles = view_roles(cache, views)
    print("| model | batches | adapted | of | without | auto | most predicted | others | others, refused |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- | --- | --- |")
    for model in asked.models:
        every = model == "robust"
        X = np.asarray(cache.embeddings[:, list(views if every else views[:1])], np.float32)
        build = partial(RecipeChoice, roles) if every else partial(plain, model)
        found = list(batches(build, X, y, site, asked.images, asked.draws))
        for kind in ("one class", "mixture"):
            own = [batch for name, batch in found if name == kind]
            without, auto = (100 * np.mean([getattr(batch, name) for batch in own]) for name in ("without", "auto"))
            most = np.quantile([batch.most for batch in own], [0.1, 0.5, 0.9]) * 100
            cells = f"{without:.0f} | {auto:.0f} | {' '.join(f'{share:.0f}' for share in most)}"
            kept = [batch for batch in own if batch.adapted and kind == "one class"]
            cells += f" | {of_others(kept)} | {of_others(one for one in kept if one.most > MOST_OF_ONE)}"
            print(f"| {model} | {kind} | {sum(batch.adapted for batch in own)} | {len(own)} | {cells} |")


if __name__ == "__main__":
    main()
