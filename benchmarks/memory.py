"""Peak memory of `ball extract` by the number of images, and of `ball fit` by the size of the cache.

    python benchmarks/memory.py --counts 2000,20000 [--views 1]
    python benchmarks/memory.py --counts 10000,30000,100000 --views 1 --input-px 32 --distinct --trace
    python benchmarks/memory.py --fit 2000,20000

Synthetic images, linked as often as it takes, go through DenseNet-121 with random weights, in the five views that are
the default unless --views says otherwise; every link is a row of its own and is computed. With --distinct each image is
a file of its own, a drawn crop of 64 px as in audit.py; --keep DIR keeps them and finds them again. The peak is the
resident memory of the process that extracts; --trace prints what it holds besides files over the run, and the slope by
image once the first tenth is over. --fit makes caches of noise, 15 views of 1920, and fits two models on the plain one;
the peak is what all its processes hold besides files (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from audit import draw
from machine import describe

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


def own_memory(process: int) -> float:
    """Megabytes that one process holds besides files; NaN when it has ended."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (Path("/proc") / str(process) / "status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024
    return float("nan")


def extract_traced(
    command: list[str], count: int, period: float = 1.0
) -> tuple[resource.struct_rusage, list[float], float]:
    """What an extraction used, what it held after each tenth, and megabytes an image after the first tenth."""
    process = subprocess.Popen(command)
    seconds, memory = [], []
    while True:
        gone, status, usage = os.wait4(process.pid, os.WNOHANG)
        if gone:
            break
        seconds.append(time.perf_counter())
        memory.append(own_memory(process.pid))
        time.sleep(period)
    if status:
        sys.exit(f"The extraction of {count} images failed.")
    seen = np.isfinite(memory)  # not so once the process has ended
    seconds, held_then = np.array(seconds)[seen], np.array(memory)[seen]
    moments = np.linspace(0, len(held_then) - 1, 11).astype(int)[1:]
    late = slice(len(held_then) // 10, None)
    slope = np.polyfit(seconds[late], held_then[late], 1)[0] if len(seconds[late]) > 1 else float("nan")
    return usage, held_then[moments].tolist(), float(slope * (seconds[-1] - seconds[0]) / count)


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
    parser.add_argument("--keep", type=Path, help="folder where the images stay")
    parser.add_argument("--trace", action="store_true", help="what the process holds over the run")
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
            images = (arguments.keep or folder) / str(count)
            if arguments.distinct:
                images = draw(images, count, crops=True)
            elif not images.is_dir():
                link(folder / "drawn", images, count)
            settings = ["--backbone", "densenet121", "--weights", "random", "--quiet"]
            settings += ["--views", arguments.views] if arguments.views else []
            settings += ["--input-px", arguments.input_px] if arguments.input_px else []
            start = time.perf_counter()
            command = [sys.executable, "-m", "ball_features", "extract", str(images)]
            command += ["--out", str(folder / f"{count}.h5"), *settings]
            usage, tenths, slope = extract_traced(command, count)
            peaks.append(usage.ru_maxrss / 1024)
            spent = f"{time.perf_counter() - start:.0f} | {usage.ru_utime + usage.ru_stime:.0f}"
            print(f"| {count} | {spent} | {peaks[-1]:.0f} |", flush=True)
            if arguments.trace:
                held_then = ", ".join(f"{own:.0f}" for own in tenths)
                print(f"\nOwn MB after each tenth: {held_then}; {1024 * slope:.2f} kB an image after the first.\n")
            if arguments.keep is None:
                shutil.rmtree(images)
            (folder / f"{count}.h5").unlink()
    print(f"\nThe last against the first: {100 * (peaks[-1] / peaks[0] - 1):+.1f} %")


if __name__ == "__main__":
    main()
