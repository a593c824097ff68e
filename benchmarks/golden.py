"""Compare what two checkouts compute: embeddings, fingerprints, tables, predictions, exported graphs.

    python benchmarks/golden.py run CHECKOUT OUT [--data DATA --weights WEIGHTS] [--images 400]
    python benchmarks/golden.py compare OUT_A OUT_B

`run` calls the commands of a checkout (its own `ball_features`, by PYTHONPATH) on drawn smears and, where DATA and
WEIGHTS name the real ones, on a fixed sample of them. `compare` reads the files of two such runs and lists every number
that differs; seconds, dates and versions are left out. Equal means bit for bit, on one machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

STEPS = (
    "report", "dihedral", "zoom", "blur", "jpeg", "stain-jitter", "mask-overlay", "grey", "haematoxylin", "reinhard",
    "segmented", "segmented-otsu", "enlarge", "cells", "soft",
)  # fmt: skip
READOUTS = ("grey@nuclei", "grey@block3", "grey@block3-nuclei", "grey@block2", "grey@block2-nuclei")
# The four views that version 0.1.0 called robust, and its models: written out, since names may come to mean more.
FIELDS = (
    "mask-overlay+haematoxylin+soft@block2-nuclei,segmented+haematoxylin@block3-nuclei,"
    "mask-overlay+haematoxylin+cells@block2,mask-overlay+haematoxylin+soft@block2"
)
MODELS = (
    "mlp,logistic,robust-logistic,robust-views,linear-svm,rbf-svm,knn,lda,random-forest,extra-trees,"
    "hist-gradient-boosting,xgboost,majority,colour,histogram,nuclei,corner"
)
# Columns that tell the time, and keys of JSON that tell when, where and by what something was made.
TIMES = {"fit_s", "predict_s", "images_per_s"}
# Datasets of a cache that tell its seconds, and what was hashed with its date.
TIMED = {"timing", "checksums/timing", "checksums/seal"}
MADE = TIMES | {
    "created", "versions", "ball_version", "command", "cache", "cache_attributes", "python", "run", "config",
    "config_fingerprint",
}  # fmt: skip


def ball(checkout: Path, *words: object) -> None:
    """Run a command of a checkout; its output is shown where it fails."""
    command = [sys.executable, "-m", "ball_features", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=checkout)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def run(checkout: Path, out: Path, data: Path | None, weights: Path | None, images: int) -> None:
    """Compute everything."""
    checkout, out = checkout.resolve(), out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    smears = out.parent / "golden-smears"
    if not smears.exists():
        code = f"from ball_features import draw_smears; draw_smears({str(smears)!r}, per_class=12, seed=1)"
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(checkout)}, check=True)
    drawn = ("--backbone", "densenet121", "--weights", "random", "--precision", "fp32", "-q")
    recipe = ",".join([*STEPS, *READOUTS])
    ball(checkout, "extract", smears, "--out", out / "steps.h5", "--recipe", recipe, "--limit", 12, *drawn)
    ball(checkout, "extract", smears, "--out", out / "plain.h5", "--views", 1, *drawn)
    ball(checkout, "extract", smears, "--out", out / "report.h5", "--views", 3, "--seed", 3, *drawn)
    ball(
        checkout,
        "extract",
        smears,
        "--out",
        out / "two.h5",
        "--channels",
        "original,segmented",
        "--twins",
        "none",
        *drawn,
    )
    ball(checkout, "extract", smears, "--out", out / "robust.h5", "--recipe", FIELDS, *drawn)
    ball(checkout, "audit", smears, "--out", out / "drawn-groups.csv", "-q")
    fit(checkout, out, "drawn", out / "robust.h5", smears, "--repeats", 2, "--models", MODELS)
    fit(checkout, out, "two", out / "two.h5", smears, "--repeats", 1, "--models", "mlp,logistic,colour")
    if data is not None and weights is not None:
        own = data.resolve() / "all"
        for name, backbone, file, count in (
            ("d121", "densenet121", "densenet121.pth", images),
            ("d201", "densenet201", "densenet201-standin.pth", max(images // 8, 8)),
        ):
            chosen = ("--backbone", backbone, "--weights", weights.resolve() / file, "--limit", count, "-q")
            ball(checkout, "extract", own, "--out", out / f"{name}.h5", "--recipe", FIELDS, *chosen)
        ball(checkout, "audit", data / "augmented" / "images", "--out", out / "augmented-groups.csv", "-q")
        fit(checkout, out, "real", out / "d121.h5", own / "Original" / "Pro", "--repeats", 2, "--models", MODELS)


def fit(checkout: Path, out: Path, name: str, cache: Path, images: Path, *more: object) -> None:
    """A table with every bundle that can be saved, predictions of the head, the graph of two models."""
    ball(checkout, "fit", cache, "--out", out / "runs", "--name", name, "--save", "all", "--jobs", 1, "-q", *more)
    bundles = out / "runs" / name / "models"
    few = out.parent / f"golden-few-{name}"
    if not few.exists():
        few.mkdir()
        for number, file in enumerate(sorted(path for path in images.rglob("*") if path.is_file())[:12]):
            shutil.copy(file, few / f"{number}{file.suffix}")
    for bundle in sorted(path.parent for path in bundles.glob("*/bundle.json")):
        target = out / "predictions" / f"{name}-{bundle.name}.csv"
        ball(checkout, "predict", bundle, few, "--out", target, "--precision", "fp32", "-q")
    for model in ("mlp", "logistic"):
        if (bundles / model).is_dir():
            (out / "graphs").mkdir(exist_ok=True)
            ball(checkout, "export", bundles / model, "--onnx", out / "graphs" / f"{name}-{model}.onnx")


def compare(one: Path, other: Path) -> list[str]:
    """What differs, a line each."""
    differences = []
    names = {path.relative_to(root).as_posix() for root in (one, other) for path in root.rglob("*") if path.is_file()}
    for name in sorted(names):
        a, b = one / name, other / name
        if not (a.exists() and b.exists()):
            if name.rsplit(".", 1)[-1] in ("h5", "csv", "onnx", "safetensors"):
                differences.append(f"{name}: only in {one if a.exists() else other}")
            continue
        own = {".h5": _caches, ".csv": _tables, ".onnx": _graphs, ".json": _values}.get(a.suffix)
        if own is not None:
            differences += [f"{name}: {line}" for line in own(a, b)]
    return differences


def _caches(a: Path, b: Path) -> Iterator[str]:
    with h5py.File(a, "r") as one, h5py.File(b, "r") as other:
        names: list[str] = []
        one.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            if name not in TIMED and (name not in other or not _same(one[name][()], other[name][()])):
                yield f"dataset {name}"
        for key in ("fingerprint", "overlay_mask", "precision"):
            if one.attrs.get(key) != other.attrs.get(key):
                yield f"attribute {key}"


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _tables(a: Path, b: Path) -> Iterator[str]:
    rows = [list(csv.DictReader(path.open(newline="", encoding="utf-8"))) for path in (a, b)]
    if len(rows[0]) != len(rows[1]):
        yield f"{len(rows[0])} rows and {len(rows[1])}"
        return
    kept = [key for key in (rows[0][0] if rows[0] else {}) if key not in TIMES]
    for number, (one, other) in enumerate(zip(*rows, strict=True), 1):
        wrong = [key for key in kept if one[key] != other.get(key)]
        if wrong:
            yield f"row {number}, {', '.join(f'{key}: {one[key]} and {other.get(key)}' for key in wrong[:3])}"


def _values(a: Path, b: Path) -> Iterator[str]:
    """Numbers of JSON files that both have; new keys, words and what tells of the making are left out."""
    yield from _differing(json.loads(a.read_text("utf-8")), json.loads(b.read_text("utf-8")), "")


def _differing(one: object, other: object, place: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() & other.keys() - MADE:
            yield from _differing(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _differing(*pair, f"{place}/{number}")
    elif isinstance(one, int | float) and isinstance(other, int | float) and one != other:
        yield f"{place}: {one} and {other}"


def _graphs(a: Path, b: Path) -> Iterator[str]:
    import onnxruntime

    images = np.random.default_rng(0).random((2, 3, 224, 224), dtype=np.float32)
    answers = []
    for path in (a, b):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {"images": images}))
    for number, (one, other) in enumerate(zip(*answers, strict=True)):
        if not _same(one, other):
            yield f"output {number} differs by {np.abs(one - other).max():.1e}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    own = commands.add_parser("run")
    own.add_argument("checkout", type=Path)
    own.add_argument("out", type=Path)
    own.add_argument("--data", type=Path, default=os.environ.get("BALL_DATA"))
    own.add_argument("--weights", type=Path, default=os.environ.get("BALL_WEIGHTS"))
    own.add_argument("--images", type=int, default=400)
    two = commands.add_parser("compare")
    two.add_argument("one", type=Path)
    two.add_argument("other", type=Path)
    wanted = parser.parse_args()
    if wanted.command == "run":
        data, weights = (None if value is None else Path(value) for value in (wanted.data, wanted.weights))
        run(wanted.checkout, wanted.out, data, weights, wanted.images)
        return
    differences = compare(wanted.one, wanted.other)
    for line in differences:
        print(line)
    print(f"{len(differences)} differences")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
