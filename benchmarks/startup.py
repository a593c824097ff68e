"""Seconds until `ball extract` has its first image, and of `ball predict` for one image.

    python benchmarks/startup.py IMAGES --weights FILE [--bundle RUN/models/MODEL] [--repeats 3]

Each command runs in a new process. "wall" is what a user waits for, on an idle machine; "processor" is the time of all
cores, which other work on the machine changes less. The first extraction checks the precision, the later ones remember
the check (BALL_CHECKS=off makes it anew each time). The medians of the repeats are printed.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST = re.compile(r"Embedding: ([1-9]\d*) of")


def measure(arguments: list[str], environment: dict[str, str], until: re.Pattern[str] | None) -> tuple[float, float]:
    """Wall and processor seconds of a command, until a line of its standard error matches, or until it ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-m", "ball_features", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    wall = 0.0
    lines = []
    for line in process.stderr:
        lines.append(line)
        if until is not None and not wall and until.search(line):
            wall = time.perf_counter() - start
    if process.wait():
        raise SystemExit("".join(lines))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall or time.perf_counter() - start, spent


def main() -> None:
    """Print a row a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--backbone", default="densenet201")
    parser.add_argument("--bundle", type=Path, help="made with these weights")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    image = next(path for path in sorted(options.images.rglob("*")) if path.suffix.lower() in (".jpg", ".png", ".bmp"))
    print("| command | wall, s | processor, s |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache", "BALL_CHECKS": ""}
        if home := os.environ.get("TORCH_HOME", str(Path("~/.cache/torch").expanduser())):
            environment["TORCH_HOME"] = home
        extract = ["extract", str(options.images), "--out", f"{folder}/c.h5", "--limit", "64", "--overwrite"]
        extract += ["--weights", options.weights, "--backbone", options.backbone]
        rows = [("extract, first image, checked", extract, FIRST, 1)]
        rows += [("extract, first image, check remembered", extract, FIRST, options.repeats)]
        if options.bundle is not None:
            predict = ["predict", str(options.bundle), str(image), "--weights", options.weights]
            rows += [("predict, one image", predict, None, options.repeats)]
        for name, command, until, repeats in rows:
            each = [measure(command, environment, until) for _ in range(repeats)]
            wall, spent = (statistics.median(column) for column in zip(*each, strict=True))
            print(f"| {name} | {wall:.1f} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
