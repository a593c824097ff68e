"""Compute the patient level of a run again, by scikit-learn and NumPy alone, and compare it with the run's own figures.

    python benchmarks/patients.py RUN PATIENTS.csv

PATIENTS.csv has the columns path and patient. Each figure is computed from predictions.csv of the run: where the images
of a patient have one class, from the mean of their log-probabilities; else on the images of each patient, averaged over
patients. Intervals are percentiles of 4,000 bootstrap samples of patients, and Wilson's where answers are right or
wrong; the run widens its own for few patients, so that they need only be close. The exit code is 1 where a figure
differs by more than 1e-9, or an interval by more than 3 points.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score

NAMES = ("accuracy", "recall", "f1", "auroc")
DRAWS, TOLERANCE, CLOSE = 4000, 1e-9, 0.03
ZERO: Any = 0  # value of a metric that is not defined


def figures(truth: np.ndarray, probability: np.ndarray) -> list[float]:
    """Accuracy, and means over classes of recall, F1 and AUROC."""
    predicted, classes = probability.argmax(1), range(probability.shape[1])
    there = [code for code in classes if (truth == code).any()]
    areas = [roc_auc_score(truth == code, probability[:, code]) for code in there if (truth != code).any()]
    return [
        accuracy_score(truth, predicted),
        recall_score(truth, predicted, labels=there, average="macro", zero_division=ZERO),
        f1_score(truth, predicted, labels=there, average="macro", zero_division=ZERO),
        float(np.mean(areas)) if areas else float("nan"),
    ]


def by_patient(
    rows: list[dict[str, str]], patient: dict[str, str], classes: list[str]
) -> tuple[np.ndarray, list[float]]:
    """(accuracy of each patient, or whether its answer is right; figures) of one model with one repeat."""
    own: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        own[patient[row["path"]]].append(row)
    truth = {name: np.array([classes.index(row["label"]) for row in items]) for name, items in own.items()}
    odds = {name: np.array([[float(row[f"p_{c}"]) for c in classes] for row in items]) for name, items in own.items()}
    if sum(len(set(codes)) > 1 for codes in truth.values()) * 2 > len(own):
        each = np.array([figures(truth[name], odds[name]) for name in own])
        return each[:, 0], np.nanmean(each, 0).tolist()
    single = [name for name in own if len(set(truth[name])) == 1]
    mean = np.array([np.log(np.clip(odds[name], np.finfo(float).eps, 1)).mean(0) for name in single])
    answer = np.exp(mean - mean.max(1, keepdims=True))
    answer /= answer.sum(1, keepdims=True)
    label = np.array([truth[name][0] for name in single])
    return (answer.argmax(1) == label).astype(float), figures(label, answer)


def main() -> int:
    """Print a row a model and figure; 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("patients", type=Path)
    options = parser.parse_args()
    with options.patients.open(newline="", encoding="utf-8-sig") as file:
        patient = {row["path"]: row["patient"] for row in csv.DictReader(file)}
    stored = json.loads((options.run / "metrics.json").read_text(encoding="utf-8"))
    with (options.run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if {row["repeat"] for row in rows} != {"0"}:
        print("The run has several repeats, expected one.")
        return 2
    rng, bad = np.random.default_rng(0), 0
    print("| model | level | figure | run | here | interval of the run | here |")
    print("| --- | --- | --- | ---: | ---: | --- | --- |")
    for model, scores in zip(stored["models"], stored["patients"], strict=True):
        own = [row for row in rows if row["model"] == model["model"]]
        truth = np.array([stored["classes"].index(row["label"]) for row in own])
        odds = np.array([[float(row[f"p_{name}"]) for name in stored["classes"]] for row in own])
        hit, found = by_patient(own, patient, stored["classes"])
        means = rng.choice(hit, (DRAWS, len(hit))).mean(1)
        ends = np.quantile(means, (0.025, 0.975)).tolist()
        if set(hit) <= {0.0, 1.0}:
            ends = list(binomtest(int(hit.sum()), len(hit)).proportion_ci(method="wilson"))
        for level, values, here in (("images", model, figures(truth, odds)), ("patients", scores["values"], found)):
            for name, value in zip(NAMES, here, strict=True):
                known = float("nan") if values[name] is None else values[name]
                wrong = not (abs(known - value) <= TOLERANCE or (np.isnan(known) and np.isnan(value)))
                told = ("", "")
                if level == "patients" and name == "accuracy" and np.ptp(hit):
                    theirs = scores["intervals"]["accuracy"]
                    wrong |= max(abs(theirs["low"] - ends[0]), abs(theirs["high"] - ends[1])) > CLOSE
                    told = (f"{theirs['low']:.4f} - {theirs['high']:.4f}", f"{ends[0]:.4f} - {ends[1]:.4f}")
                bad += wrong
                cells = (model["model"], level, name, f"{known:.6f}", f"{value:.6f}", *told)
                print(f"| {' | '.join(cells)} |{' DIFFERS' if wrong else ''}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
