"""How often 95 % intervals hold the true accuracy, where images of one group are right or wrong together.

    python benchmarks/intervals.py [--draws 2000] > benchmarks/intervals.md

Each draw has its own groups: sizes that are equal or log-normal (median a hundred); a chance of being right
for each group, from a beta distribution; and hits. The table has the share of draws whose interval, from
`evaluation.intervals.share_interval`, holds the mean of the beta distribution, and the mean width.
2,000 draws know a coverage of 95 % to one point.
"""

from __future__ import annotations

import argparse

import numpy as np

from ball_features.evaluation.intervals import share_interval

_BETAS = {"95 %, alike": (19, 1), "80 %, alike": (8, 2), "80 %, far apart": (2, 0.5), "60 %, alike": (6, 4)}
_SPREADS = {"equal": 0.0, "0.8": 0.8, "1.3": 1.3}
_GROUPS = (2, 3, 4, 5, 7, 10, 20)
_IMAGES = 100


def coverage(groups: int, beta: tuple[float, float], spread: float, draws: int, seed: int) -> tuple[float, float]:
    """Share of intervals that hold the true accuracy, and their mean width."""
    rng = np.random.default_rng(seed)
    held = width = 0.0
    for _ in range(draws):
        size = np.maximum(3, rng.lognormal(np.log(_IMAGES), spread, groups)).astype(int)
        group = np.repeat(np.arange(groups), size)
        low, high = share_interval(rng.random(len(group)) < rng.beta(*beta, groups)[group], group)
        held += low <= beta[0] / sum(beta) <= high
        width += high - low
    return held / draws, width / draws


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print("# Coverage of intervals\n")
    print(f"`python benchmarks/intervals.py --draws {draws}`: coverage of 95 % intervals in %, and their mean width in")
    print("points. Columns: the true accuracy and how much groups differ; rows: number of groups, and how much their")
    print("sizes differ (standard deviation of the logarithm).\n")
    print(f"| groups | sizes | {' | '.join(_BETAS)} |")
    print(f"| ---: | --- |{' ---: |' * len(_BETAS)}")
    for name, spread in _SPREADS.items():
        for groups in _GROUPS:
            cells = [coverage(groups, beta, spread, draws, seed=groups) for beta in _BETAS.values()]
            shown = " | ".join(f"{100 * held:.1f} ({100 * width:.0f})" for held, width in cells)
            print(f"| {groups} | {name} | {shown} |")


if __name__ == "__main__":
    main()
