"""The learning curve: seconds it takes, whether its interval holds by simulation, and forecasts against measurements.

python benchmarks/learning_curve.py CACHE...
python benchmarks/learning_curve.py --simulate 200
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from ball_features.config import FitConfig
from ball_features.evaluation.power_law import forecast
from ball_features.files import read_csv
from ball_features.runs.learning_curve import learning_curve


def main() -> None:
    """Measure each cache, or simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("caches", nargs="*")
    parser.add_argument("--simulate", type=int, default=0, help="number of simulated curves of each kind")
    parser.add_argument("--groups", help="groups file")
    parser.add_argument("--jobs", type=int, default=0, help="fits at the same time; 0 uses every core")
    arguments = parser.parse_args()
    if arguments.simulate:
        simulate(arguments.simulate)
    for cache in arguments.caches:
        measure(cache, arguments.groups, arguments.jobs)


def measure(cache: str, groups: str | None, jobs: int) -> None:
    """Run the command's work on a cache, and test forecasts of its smaller sizes on its larger ones."""
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), cpu()
        done = learning_curve(cache, FitConfig(groups=groups, jobs=jobs), out_root=folder)
        seconds = time.perf_counter() - start
        print(f"{cache}: {seconds:.1f} s, {cpu() - before:.1f} s of a core, load {os.getloadavg()[0]:.1f}")
        for sentence in done.sentences:
            print(f"  {sentence}")
        backtest(done.folder)


def cpu() -> float:
    """Seconds of processor time of this process and of those that have ended."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def backtest(folder: Path) -> None:
    """Forecast each size from the smaller ones: what was said, and what was measured."""
    rows = list(read_csv(folder / "curve.csv"))
    with (folder / "splits.csv").open(newline="", encoding="utf-8") as file:
        unit = {row["path"]: int(row["unit"]) for row in csv.DictReader(file) if row["split"] == "test"}
    paths = sorted(unit)
    units = np.array([unit[path] for path in paths])
    hits: dict[str, dict[tuple[int, int], dict[str, bool]]] = {}
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            own = hits.setdefault(row["model"], {}).setdefault((int(row["fold"]), int(row["repeat"])), {})
            own[row["path"]] = row["predicted"] == row["label"]
    for model, found in hits.items():
        sizes = sorted({size for size, _ in found})
        seeds = sorted({seed for _, seed in found})
        table = np.array([[[found[size, seed][path] for path in paths] for seed in seeds] for size in sizes])
        count = [float(row["units"]) for row in rows if row["model"] == model]
        for known in range(4, len(sizes)):
            law = forecast(count[:known], table[:known], units)
            target = int(np.argmin(np.abs(np.array(count) - 2 * count[known - 1])))
            measured = float(table[target].mean() - table[known - 1].mean())
            said = law.reason or f"{100 * law.gain:+.2f} ({100 * law.gain_low:.2f} to {100 * law.gain_high:.2f})"
            step = f"{count[known - 1]:.0f} -> {count[target]:.0f}"
            print(f"    {model}, {step}: said {said}, measured {100 * measured:+.2f}")


def simulate(curves: int) -> None:
    """Draw curves from known laws, with images that differ in difficulty, and count intervals that hold the truth."""
    print("| error at the largest size | exponent | floor | units of the test set | forecasts | hold the truth |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    sizes = 64 * 2.0 ** np.arange(6)
    for slope, exponent, floor, tests in (
        (0.05, 0.5, 0.0, 400),
        (0.05, 0.3, 0.05, 400),
        (0.02, 0.7, 0.01, 650),
        (0.10, 0.4, 0.1, 60),
    ):
        held = said = 0
        truth = slope * (1 - 2.0**-exponent)
        for seed in range(curves):
            law = forecast(
                sizes.tolist(), drawn(sizes, (slope, exponent, floor), tests, seed), np.arange(tests), seed=1
            )
            said += not law.reason
            held += (not law.reason) and law.gain_low <= truth <= law.gain_high
        print(
            f"| {slope + floor:.2f} | {exponent} | {floor} | {tests} | {said} of {curves} | {held / max(said, 1):.3f} |"
        )


def drawn(sizes: np.ndarray, law: tuple[float, float, float], tests: int, seed: int) -> np.ndarray:
    """Correctness (sizes, seeds, tests): an image's chance of an error scatters, and each subset shifts all chances."""
    rng = np.random.default_rng(seed)
    slope, exponent, floor = law
    error = slope * (sizes / sizes[-1]) ** -exponent + floor
    rank = rng.uniform(size=tests)  # hard images are wrong first, at every size
    luck = rng.normal(0, 0.1, size=(len(sizes), 5, 1))
    mixed = 0.6 * (rank[None, None] < error[:, None, None]) + 0.4 * error[:, None, None]
    return rng.uniform(size=(len(sizes), 5, tests)) >= np.clip(mixed * (1 + luck), 0, 1)


if __name__ == "__main__":
    main()
