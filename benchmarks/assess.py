"""`ball assess` from image files to the page, stage by stage.

    python benchmarks/assess.py IMAGES --weights FILE [--out FOLDER] [--turns 1] [options of ball assess]

Each turn is a new process that writes into a new folder. "wall" is what a user waits for on an idle machine;
"processor" is the time of all cores, worker processes included, which other work on the machine changes less; the load
before and after says how idle the machine was. The last row is the same command again, with nothing left to compute.
Medians of the turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

STAGES = {"embedding": "cache.h5", "auditing": "groups.csv", "comparing models": "ladder/predictions.csv"}


def processor_seconds(root: int) -> float:
    """Processor seconds of a process and of all that it started, from /proc."""
    ticks, parents = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(folder.name)], ticks[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15]))

    def belongs(process: int) -> bool:
        while process not in (0, 1, root):
            process = parents.get(process, 0)
        return process == root

    return sum(spent for process, spent in ticks.items() if belongs(process)) / os.sysconf("SC_CLK_TCK")


def assess(arguments: list[str], out: Path) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds of each stage of a command, by the files that end it, and of the whole."""
    begun = time.time()
    command = [sys.executable, "-m", "ball_features", "assess", *arguments, "--out", str(out)]
    samples = [(0.0, 0.0)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            samples.append((time.time() - begun, max(samples[-1][1], processor_seconds(process.pid))))
            time.sleep(0.2)
        whole = time.time() - begun, samples[-1][1]
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode())
    stages, former = {}, (0.0, 0.0)
    for name, file in STAGES.items():
        wall = (out / file).stat().st_mtime - begun
        end = wall, max(spent for at, spent in samples if at <= max(wall, 0.0))
        stages[name], former = (end[0] - former[0], end[1] - former[1]), end
    stages["verdict and page"] = whole[0] - former[0], whole[1] - former[1]
    return stages | {"whole": whole}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--out", type=Path, help="keep the last turn's files here")
    parser.add_argument("--turns", type=int, default=1)
    options, more = parser.parse_known_args()
    print(describe("torch", "scikit-learn"), f"\nload before: {os.getloadavg()[0]:.1f}", flush=True)
    turns, again = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(options.turns):
            last = turn == options.turns - 1
            out = options.out if last and options.out else Path(scratch) / str(turn)
            arguments = [str(options.images), "--weights", options.weights, *more]
            turns.append(assess(arguments, out))
            again.append(assess(arguments, out)["whole"])
    print(f"load after: {os.getloadavg()[0]:.1f}\n\n| stage | wall, s | processor, s |\n| --- | ---: | ---: |")
    rows = {name: [turn[name] for turn in turns] for name in turns[0]} | {"again, nothing to do": again}
    for name, values in rows.items():
        wall, spent = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {name} | {wall:.1f} | {spent:.1f} |")


if __name__ == "__main__":
    main()
