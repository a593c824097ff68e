"""Batches of one class of a new site against batches of its own mixture: who adapts, and what it costs, by model.

    python benchmarks/one_class.py CACHE SITES.csv --models logistic lda [--column site] [--images 60] [--draws 3]

Each site is left out in turn. A model of the plain view is fitted on the others for setting B and adapts to batches of
the new one by `auto`. For both kinds of batch: how many it adapts to, accuracy without the site's offset and with what
`auto` gives, and the share of the most predicted class once adapted (10, 50 and 90 % of the batches).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.cache import read_cache
from ball_features.config import HeadConfig
from ball_features.models.adaptation import SiteAdapter
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
    """

    site: str
    adapted: bool
    without: float
    auto: float
    most: float


def batches(
    X: np.ndarray, y: np.ndarray, site: np.ndarray, model: str, images: int, draws: int
) -> Iterator[tuple[str, Batch]]:
    """Yield ("one class" or "mixture", batch): X float32 (images, 1, dim), y and site (images,)."""
    for new in np.unique(site):
        known, own = site != new, np.flatnonzero(site == new)
        adapter = SiteAdapter("auto").fit(X[known], y[known], site[known])
        estimator = MODELS[model].build(0, HeadConfig())
        estimator.fit(adapter.center(X[known], site[known])[:, 0], y[known])
        rng = np.random.default_rng(0)
        classes = [own[y[own] == code] for code in np.unique(y)]
        chosen = [("one class", rows) for rows in classes if len(rows) >= images // 3 for _ in range(draws)]
        for kind, rows in [*chosen, *[("mixture", own)] * (2 * draws)]:
            batch = rng.choice(rows, min(images, len(rows)), replace=False)
            shift = adapter.adapt(X[batch], lambda Z: estimator.predict_proba(Z[:, 0]))  # noqa: B023
            without, auto = (estimator.predict((X[batch] - by)[:, 0]) for by in (adapter.average, shift.offset))
            hits = [float(np.mean(called == y[batch])) for called in (without, auto)]
            most = np.unique(auto, return_counts=True)[1].max() / len(batch)
            yield kind, Batch(str(new), shift.adapted, *hits, float(most))


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
    X, y = np.asarray(cache.embeddings[:, :1], np.float32), np.unique(cache.label, return_inverse=True)[1]
    print("| model | batches | adapted | of | without | auto | most predicted |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    for model in asked.models:
        found = list(batches(X, y, site, model, asked.images, asked.draws))
        for kind in ("one class", "mixture"):
            own = [batch for name, batch in found if name == kind]
            without, auto = (100 * np.mean([getattr(batch, name) for batch in own]) for name in ("without", "auto"))
            most = np.quantile([batch.most for batch in own], [0.1, 0.5, 0.9]) * 100
            cells = f"{without:.0f} | {auto:.0f} | {' '.join(f'{share:.0f}' for share in most)}"
            print(f"| {model} | {kind} | {sum(batch.adapted for batch in own)} | {len(own)} | {cells} |")


if __name__ == "__main__":
    main()
