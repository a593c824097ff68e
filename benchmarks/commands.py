"""Whole commands, as a user waits for them.

    python benchmarks/commands.py IMAGES --weights FILE --turns 3

`ball --help`, `ball fit --help`, the extraction of the plain view, the same again with nothing to compute, and the
default table of `ball fit` for one repeat: seconds, medians of the turns, loading included. With `--assess` instead
`ball assess` from image files to the page, and the same again with nothing to do.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--assess", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        cache = str(Path(name) / "cache.h5")
        extract = ["extract", str(arguments.images), "--weights", arguments.weights, "--views", "1", "--out", cache]
        commands = {
            "ball --help": ["--help"],
            "ball fit --help": ["fit", "--help"],
            "ball extract, plain view": [*extract, "--overwrite"],
            "ball extract again": extract,
            "ball fit, one repeat": ["fit", cache, "--repeats", "1", "--out", str(Path(name) / "runs")],
        }
        if arguments.assess:
            assess = ["assess", str(arguments.images), "--weights", arguments.weights, "--out"]
            commands = {"ball assess": [*assess, "NEW"], "ball assess again": [*assess, "NEW"]}
        seconds: dict[str, list[float]] = {label: [] for label in commands}
        for turn in range(arguments.turns):
            for label, command in commands.items():
                command = [str(Path(name) / f"new-{turn}") if word == "NEW" else word for word in command]
                start = time.perf_counter()
                done = subprocess.run([sys.executable, "-m", "ball_features", *command], capture_output=True, text=True)
                seconds[label].append(time.perf_counter() - start)
                if done.returncode:
                    sys.exit(f"{label} failed:\n{done.stderr}")
    print(f"{describe('torch', 'scikit-learn', 'xgboost')}, {arguments.turns} turns")
    print("| | s |\n| --- | ---: |")
    for label, values in seconds.items():
        print(f"| `{label}` | {statistics.median(values):.2f} |")


if __name__ == "__main__":
    main()
