"""Time and peak memory of `ball audit` by the number of images.

    python benchmarks/audit.py --counts 2000,20000
    python benchmarks/audit.py --images IMAGES

Drawn smears, a hundredth of each kind of planted copy among them, or a folder of one's own. The time is that of the
whole command, by the clock and by what it used of the processor, the peak the resident memory of its process. With
--keep DIR the synthetic images stay there and are found again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ball_features.dataset.synthetic import draw_smears

_PART = 500  # images that one process draws at a time


def draw_part(folder: Path, number: int, images: int) -> None:
    """Draw some series into a folder of their own, and move them over with numbers that go on from part to part."""
    own = folder / f"part-{number}"
    each = images // 4
    planted = max(1, each // 100)
    draw_smears(
        own,
        per_class=each - 3 * planted,
        seed=number,
        duplicates=planted,
        near_duplicates=planted,
        shared_fields=planted,
        overlay_share=0.5,
        series=5,
    )
    for file in own.glob("*/*.jpg"):
        stem, place = file.stem.rsplit("-", 1)
        target = folder / "images" / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        file.rename(target / f"{stem}-{number * each + int(place):05d}.jpg")


def draw(folder: Path, images: int) -> Path:
    """Drawn smears, by all cores."""
    if not (folder / "images").is_dir():
        parts = max(1, images // _PART)
        with ProcessPoolExecutor() as pool:
            list(pool.map(draw_part, [folder] * parts, range(parts), [images // parts] * parts))
    return folder / "images"


def measure(folder: Path, out: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak MB of one audit."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ball_features", "audit", str(folder), "--out", str(out), "--quiet"]
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"The audit of {folder} failed.")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="2000,20000")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    print("| images | s | processor s | peak MB |\n| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "groups.csv"
        if arguments.images is not None:
            seconds, worked, peak = measure(arguments.images, out)
            print(f"| {arguments.images.name} | {seconds:.0f} | {worked:.0f} | {peak:.0f} |", flush=True)
            return
        for count in (int(part) for part in arguments.counts.split(",")):
            folder = draw((arguments.keep or Path(name)) / str(count), count)
            seconds, worked, peak = measure(folder, out)
            print(f"| {count} | {seconds:.0f} | {worked:.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
