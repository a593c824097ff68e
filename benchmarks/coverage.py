"""Coverage of the prediction sets of final models, by simulation.

    python benchmarks/coverage.py --draws 200 --models logistic,lda,knn

Each draw takes new training images (Gaussian classes, groups with an offset of their own), fits the final model on all
of them with thresholds from out-of-fold predictions, and counts how often the sets of new images, of new groups, hold
the true class. "mean" is over all new images of all draws. "draws" counts the draws whose first new image is covered: a
binomial number if the coverage is as stated, whose 95 % band stands beside it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binom

from ball_features.bundles.bundle import Bundle
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

    def bundle(self, rng: np.random.Generator) -> Bundle:
        """A final model of new training images, as `ball fit` makes it."""
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
        return calibrate(final.fitted.estimator, facts, np.empty((0, DIM)), held_out)


def simulate(simulation: Simulation, draws: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw training images and final models.

    Returns:
        Whether the sets of new images hold the true class, bool (draws, new images, coverages), and their true classes,
        int (draws, new images).
    """
    covered = np.zeros((draws, NEW, len(COVERAGES)), dtype=bool)
    truth = np.zeros((draws, NEW), dtype=int)
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        bundle = simulation.bundle(rng)
        X, truth[draw], _ = simulation.draw(NEW, rng)
        probability = bundle.probability(X[:, None])
        for number, coverage in enumerate(COVERAGES):
            covered[draw, :, number] = bundle.sets(probability, coverage)[np.arange(NEW), truth[draw]]
    return covered, truth


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
    given = parser.parse_args()
    print("| model | coverage asked % | mean % | lowest class % | draws | 95 % band |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for model in given.models.split(","):
        own = Simulation(model, given.images, given.groups, given.conformal)
        covered, truth = simulate(own, given.draws)
        for number, coverage in enumerate(COVERAGES):
            each = [covered[truth == code][:, number].mean() for code in range(CLASSES)]
            low, high = band(given.draws, coverage)
            cells = [model, f"{100 * coverage:g}", f"{100 * covered[..., number].mean():.1f}", f"{100 * min(each):.1f}"]
            cells += [f"{covered[:, 0, number].sum()}", f"{low} - {high}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
