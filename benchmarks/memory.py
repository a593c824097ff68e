"""Peak memory of `ball extract` by the number of images.

    python benchmarks/memory.py --counts 2000,20000

Drawn images, linked as often as it takes, go through DenseNet-121 with random weights; every link is a row of its own
and is computed. The peak is the resident memory of the process that extracts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ball_features.dataset.synthetic import draw_smears


def link(source: Path, target: Path, count: int) -> None:
    """Fill a folder with `count` links to the images of another."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix == ".jpg")
    for number in range(count):
        file = files[number % len(files)]
        place = target / file.parent.name / f"{number}{file.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, place)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="2000,20000")
    arguments = parser.parse_args()
    peaks: list[float] = []
    print("| images | peak MB |\n| ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_smears(folder / "drawn", per_class=8, seed=0)
        for count in (int(part) for part in arguments.counts.split(",")):
            link(folder / "drawn", folder / str(count), count)
            settings = ["--backbone", "densenet121", "--weights", "random", "--views", "1", "--quiet"]
            command = [sys.executable, "-m", "ball_features", "extract", str(folder / str(count))]
            process = subprocess.Popen([*command, "--out", str(folder / f"{count}.h5"), *settings])
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"The extraction of {count} images failed.")
            peaks.append(usage.ru_maxrss / 1024)
            print(f"| {count} | {peaks[-1]:.0f} |", flush=True)
    print(f"\nThe last against the first: {100 * (peaks[-1] / peaks[0] - 1):+.1f} %")


if __name__ == "__main__":
    main()
