"""What a finished command must have written, and whether files with a final name are whole; for `faults.py`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from ball_features.bundles.bundle import read_bundle
from ball_features.cache import read_cache, verify_cache
from ball_features.errors import BallError

_OWN = ("created", "folder", "fit_s", "predict_s")  # what differs between two runs


def result(name: str, out: Path) -> bytes:
    """The bytes that two runs of a command share; b"" where something is missing."""
    try:
        if name in ("extract", "merge"):
            cache = read_cache(out / "a.h5")
            texts = "".join([*cache.path.tolist(), *cache.label.tolist(), *cache.sha256.tolist()])
            return cache.embeddings.tobytes() + texts.encode() if cache.complete else b""
        if name == "audit":
            # A row that an earlier run could not have is added below those that are there.
            rows = sorted((out / "groups.csv").read_bytes().splitlines())
            return b"\n".join(rows) + (out / "page.html").read_bytes()
        if name in ("evaluate", "patients"):
            values = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
            kept = {key: value for key, value in values.items() if key not in _OWN}
            files = ("predictions.csv", *(("patients.csv",) if name == "patients" else ()))
            return json.dumps(kept).encode() + b"".join((out / file).read_bytes() for file in files)
        if name in ("labels", "sheet", "predict", "onnx", "page"):
            made = {
                "predict": ("a.csv", "a.csv.json", "a.patients.csv"),
                "onnx": ("a.onnx", "card.md"),
                "page": ("page.html",),
            }
            return b"".join((out / file).read_bytes() for file in made.get(name, ("a.csv",)))
        if name == "export":
            return (out / "a.csv").read_bytes() + (out / "a.parquet").read_bytes()
        if name == "segment":
            return b"".join(path.read_bytes() for path in sorted(out.rglob("*.*")))
        if name == "report":
            return b"".join(path.read_bytes() for path in sorted((out / "figures").iterdir()))
        if name == "adapt":
            facts = json.loads((out / "new/bundle.json").read_text(encoding="utf-8"))
            kept = json.dumps({key: value for key, value in facts.items() if key not in _OWN}).encode()
            return kept + b"".join(
                (out / "new" / file).read_bytes() for file in ("model.skops", "reference.safetensors")
            )
        drawn = b""
        if name == "demo":
            drawn = (out / "truth.json").read_bytes() + (out / "groups.csv").read_bytes()
            drawn += b"".join(path.read_bytes() for path in sorted((out / "images").rglob("*.jpg")))
            assert read_cache(out / "cache.h5").complete and (out / "assess.html").exists()
        # A run that was killed right after it was finished stands beside the one that was made anew: both are whole.
        runs = [run for run in out.glob("ladder*" if name in ("assess", "demo") else "run*") if run.is_dir()]
        found = {b"".join(path.read_bytes() for path in sorted(run.rglob("predictions.csv"))) for run in runs}
        return drawn + found.pop() if len(found) == 1 else b""
    except (OSError, ValueError, KeyError, AssertionError, BallError):
        return b""


def left_whole(out: Path) -> str:
    """The first file with a final name that is not whole, with the reason, or ""."""
    for path in sorted(out.rglob("*")):
        if not path.is_file() or any(part.endswith(".partial") for part in path.parts):
            continue
        try:
            _check(path)
        except Exception as error:  # whatever a reader says of half a file
            return f"{path.name}: {type(error).__name__}: {error}"
    return ""


def _check(path: Path) -> None:
    if path.suffix == ".h5":
        read_cache(path)
        found = verify_cache(path)  # whole rows that are not marked yet are computed again: no harm
        if len(found.damaged) or not found.index:
            raise ValueError("checksums differ")
    elif path.suffix == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        assert path.read_bytes().endswith(b"\n")
        with path.open(newline="", encoding="utf-8") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1
    elif path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".parquet":
        from pyarrow import parquet

        parquet.read_table(path)
    if path.name == "bundle.json":
        read_bundle(path.parent)
