"""Accuracy and balanced recall of runs whose test sets are groups, a row a run and model, for docs/shift.md.

    python benchmarks/left_out.py RUN [RUN ...]

Each figure is the mean over the test sets (sites, series, folds of patients) with Student's 95 % interval over them;
"worst" is the lowest accuracy of a test set, "lead" the mean lead over `logistic` on the same test sets with its
interval.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import t

REFERENCE = "logistic"


def figures(run: Path) -> dict[str, np.ndarray]:
    """Read accuracy and balanced recall of each test set, float (test sets, 2), by model."""
    hits: dict[str, dict[tuple[str, str], dict[str, list[bool]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            hits[row["model"]][row["repeat"], row["fold"]][row["label"]].append(row["label"] == row["predicted"])
    return {
        model: np.array(
            [
                (
                    np.mean([hit for own in by_class.values() for hit in own]),
                    np.mean([np.mean(v) for v in by_class.values()]),
                )
                for _, by_class in sorted(sets.items())
            ]
        )
        for model, sets in hits.items()
    }


def interval(values: np.ndarray) -> str:
    """Mean of shares and its interval, in %."""
    mean = 100 * values.mean()
    half = (
        100 * t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    )
    return f"{mean:.1f} ± {half:.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    print("| run | model | accuracy | balanced recall | worst | lead |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for run in parser.parse_args().runs:
        found = figures(run)
        for model, own in found.items():
            lead = interval(own[:, 0] - found[REFERENCE][:, 0]) if REFERENCE in found and model != REFERENCE else ""
            cells = [run.name, model, interval(own[:, 0]), interval(own[:, 1]), f"{100 * own[:, 0].min():.1f}", lead]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
