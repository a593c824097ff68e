"""`ball fit` on drawn caches that grow: seconds, and the memory that its processes hold.

    python benchmarks/scale.py draw --rows 100000 --out drawn.h5 [--dim 1920] [--views 1] [--patients 100]
    python benchmarks/scale.py many --rows 1000000 --patients 50000
    python benchmarks/scale.py fit --rows 10000,100000,1000000 --models mlp,logistic,xgboost --memory 4GB
    python benchmarks/scale.py boost --rows 10000,100000,1000000 --memory 4GB --rounds 10
    python benchmarks/scale.py access drawn.h5
    python benchmarks/scale.py accuracy CACHE --memory 100MB

draw writes a cache of rows x views x 1920 float16: four classes, a hundred patients whose images share an offset, as an
extraction would write it. fit draws one for each number of rows, fits each model in a process of its own, and deletes
the cache. Memory is what the process tree holds of its own, and its resident memory with pages of mapped files, which
the system takes back when it needs them. boost is XGBoost alone, on two thirds of the rows, and takes apart what it
does once (read and bin) from what it does in each round. access reads parts of a cache, each from the disk.
accuracy compares models that stream a real cache with those that hold it. many cross-validates narrow rows by patient,
so that what is timed is everything but the fits: tests, intervals, patients and page of as many predictions as there
are rows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from machine import describe

from ball_features.cache import CacheContents, CacheWriter, create_cache, read_cache, read_rows
from ball_features.config import FitConfig
from ball_features.evaluation.results import ModelRow
from ball_features.evaluation.stored_results import read_measurement
from ball_features.models.boosting import XGBoost
from ball_features.models.row_stream import RowStream
from ball_features.models.streamed import fit_xgboost
from ball_features.runs.fit import fit as ball_fit

DIM, CLASSES, PATIENTS, BLOCK = 1920, ("Benign", "Early", "Pre", "Pro"), 100, 4096


def draw(path: Path, rows: int, dim: int = DIM, patients: int = PATIENTS, views: int = 1) -> None:
    """Write a complete cache of drawn embeddings: class offset + patient offset + noise, float16."""
    rng = np.random.default_rng(0)
    apart = math.sqrt(DIM / dim)  # classes are as far apart, whatever the width
    centre = rng.normal(size=(len(CLASSES), dim)).astype(np.float32) * (0.08 * apart)
    shift = rng.normal(size=(patients, dim)).astype(np.float32) * (0.05 * apart)
    code = np.sort(rng.integers(len(CLASSES), size=rows))  # an extraction's order: class by class
    patient = rng.integers(patients, size=rows)
    contents = CacheContents(
        paths=[f"{CLASSES[own]}/{row:08}.jpg" for row, own in enumerate(code.tolist())],
        labels=[CLASSES[own] for own in code.tolist()],
        sha256=[f"{row:064x}" for row in range(rows)],
        view=["plain", *(f"view{number}" for number in range(1, views))],
        dim=dim,
        dtype="float16",
        shortcuts={},
        attributes={"fingerprint": "drawn", "backbone": "densenet201", "recipe": "plain", "precision": "fp32",
                    "batch_size": 8},
        columns={"patient": [f"P{own:05}" for own in patient.tolist()]},
    )  # fmt: skip
    create_cache(path, contents)
    with CacheWriter(path) as writer:
        for start in range(0, rows, BLOCK):
            own = np.arange(start, min(start + BLOCK, rows))
            X = rng.standard_normal((len(own), views, dim), dtype=np.float32)
            X += (centre[code[own]] + shift[patient[own]])[:, None]
            writer.write(own, X.astype(np.float16), {})


def held(root: int) -> tuple[float, float]:
    """Gigabytes that a process and its children hold of their own, and with pages of mapped files."""
    parent, own, resident = {}, {}, {}
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError):  # gone, no process, a thread of the system
            fields = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
            number = int(place.name)
            parent[number] = int(fields["PPid"])
            own[number] = (int(fields["RssAnon"].split()[0]) + int(fields["RssShmem"].split()[0])) / 1e6
            resident[number] = int(fields["VmRSS"].split()[0]) / 1e6
    tree = {root}
    while more := {one for one, above in parent.items() if above in tree} - tree:
        tree |= more
    return sum(own.get(one, 0.0) for one in tree), sum(resident.get(one, 0.0) for one in tree)


def run_fit(cache: Path, model: str, out: Path, options: list[str]) -> dict[str, float]:
    """Seconds, accuracy and gigabytes of one `ball fit` in a process tree of its own."""
    command = [sys.executable, "-m", "ball_features", "fit", str(cache), "--models", model, "--repeats", "1"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--out", str(out), "--name", model, "--json", *options], stdout=subprocess.DEVNULL
    )
    own, resident, status, usage = 0.0, 0.0, None, None
    while status is None:
        now = held(process.pid)
        own, resident = max(own, now[0]), max(resident, now[1])
        time.sleep(0.2)
        gone, code, usage = os.wait4(process.pid, os.WNOHANG)
        status = code if gone else None
    if status or usage is None:
        sys.exit(f"The fit of {model} failed.")
    seconds = time.perf_counter() - start
    folder = max(out.glob(f"{model}*"), key=lambda path: path.stat().st_mtime)
    row = json.loads((folder / "metrics.json").read_text())["models"][0]
    page = (folder / "report.html").stat().st_size / 1e6
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": seconds, "cpu": cpu, "own": own, "resident": resident, "page": page} | {
        name: row[name] for name in ("accuracy", "fit_s", "predict_s")
    }


def fit(arguments: argparse.Namespace) -> None:
    """Print the table of `fit`."""
    print(describe("torch", "h5py", "scikit-learn", "xgboost"), end="\n\n", flush=True)
    print("| rows | model | s in all | CPU s | fit s | predict s | own GB | resident GB | accuracy | page MB |")
    print("| ---: | --- |" + " ---: |" * 8, flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for rows in (int(part) for part in arguments.rows.split(",")):
            cache = Path(name) / f"{rows}.h5"
            draw(cache, rows)
            for model in arguments.models.split(","):
                options = ["--memory", arguments.memory] if arguments.memory else []
                options += ["--epochs", str(arguments.epochs)] if model == "mlp" else []
                own = run_fit(cache, model, Path(name) / str(rows), options)
                cells = [
                    f"{own['seconds']:.0f}",
                    f"{own['cpu']:.0f}",
                    f"{own['fit_s']:.1f}",
                    f"{own['predict_s']:.1f}",
                    f"{own['own']:.2f}",
                ]
                cells += [f"{own['resident']:.2f}", f"{own['accuracy']:.4f}", f"{own['page']:.2f}"]
                print(f"| {rows} | {model} | {' | '.join(cells)} |", flush=True)
            cache.unlink()


def boost_one(arguments: argparse.Namespace) -> None:
    """Fit XGBoost on a drawn cache, and print what it took as JSON; in a process of its own."""
    cache = read_cache(arguments.cache, verify=False)
    codes = np.unique(cache.label, return_inverse=True)[1]
    images = np.flatnonzero(np.arange(len(codes)) % 3 > 0)
    memory = FitConfig(memory=arguments.memory).memory_bytes
    rows = RowStream(cache.embeddings, images, codes, (0,), memory)
    marks: list[float] = [_processor_seconds()]
    train = xgboost.train

    def marked(*more: Any) -> xgboost.Booster:
        marks.append(_processor_seconds())
        booster = train(*more)
        marks.append(_processor_seconds())
        return booster

    xgboost.train = marked
    _, how = fit_xgboost(XGBoost(n_estimators=arguments.rounds), rows, None)
    once, each = marks[1] - marks[0], (marks[2] - marks[1]) / arguments.rounds
    print(json.dumps({"once": once, "each": each, "how": how, "rows": len(rows)}))


def _processor_seconds() -> float:
    now = os.times()
    return now.user + now.system


def boost(arguments: argparse.Namespace) -> None:
    """Print the table of `boost`."""
    print(describe("xgboost", "h5py"), end="\n\n", flush=True)
    print("| rows | fitted on | CPU s once | CPU s a round | CPU s of 100 rounds | own GB | resident GB | how |")
    print("|" + " ---: |" * 7 + " --- |", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for rows in (int(part) for part in arguments.rows.split(",")):
            cache = Path(name) / f"{rows}.h5"
            draw(cache, rows)
            command = [sys.executable, __file__, "boost-one", str(cache), "--memory", arguments.memory]
            process = subprocess.Popen([*command, "--rounds", str(arguments.rounds)], stdout=subprocess.PIPE, text=True)
            own, resident = 0.0, 0.0
            while process.poll() is None:
                now = held(process.pid)
                own, resident = max(own, now[0]), max(resident, now[1])
                time.sleep(0.2)
            assert process.stdout is not None
            found = json.loads(process.stdout.read())
            whole = found["once"] + 100 * found["each"]
            cells = [str(rows), str(found["rows"]), f"{found['once']:.1f}", f"{found['each']:.3f}", f"{whole:.0f}"]
            print(f"| {' | '.join(cells)} | {own:.2f} | {resident:.2f} | {found['how']} |", flush=True)
            cache.unlink()


def many(arguments: argparse.Namespace) -> None:
    """Print seconds, memory and sizes of a run with a prediction for each row, and one answer for each patient."""
    print(describe("scikit-learn", "scipy"), end="\n\n", flush=True)
    print("| rows | patients | s | CPU s | fit s | own GB | page MB | run MB |")
    print("|" + " ---: |" * 8, flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for rows in (int(part) for part in arguments.rows.split(",")):
            cache, out = Path(name) / f"{rows}.h5", Path(name) / str(rows)
            draw(cache, rows, 8, arguments.patients)
            own = run_fit(cache, "logistic", out, ["--protocol", "patient-cv", "--folds", "2", "--jobs", "1"])
            size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
            cells = [f"{own[key]:.0f}" for key in ("seconds", "cpu")] + [f"{own['fit_s']:.1f}", f"{own['own']:.2f}"]
            print(
                f"| {rows} | {arguments.patients} | {' | '.join(cells)} | {own['page']:.2f} | {size:.0f} |", flush=True
            )
            cache.unlink()


def access(arguments: argparse.Namespace) -> None:
    """Print what parts of a cache cost to read, each in a process of its own and with nothing of the file in memory."""
    print(describe("h5py", "numpy"), end="\n\n", flush=True)
    print("| part | rows | MB of them | MB from the disk | s | CPU s |\n| --- |" + " ---: |" * 5, flush=True)
    for part in (*_PARTS, *_PLAIN):
        command = [sys.executable, __file__, "access-one", str(arguments.cache), "--part", part]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        if found:
            cells = [f"{found[key] / 1e6:.1f}" for key in ("bytes", "disk")]
            cells += [f"{found[key]:.2f}" for key in ("s", "cpu")]
            print(f"| {part} | {found['rows']:,} | {' | '.join(cells)} |", flush=True)


_PARTS = {
    "texts and settings": lambda cache: (),
    "one class": lambda cache: np.flatnonzero(cache.label == cache.label[0]),
    "one patient": lambda cache: np.flatnonzero(cache.columns["patient"] == cache.columns["patient"][0]),
    "1,000 random rows": lambda cache: np.random.default_rng(0).choice(len(cache.path), 1000, replace=False),
    "one row": lambda cache: np.array([len(cache.path) // 2]),
    "one view of all rows": lambda cache: np.arange(len(cache.path) if len(cache.view) > 1 else 0),
}
_PLAIN = ("one patient, by an index of the map",)


def access_one(arguments: argparse.Namespace) -> None:
    """Read one part of a cache, and print what it took as JSON."""
    path, part = arguments.cache, arguments.part
    plain = part in _PLAIN
    texts = part == "texts and settings"
    if texts:
        _forget(path)
    before = _taken()
    cache = read_cache(path, verify=False)
    rows = np.asarray(_PARTS[part.partition(",")[0] if plain else part](cache), dtype=int)
    size = 0
    if not texts:
        if not len(rows):
            print("{}")
            return
        _forget(path)
        before = _taken()
        for start in range(0, len(rows), BLOCK):
            own = rows[start : start + BLOCK] if part == "one view of all rows" else rows
            size += (cache.embeddings[own, 0] if plain else read_rows(cache.embeddings, own)[:, 0]).nbytes
            if own is rows:
                break
    disk, seconds, cpu = (after - first for after, first in zip(_taken(), before, strict=True))
    print(json.dumps({"rows": len(rows) or len(cache.path), "bytes": size, "disk": disk, "s": seconds, "cpu": cpu}))


def _forget(path: Path) -> None:
    """Let the system keep nothing of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _taken() -> tuple[float, float, float]:
    """Bytes that this process has had read from disks, the clock, and its processor seconds."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return float(lines["read_bytes"]), time.perf_counter(), _processor_seconds()


def accuracy(arguments: argparse.Namespace) -> None:
    """Print the accuracy of models that hold a cache beside those that stream it."""
    names = arguments.models.split(",")
    rows: dict[str, dict[str, ModelRow]] = {}
    with tempfile.TemporaryDirectory() as name:
        for memory in ("", arguments.memory):
            config = FitConfig(models=tuple(names), repeats=arguments.repeats, memory=memory)
            run = ball_fit(arguments.cache, config, out_root=name, name=f"memory-{memory}")
            rows[memory] = {row.model: row for row in read_measurement(run.folder).models}
    print("| model | held | 95 % | past memory | log loss | log loss past memory | how |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for model in names:
        held_row, row = rows[""][model], rows[arguments.memory][model]
        low, high = (100 * end for end in held_row.intervals["accuracy"])
        cells = [f"{100 * held_row.accuracy:.2f}", f"{low:.1f} to {high:.1f}", f"{100 * row.accuracy:.2f}"]
        cells += [f"{own.values['log_loss']:.4f}" for own in (held_row, row)]
        print(f"| {model} | {' | '.join(cells)} | {row.fitted_on or 'all rows, held'} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    own = commands.add_parser("draw")
    own.add_argument("--rows", type=int, default=100_000)
    own.add_argument("--out", type=Path, required=True)
    own.add_argument("--dim", type=int, default=DIM)
    own.add_argument("--patients", type=int, default=PATIENTS)
    own.add_argument("--views", type=int, default=1)
    own.set_defaults(run=lambda given: draw(given.out, given.rows, given.dim, given.patients, given.views))
    own = commands.add_parser("fit")
    own.add_argument("--rows", default="10000,100000")
    own.add_argument("--models", default="mlp,logistic,xgboost")
    own.add_argument("--memory", default="4GB")
    own.add_argument("--epochs", type=int, default=5)
    own.add_argument("--folder", help="folder for the caches; the system's temporary one if left out")
    own.set_defaults(run=fit)
    own = commands.add_parser("boost")
    own.add_argument("--rows", default="10000,100000,1000000")
    own.add_argument("--memory", default="4GB")
    own.add_argument("--rounds", type=int, default=10)
    own.add_argument("--folder", help="folder for the caches; the system's temporary one if left out")
    own.set_defaults(run=boost)
    own = commands.add_parser("boost-one")
    own.add_argument("cache", type=Path)
    own.add_argument("--memory", default="4GB")
    own.add_argument("--rounds", type=int, default=10)
    own.set_defaults(run=boost_one)
    own = commands.add_parser("many")
    own.add_argument("--rows", default="100000,1000000")
    own.add_argument("--patients", type=int, default=50_000)
    own.add_argument("--folder", help="folder for the caches; the system's temporary one if left out")
    own.set_defaults(run=many)
    own = commands.add_parser("accuracy")
    own.add_argument("cache", type=Path)
    own.add_argument("--models", default="mlp,logistic,linear-svm,xgboost,knn,rbf-svm,lda,random-forest")
    own.add_argument("--memory", default="20MB")
    own.add_argument("--repeats", type=int, default=1)
    own.set_defaults(run=accuracy)
    own = commands.add_parser("access")
    own.add_argument("cache", type=Path)
    own.set_defaults(run=access)
    own = commands.add_parser("access-one")
    own.add_argument("cache", type=Path)
    own.add_argument("--part", required=True)
    own.set_defaults(run=access_one)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
