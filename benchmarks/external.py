"""External evaluation on real data: train on two sites, evaluate on the third, and compute the figures again.

    python benchmarks/external.py DATA/hospitals OUT --weights WEIGHTS/densenet121.pth [--models logistic,mlp]

DATA/hospitals holds `images/CLASS/*` and `sites.csv` (path,site). For each site in turn: `ball extract --sheet` and
`ball fit --save` on the images of the others, `ball evaluate` on those of the site. The images are linked, not copied.
`check` reads nothing but the files of an evaluation, and computes accuracy, balanced recall, coverage, ECE, log loss
and the shares of flagged images from `predictions.csv` by scikit-learn and plain loops.

    python benchmarks/external.py check EVALUATION [EVALUATION ...]
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

TOLERANCE = 1e-9


def ball(*words: object) -> float:
    """Run a command; return its seconds."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "ball_features", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ball {' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def link(images: Path, paths: list[str], folder: Path) -> None:
    """Link images into a folder, with the folders of their classes."""
    for path in paths:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to((images / path).resolve())


def expected_calibration_error(confidence: np.ndarray, hit: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017, equation 3, by a loop over the bins (low, high]."""
    error = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        own = (confidence > low) & (confidence <= high)
        if own.any():
            error += own.sum() / len(hit) * abs(hit[own].mean() - confidence[own].mean())
    return error


def recompute(folder: Path) -> dict[str, float]:
    """The figures of an evaluation, from its `predictions.csv` alone."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "scored"]
    classes = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    truth = [row["true"] for row in rows]
    probability = np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])
    predicted = [classes[column] for column in probability.argmax(1)]
    assert predicted == [row["predicted"] for row in rows]
    hit = np.array([a == b for a, b in zip(truth, predicted, strict=True)])
    covered = np.array([row["true"] in row["set"].split("|") for row in rows])
    unusual = np.array([row["unusual"] == "true" for row in rows])
    shown = [name for name in classes if name in truth]
    found = {
        "accuracy": accuracy_score(truth, predicted),
        "balanced_recall": recall_score(truth, predicted, labels=shown, average="macro"),
        "f1": f1_score(truth, predicted, labels=shown, average="macro"),
        "log_loss": log_loss(truth, probability, labels=classes),
        "ece": expected_calibration_error(probability.max(1), hit),
        "covered": covered.mean(),
        "size": float(np.mean([len(row["set"].split("|")) for row in rows])),
        "flagged": unusual.mean(),
        "accuracy_flagged": hit[unusual].mean() if unusual.any() else math.nan,
        "accuracy_others": hit[~unusual].mean() if (~unusual).any() else math.nan,
        "n": len(rows),
    }
    tested = np.array([row["recalibration"] == "tested" for row in rows])
    if tested.any():
        found["ece_before"] = expected_calibration_error(probability[tested].max(1), hit[tested])
        stated = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["recalibration"]
        powered = np.clip(probability[tested], 1e-12, 1) ** (1 / stated["temperature"])
        new = powered / powered.sum(1, keepdims=True)
        found["ece_after"] = expected_calibration_error(new.max(1), hit[tested])
        columns = [classes.index(name) for name, own in zip(truth, tested, strict=True) if own]
        own = new[np.arange(len(new)), columns]
        found["covered_after"] = float(np.mean((1 - own <= stated["threshold"]) | (own >= new.max(1))))
    return {name: float(value) for name, value in found.items()}


def stated(folder: Path) -> dict[str, float]:
    """The same figures as `evaluation.json` states them."""
    values = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    sets = next(row for row in values["sets"] if row["coverage"] == values["coverage"])
    unusual = values["unusual"]
    found = {
        "accuracy": values["accuracy"],
        "balanced_recall": values["balanced_recall"],
        "f1": values["metrics"]["f1"]["value"],
        "log_loss": values["metrics"]["log_loss"]["value"],
        "ece": values["metrics"]["ece"]["value"],
        "covered": sets["covered"]["value"],
        "size": sets["size"],
        "flagged": unusual["flagged"]["value"],
        "accuracy_flagged": unusual["accuracy_flagged"]["value"],
        "accuracy_others": unusual["accuracy_others"]["value"],
        "n": values["n"],
    }
    own = values["recalibration"]
    if own is not None:
        found |= {"ece_before": own["before"]["ece"], "ece_after": own["after"]["ece"]}
        found["covered_after"] = own["after"]["covered"]
    return {name: math.nan if value is None else float(value) for name, value in found.items()}


