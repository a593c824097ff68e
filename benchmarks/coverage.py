"""Coverage of the prediction sets of final models, by simulation.

    python benchmarks/coverage.py --draws 200 --models logistic,lda,knn [--rule cv+]

Each draw takes new training images (Gaussian classes, groups with an offset of their own), fits the final model on all
of them with thresholds from out-of-fold predictions, and counts how often the sets of new images, of new groups, hold
the true class. "mean" is over all new images of all draws. "draws" counts the draws whose first new image is covered: a
binomial number if the coverage is as stated, whose 95 % band stands beside it. "size" is the mean number of classes in
a set.

The rule of the product takes one quantile of the pooled out-of-fold scores to the model of all images. `--rule cv+`
keeps the folds' models instead (Barber et al. 2021, doi 10.1214/20-AOS1965; with classes: Romano et al. 2020, arXiv
2006.02544): a class is in the set unless its score, by the model of a fold, exceeds the scores of the stated share of
the calibration images, each compared in its own fold.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binom

from ball_features.bundles.bundle import Bundle
from ball_features.bundles.calibration import tempered
from ball_features.bundles.facts import BundleFacts
from ball_features.bundles.saving import HeldOut, calibrate
from ball_features.cache import Cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import ImageTable, make_splits
from ball_features.evaluation.final_fit import calibration_folds, fit_final
from ball_features.evaluation.tasks import Evaluation
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.models.registry import select

__all__ = ["Simulation", "band", "simulate"]

COVERAGES = (0.8, 0.9, 0.95)
CLASSES, DIM, NEW = 4, 24, 200
FOLDERS = np.array([f"class{code}" for code in range(CLASSES)])


@dataclass(frozen=True)
class Simulation:
    """What is simulated.

    Attributes:
        model: name of the model.
        images: number of training images.
        groups: number of groups of them; 0 for images that are independent.
        conformal: "marginal" or "mondrian".
        shares: shares of the classes.
        epochs: epochs of a head.
    """

    model: str
    images: int = 200
    groups: int = 0
    conformal: str = "marginal"
    shares: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    epochs: int = 10

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Embeddings (count, DIM), class numbers and groups of new images; classes overlap, so that models err."""
        codes = rng.choice(CLASSES, count, p=self.shares)
        group = rng.integers(max(self.groups, 1) * count // self.images or 1, size=count)
        group = group if self.groups else np.arange(count)
        offset = rng.normal(size=(group.max() + 1, DIM)) * (0.7 if self.groups else 0.0)
        X = 1.5 * np.eye(CLASSES, DIM)[codes] + offset[group] + rng.normal(size=(count, DIM))
        return X.astype(np.float32), codes, group

    def fitted(self, rng: np.random.Generator, *, of_folds: bool) -> Fit:
        """A final model of new training images, as `ball fit` makes it, with or without the models of its folds."""
        X, codes, group = self.draw(self.images, rng)
        path = np.array([f"{number:05d}" for number in range(len(X))])
        cache = Cache(
            embeddings=X[:, None],
            path=path,
            label=FOLDERS[codes],
            sha256=path,
            view=("plain",),
            committed=np.ones(len(X), dtype=bool),
            shortcuts={},
            attributes={"recipe": "plain"},
            rejected=(),
        )
        config = FitConfig(repeats=1, jobs=1, seed=int(rng.integers(2**31)), head=HeadConfig(epochs=self.epochs))
        own = np.array([f"g{number}" for number in group]) if self.groups else None
        table = ImageTable(path, cache.label, path, group=own, together=own)
        splits = make_splits(config, table)[0]
        evaluation = Evaluation(cache, tuple(select([self.model])), tuple(splits), config)
        final = fit_final(evaluation, calibration_folds(config, table, splits), (self.model,))[0]
        held_out = HeldOut(final.probability, codes[final.rows], np.zeros(len(final.rows)), final.fold_of)
        facts = BundleFacts(self.model, tuple(FOLDERS), Preprocessing.__new__(Preprocessing), ())
        facts = replace(facts, conformal=self.conformal)
        bundle = calibrate(final.fitted.estimator, facts, np.empty((0, DIM)), held_out)
        spec, temperature = evaluation.models[0], bundle.facts.temperature
        scores = 1 - tempered(final.probability, temperature)[np.arange(len(final.rows)), codes[final.rows]]
        models = []
        for fold in final.folds if of_folds and spec.kind != "head" else ():
            rows = fold.split.train
            models.append(spec.build(config.seed, config.head).fit(X[rows], codes[rows]))
        return Fit(bundle, models, scores, final.fold_of)


@dataclass(frozen=True, eq=False)
class Fit:
    """A final model.

    Attributes:
        bundle: the model of all images.
        models: model of each fold; empty where the rule does not ask for them, and for a head, which CV+ does not take.
        scores: 1 - probability of the true class of each calibration image by the model of the other folds, float64.
        fold: number of the fold of each calibration image, int.
    """

    bundle: Bundle
    models: list[Any]
    scores: np.ndarray
    fold: np.ndarray

    def sets(self, X: np.ndarray, coverage: float) -> np.ndarray:
        """Sets of new images by the rule of the product, bool (images, classes)."""
        return self.bundle.sets(self.bundle.probability(X[:, None]), coverage)

    def sets_of_folds(self, X: np.ndarray, coverage: float) -> np.ndarray:
        """Sets of new images by CV+, bool (images, classes)."""
        exceeded = np.zeros((len(X), CLASSES), dtype=int)
        for number, model in enumerate(self.models):
            raw = np.zeros((len(X), CLASSES))
            raw[:, model.classes_] = model.predict_proba(X)
            own = 1 - tempered(raw, self.bundle.facts.temperature)
            ranked = np.sort(self.scores[self.fold == number])
            exceeded += np.searchsorted(ranked, own, side="left")  # calibration images with a lower score
        return exceeded < (len(self.scores) + 1) * coverage


def simulate(
    simulation: Simulation, draws: int, seed: int = 0, rule: str = "pooled"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw training images and final models.

    Returns:
        Whether the sets of new images hold the true class, bool (draws, new images, coverages), their sizes, int of the
        same shape, and the true classes, int (draws, new images).
    """
    covered = np.zeros((draws, NEW, len(COVERAGES)), dtype=bool)
    size = np.zeros(covered.shape, dtype=int)
    truth = np.zeros((draws, NEW), dtype=int)
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        fit = simulation.fitted(rng, of_folds=rule == "cv+")
        X, truth[draw], _ = simulation.draw(NEW, rng)
        for number, coverage in enumerate(COVERAGES):
            inside = fit.sets(X, coverage) if rule == "pooled" else fit.sets_of_folds(X, coverage)
            covered[draw, :, number] = inside[np.arange(NEW), truth[draw]]
            size[draw, :, number] = inside.sum(1)
    return covered, size, truth


def band(draws: int, coverage: float) -> tuple[int, int]:
    """The central 95 % of a binomial number of draws."""
    low, high = binom.interval(0.95, draws, coverage)
    return int(low), int(high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--groups", type=int, default=0)
    parser.add_argument("--models", default="logistic,lda,knn")
    parser.add_argument("--conformal", default="marginal")
    parser.add_argument("--rule", choices=("pooled", "cv+"), default="pooled")
    given = parser.parse_args()
    print("| model | coverage asked % | mean % | lowest class % | size | draws | 95 % band |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for model in given.models.split(","):
        own = Simulation(model, given.images, given.groups, given.conformal)
        covered, size, truth = simulate(own, given.draws, rule=given.rule)
        for number, coverage in enumerate(COVERAGES):
            each = [covered[truth == code][:, number].mean() for code in range(CLASSES)]
            low, high = band(given.draws, coverage)
            cells = [model, f"{100 * coverage:g}", f"{100 * covered[..., number].mean():.1f}", f"{100 * min(each):.1f}"]
            cells += [f"{size[..., number].mean():.2f}", f"{covered[:, 0, number].sum()}", f"{low} - {high}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
