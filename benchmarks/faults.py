"""Kill commands at random moments and flip bits of their files; compare what is left with an undisturbed run.

    python benchmarks/faults.py kill FOLDER --command extract --count 50      (also fit, audit, assess)
    python benchmarks/faults.py full FOLDER                                   (a disk that fills up, by a size limit)
    python benchmarks/faults.py flip CACHE --count 200
    python benchmarks/faults.py cost CACHE                                    (time of the checksums, share of a read)

FOLDER is made and filled with drawn smears. Every line is a count; exit code 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ball_features.cache import read_cache, verify_cache
from ball_features.dataset.synthetic import draw_smears
from ball_features.errors import CacheError

COMMAND = [sys.executable, "-m", "ball_features"]
NETWORK = ["--backbone", "densenet121", "--weights", "random", "--views", "1", "--precision", "fp32"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


def arguments(name: str, folder: Path, out: Path) -> list[str]:
    """The command line of a command that writes into `out`."""
    images, cache = str(folder / "images"), str(folder / "cache.h5")
    return {
        "extract": ["extract", images, "--out", str(out / "a.h5"), "--batch-size", "2", *NETWORK],
        "fit": ["fit", cache, "--models", "logistic,lda", "--repeats", "2", "--out", str(out), "--name", "run"],
        "audit": ["audit", images, "--out", str(out / "groups.csv"), "--page", str(out / "page.html")],
        "assess": ["assess", images, "--out", str(out), "--backbone", "densenet121", "--weights", "random"],
    }[name]


def result(name: str, out: Path) -> bytes:
    """What a finished command must have written, as bytes that two runs share; b"" where it is not there."""
    if name == "extract":
        cache = read_cache(out / "a.h5")
        return cache.embeddings.tobytes() + "".join(cache.path.tolist()).encode() if cache.complete else b""
    if name == "audit":
        return (out / "groups.csv").read_bytes()
    tables = sorted(out.rglob("predictions.csv"))
    return b"".join(path.read_bytes() for path in tables)


def left_whole(name: str, out: Path) -> bool:
    """Whether everything with a final name is whole; nothing half-written may look finished."""
    for path in out.rglob("*"):
        if not path.is_file() or any(part.endswith(".partial") for part in path.parts):
            continue
        if path.suffix == ".h5":
            read_cache(path)
        if path.suffix == ".html" and not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
            return False
        if path.suffix == ".csv" and not path.read_bytes().endswith(b"\n"):
            return False
    return name != "fit" or all((run / "predictions.csv").is_file() for run in out.glob("run*"))


def kill(folder: Path, name: str, count: int, seed: int = 0) -> int:
    """Kill a command so many times, each time run it again to its end; the number of faults."""
    draw = random.Random(seed)
    prepare(folder)
    whole = folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    start = time.perf_counter()
    subprocess.run([*COMMAND, *arguments(name, folder, whole)], check=True, capture_output=True)
    takes, expected, faults, killed = time.perf_counter() - start, result(name, whole), 0, 0
    for number in range(count):
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        with subprocess.Popen(
            [*COMMAND, *arguments(name, folder, out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(draw.uniform(0, 0.8 * takes))
            if process.poll() is None:
                process.send_signal(SIGNALS[number % 2])
                killed += 1
        sound = left_whole(name, out)
        done = subprocess.run([*COMMAND, *arguments(name, folder, out)], capture_output=True, text=True)
        same = done.returncode == 0 and expected == (result(name, out)[-len(expected) :])
        rest = [path.name for path in out.rglob("*.partial")]
        if not (sound and same and not rest):
            faults += 1
            print(f"{name} {number}: whole {sound}, same {same}, left over {rest}, {done.stderr[-200:]}")
    print(f"{name}: {killed} of {count} runs killed at a random moment, {faults} faults")
    return faults


def full(folder: Path) -> int:
    """Run commands with a limit on the size of files, which fails as a full disk does; the number of faults."""
    prepare(folder)
    faults = 0
    for name in ("extract", "audit", "fit"):
        for most in (1_000, 20_000, 200_000):
            out = folder / "full"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            done = subprocess.run(
                [*COMMAND, *arguments(name, folder, out)],
                capture_output=True,
                text=True,
                preexec_fn=lambda most=most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
            )
            if done.returncode not in (0, 2) or not left_whole(name, out):
                faults += 1
                print(f"{name} with files of {most} bytes: exit code {done.returncode}, {done.stderr[-300:]}")
    print(f"full disk: 9 runs, {faults} faults")
    return faults


def prepare(folder: Path) -> None:
    """Draw smears and extract them, once."""
    if not (folder / "images").exists():
        draw_smears(folder / "images", per_class=12, seed=1)
        (folder / "images" / "truth.json").rename(folder / "truth.json")
    if not (folder / "cache.h5").exists():
        command = ["extract", str(folder / "images"), "--out", str(folder / "cache.h5"), *NETWORK]
        subprocess.run([*COMMAND, *command], check=True, capture_output=True)


def flip(path: Path, count: int, seed: int = 0) -> int:
    """Flip one bit of a cache, so many times; the number that nothing notices."""
    data, draw, silent = path.read_bytes(), np.random.default_rng(seed), 0
    copy = path.with_suffix(".flipped.h5")
    for _ in range(count):
        changed = bytearray(data)
        place = int(draw.integers(len(data)))
        changed[place] ^= 1 << int(draw.integers(8))
        copy.write_bytes(changed)
        try:
            noticed = not verify_cache(copy).sound
        except CacheError:
            noticed = True
        silent += not noticed
    copy.unlink()
    print(f"flip: {count} bits of {len(data)} bytes flipped, {count - silent} noticed, {silent} not")
    return silent


def cost(path: Path) -> int:
    """Time a read with and without its checksums, the best of five."""
    seconds = {}
    for verify in (False, True):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            np.asarray(read_cache(path, verify=verify).embeddings).sum(dtype=np.float32)
            times.append(time.perf_counter() - start)
        seconds[verify] = min(times)
    extra = seconds[True] - seconds[False]
    print(f"cost: {path.stat().st_size / 1e6:.0f} MB, {1e3 * extra:.0f} ms for the checksums of one read")
    return 0


def main() -> int:
    """Do what the command line asks for; the number of faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("kill", "full", "flip", "cost"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--command", default="extract", choices=("extract", "fit", "audit", "assess"))
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    if options.what in ("kill", "full"):
        options.path.mkdir(parents=True, exist_ok=True)
    if options.what == "kill":
        return kill(options.path, options.command, options.count)
    if options.what == "flip":
        return flip(options.path, options.count)
    return full(options.path) if options.what == "full" else cost(options.path)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
