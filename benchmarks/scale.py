"""`ball fit` on drawn caches that grow: seconds, and the memory that its processes hold.

    python benchmarks/scale.py draw --rows 100000 --out drawn.h5 [--dim 1920] [--patients 100]
    python benchmarks/scale.py many --rows 1000000 --patients 50000
    python benchmarks/scale.py fit --rows 10000,100000,1000000 --models mlp,logistic,xgboost --memory 4GB
    python benchmarks/scale.py access drawn.h5
    python benchmarks/scale.py accuracy CACHE --memory 100MB

draw writes a cache of rows x 1 x 1920 float16: four classes, a hundred patients whose images share an offset, as an
extraction would write it. fit draws one for each number of rows, fits each model in a process of its own, and deletes
the cache. Memory is what the process tree holds of its own, and its resident memory with pages of mapped files, which
the system takes back when it needs them. access reads one class, one patient and some rows of a cache. accuracy
compares models that stream a real cache with those that hold it. many cross-validates narrow rows by patient, so that
what is timed is everything but the fits: tests, intervals, patients and page of as many predictions as there are rows.
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

import numpy as np
from machine import describe

from ball_features.cache import CacheContents, CacheWriter, create_cache, read_cache
from ball_features.config import FitConfig
from ball_features.evaluation.results import ModelRow, read_measurement
from ball_features.runs.fit import fit as ball_fit

DIM, CLASSES, PATIENTS, BLOCK = 1920, ("Benign", "Early", "Pre", "Pro"), 100, 4096


def draw(path: Path, rows: int, dim: int = DIM, patients: int = PATIENTS) -> None:
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
        view=["plain"],
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
            X = rng.standard_normal((len(own), dim), dtype=np.float32)
            X += centre[code[own]] + shift[patient[own]]
            writer.write(own, X.astype(np.float16)[:, None, :], {})


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
    own, resident, status = 0.0, 0.0, None
    while status is None:
        now = held(process.pid)
        own, resident = max(own, now[0]), max(resident, now[1])
        time.sleep(0.2)
        gone, code, usage = os.wait4(process.pid, os.WNOHANG)
        status = code if gone else None
    if status:
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
    """Print what parts of a cache cost to read."""
    start = time.perf_counter()
    cache = read_cache(arguments.cache, verify=False)
    print(f"Texts and settings of {len(cache.path)} rows: {time.perf_counter() - start:.2f} s\n")
    columns = cache.columns
    parts = {
        "one class": np.flatnonzero(cache.label == cache.label[0]),
        "one patient": np.flatnonzero(columns["patient"] == columns["patient"][0]),
        "1,000 random rows": np.sort(np.random.default_rng(0).choice(len(cache.path), 1000, replace=False)),
    }
    print("| part | rows | MB | s |\n| --- | ---: | ---: | ---: |")
    for name, rows in parts.items():
        start = time.perf_counter()
        taken = cache.embeddings[rows, 0]
        print(f"| {name} | {len(rows)} | {taken.nbytes / 1e6:.0f} | {time.perf_counter() - start:.2f} |")


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
    own.set_defaults(run=lambda given: draw(given.out, given.rows, given.dim, given.patients))
    own = commands.add_parser("fit")
    own.add_argument("--rows", default="10000,100000")
    own.add_argument("--models", default="mlp,logistic,xgboost")
    own.add_argument("--memory", default="4GB")
    own.add_argument("--epochs", type=int, default=5)
    own.add_argument("--folder", help="folder for the caches; the system's temporary one if left out")
    own.set_defaults(run=fit)
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
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
