"""Time and peak memory of `ball audit` by the number of images.

    python benchmarks/audit.py --counts 2000,20000
    python benchmarks/audit.py --images IMAGES

Drawn smears, a hundredth of each kind of planted copy among them, or a folder of one's own. The time is that of the
whole command, the peak the resident memory of its process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ball_features.dataset.synthetic import draw_smears


def measure(folder: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak MB of one audit."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ball_features", "audit", str(folder), "--out", str(out), "--quiet"]
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"The audit of {folder} failed.")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="2000,20000")
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    print("| images | s | peak MB |\n| ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "groups.csv"
        if arguments.images is not None:
            seconds, peak = measure(arguments.images, out)
            print(f"| {arguments.images.name} | {seconds:.0f} | {peak:.0f} |", flush=True)
            return
        for count in (int(part) for part in arguments.counts.split(",")):
            each = count // 4
            planted = max(1, each // 100)
            folder = Path(name) / str(count)
            draw_smears(
                folder,
                per_class=each - 3 * planted,
                seed=0,
                duplicates=planted,
                near_duplicates=planted,
                shared_fields=planted,
                overlay_share=0.5,
                series=5,
            )
            seconds, peak = measure(folder, out)
            print(f"| {count} | {seconds:.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
