"""Peak memory of `ball extract` by the number of images, and of `ball fit` by the size of the cache.

    python benchmarks/memory.py --counts 2000,20000 [--views 1]
    python benchmarks/memory.py --counts 10000,30000,100000 --views 1 --input-px 32 --distinct
    python benchmarks/memory.py --fit 2000,20000

Synthetic images, linked as often as it takes, go through DenseNet-121 with random weights, in the five views that are
the default unless --views says otherwise; every link is a row of its own and is computed. With --distinct each image is
a file of its own, 64 px, with noise of its own. The peak is the resident memory of the process that extracts. --fit
makes caches of noise, 15 views of 1920, and fits two models on the plain one; the peak is what all its processes hold
besides files (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe
from PIL import Image

from ball_features.cache import CacheContents, CacheWriter, create_cache
from ball_features.dataset.synthetic import draw_smears


def link(source: Path, target: Path, count: int) -> None:
    """Fill a folder with `count` links to the images of another."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix == ".jpg")
    for number in range(count):
        file = files[number * 5 % len(files)]  # of all classes from the first few on
        place = target / file.parent.name / f"{number}{file.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, place)


def draw(source: Path, target: Path, count: int) -> None:
    """Fill a folder with `count` images of 64 px: parts of drawn smears, each with noise of its own."""
    rng = np.random.default_rng(0)
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix == ".jpg")
    drawn = [(file.parent.name, np.asarray(Image.open(file)).astype(np.int16)) for file in files]
    for number in range(count):
        name, pixels = drawn[number * 5 % len(drawn)]
        place = target / name / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        top, left = rng.integers(pixels.shape[0] - 64), rng.integers(pixels.shape[1] - 64)
        part = pixels[top : top + 64, left : left + 64] + rng.integers(-12, 13, (64, 64, 1))
        Image.fromarray(part.clip(0, 255).astype(np.uint8)).save(place, quality=85)


def held(root: int) -> float:
    """Megabytes that a process and its children hold: of their own, and in shared memory."""
    parent, own = {}, {}
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError):  # gone, no process, a thread of the system
            fields = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
            parent[int(place.name)] = int(fields["PPid"])
            own[int(place.name)] = int(fields["RssAnon"].split()[0]) / 1024
    tree = {root}
    while more := {one for one, above in parent.items() if above in tree} - tree:
        tree |= more
    shared = os.statvfs("/dev/shm")
    return sum(own.get(one, 0.0) for one in tree) + (shared.f_blocks - shared.f_bfree) * shared.f_frsize / 1e6


def fit_peak(folder: Path, count: int) -> tuple[float, float]:
    """Megabytes of a cache of noise, and at most held by `ball fit` on it."""
    cache, views, dim = folder / "noise.h5", 15, 1920
    rng = np.random.default_rng(0)
    labels = [f"{row % 4}" for row in range(count)]
    attributes = {"fingerprint": "noise", "backbone": "densenet201", "recipe": "report", "precision": "fp32",
                  "batch_size": 8}  # fmt: skip
    contents = CacheContents(
        paths=[f"{label}/{row}" for row, label in enumerate(labels)],
        labels=labels,
        sha256=[f"{row:064x}" for row in range(count)],
        view=["plain", *(f"view-{number}" for number in range(1, views))],
        dim=dim,
        dtype="float16",
        shortcuts={},
        attributes=attributes,
    )
    create_cache(cache, contents)
    with CacheWriter(cache) as writer:
        for start in range(0, count, 500):
            rows = np.arange(start, min(start + 500, count))
            writer.write(rows, rng.normal(size=(len(rows), views, dim)).astype(np.float16), {})
    command = [sys.executable, "-m", "ball_features", "fit", str(cache), "--models", "logistic,knn"]
    options = ["--train-views", "plain", "--repeats", "1", "--out", str(folder), "--quiet"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, held(process.pid))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"The fit on {count} images failed.")
    size = cache.stat().st_size / 1e6
    cache.unlink()
    return size, peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="2000,20000")
    parser.add_argument("--views", default="", help="of each image; the default's if empty")
    parser.add_argument("--input-px", default="", help="side of the network's input; its own if empty")
    parser.add_argument("--distinct", action="store_true", help="a file of its own for each image, not a link")
    parser.add_argument("--fit", default="", help="images of caches to fit on, with commas between")
    arguments = parser.parse_args()
    print(describe("torch", "h5py", "scikit-learn"), end="\n\n")
    if arguments.fit:
        print("| images | cache MB | peak MB |\n| ---: | ---: | ---: |")
        with tempfile.TemporaryDirectory() as name:
            for count in (int(part) for part in arguments.fit.split(",")):
                size, peak = fit_peak(Path(name), count)
                print(f"| {count} | {size:.0f} | {peak:.0f} |", flush=True)
        return
    peaks: list[float] = []
    print("| images | s | CPU s | peak MB |\n| ---: | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_smears(folder / "drawn", per_class=8, seed=0)
        for count in (int(part) for part in arguments.counts.split(",")):
            (draw if arguments.distinct else link)(folder / "drawn", folder / str(count), count)
            settings = ["--backbone", "densenet121", "--weights", "random", "--quiet"]
            settings += ["--views", arguments.views] if arguments.views else []
            settings += ["--input-px", arguments.input_px] if arguments.input_px else []
            start = time.perf_counter()
            command = [sys.executable, "-m", "ball_features", "extract", str(folder / str(count))]
            process = subprocess.Popen([*command, "--out", str(folder / f"{count}.h5"), *settings])
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"The extraction of {count} images failed.")
            peaks.append(usage.ru_maxrss / 1024)
            spent = f"{time.perf_counter() - start:.0f} | {usage.ru_utime + usage.ru_stime:.0f}"
            print(f"| {count} | {spent} | {peaks[-1]:.0f} |", flush=True)
            shutil.rmtree(folder / str(count))
            (folder / f"{count}.h5").unlink()
    print(f"\nThe last against the first: {100 * (peaks[-1] / peaks[0] - 1):+.1f} %")


if __name__ == "__main__":
    main()