def check(folder: Path) -> bool:
    """Print both columns; return whether they agree."""
    again, said = recompute(folder), stated(folder)
    good = True
    print(f"\n{folder}")
    for name in said:
        same = abs(again[name] - said[name]) < TOLERANCE or (math.isnan(again[name]) and math.isnan(said[name]))
        good &= same
        print(f"  {name:16} {said[name]:10.6f} {again[name]:10.6f}  {'equal' if same else 'DIFFERS'}")
    return good


def run(data: Path, out: Path, weights: Path, models: list[str], backbone: str) -> list[Path]:
    """The three commands for each site; return the folders of the evaluations."""
    with (data / "sites.csv").open(newline="", encoding="utf-8") as file:
        site = {row["path"]: row["site"] for row in csv.DictReader(file)}
    found = []
    for name in sorted(set(site.values())):
        own, folder = [path for path in site if site[path] == name], out / name
        link(data / "images", own, folder / "elsewhere")
        link(data / "images", [path for path in site if site[path] != name], folder / "train")
        sheet = data / "sites.csv"
        extract = ("extract", folder / "train", "--sheet", sheet, "--out", folder / "train.h5")
        seconds = [ball(*extract, "--backbone", backbone, "--weights", weights)]
        fit = ("fit", folder / "train.h5", "--models", ",".join(models), "--save", "all", "--repeats", 1)
        if not (folder / "run").exists():
            seconds.append(ball(*fit, "--out", folder, "--name", "run"))
        for model in models:
            bundle, target = folder / "run" / "models" / model, folder / f"evaluation-{model}"
            seconds.append(ball("evaluate", bundle, folder / "elsewhere", "--sheet", sheet, "--out", target))
            found.append(target)
        print(f"{name} left out: {', '.join(f'{value:.0f} s' for value in seconds)}")
    return found


def table(folders: list[Path]) -> None:
    """A row an evaluation."""
    print(
        "\n| site, model | n | own test | here | balanced | mean prob. | covered at 95 | flagged | ECE | recalibrated |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for folder in folders:
        values = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        said, own = stated(folder), values["recalibration"]
        cells = [f"{folder.parent.name}, {values['bundle']['model']}", f"{values['n']}"]
        cells.append(f"{100 * values['published']['accuracy']['value']:.1f}")
        cells.append(
            f"{100 * values['accuracy']:.1f} ({100 * values['accuracy_low']:.0f} - {100 * values['accuracy_high']:.0f})"
        )
        shares = (said["balanced_recall"], values["confidence"], said["covered"], said["flagged"])
        cells += [f"{100 * share:.1f}" for share in shares]
        cells += [
            f"{said['ece']:.3f}",
            "n/a" if own is None else f"{own['before']['ece']:.3f} to {own['after']['ece']:.3f}",
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Read the arguments."""
    if sys.argv[1:2] == ["check"]:
        folders = [Path(item) for item in sys.argv[2:]]
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
        parser.add_argument("data", type=Path)
        parser.add_argument("out", type=Path)
        parser.add_argument("--weights", type=Path, required=True)
        parser.add_argument("--backbone", default="densenet121")
        parser.add_argument("--models", default="logistic,mlp")
        given = parser.parse_args()
        folders = run(given.data, given.out, given.weights, given.models.split(","), given.backbone)
        table(folders)
    if not all([check(folder) for folder in folders]):
        raise SystemExit("Some figures differ.")
    print("\nAll figures agree.")


if __name__ == "__main__":
    main()
