"""Out-of-sample predictions to the numbers of a comparison table, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.protocols import ModelResult
from ball_features.evaluation.uncertainty import (
    corrected_best,
    holm,
    mcnemar_exact,
    metric_intervals,
    paired_bootstrap,
    share_interval,
)

__all__ = ["measure"]


def measure(cache: Cache, results: Sequence[ModelResult], units: np.ndarray) -> tuple[list[dict[str, Any]], Any]:
    """Rows of the table, sorted by accuracy, and everything for `metrics.json`.

    Args:
        cache: Its labels are the truth.
        results: Of the models; those that failed have no row.
        units: (images,), what counts as one image in intervals and tests.
    """
    classes, codes = np.unique(cache.label, return_inverse=True)
    rows, details = [], []
    hits: dict[str, np.ndarray] = {}  # how many times a model was right on each image
    once: dict[str, np.ndarray] = {}  # of the first repeat, where each image is tested once
    tests = np.zeros(len(codes), dtype=int)
    for result in results:
        if not result.fitted:
            continue
        where = np.concatenate([item.split.test for item in result.fitted])
        truth, probability = codes[where], np.concatenate([item.probability for item in result.fitted])
        numbers = evaluate_predictions(truth, probability)
        # Repeats test an image several times; it is still one image, and its copies are no news either.
        intervals = metric_intervals(truth, probability, units[where], images=len(np.unique(where)))
        low, high = intervals["accuracy"]
        each, counts = numbers.pop("per_class"), numbers.pop("confusion")
        row = {"model": result.spec.name, "kind": result.spec.kind, **numbers}
        row |= {"accuracy_low": low, "accuracy_high": high}
        row |= {key: float(np.mean([getattr(item, key) for item in result.fitted])) for key in ("fit_s", "predict_s")}
        rows.append(row)
        recalls = _recall_intervals(truth, probability.argmax(1), units[where], where, len(classes))
        first = [item for item in result.fitted if item.split.repeat == result.fitted[0].split.repeat]
        once[result.spec.name] = np.concatenate(
            [item.probability.argmax(1) == codes[item.split.test] for item in first]
        )
        hits[result.spec.name] = np.bincount(where, probability.argmax(1) == truth, minlength=len(codes))
        tests = np.bincount(where, minlength=len(codes))  # the same for all models
        by_repeat: dict[int, list[bool]] = {}
        for item in result.fitted:
            correct = item.probability.argmax(1) == codes[item.split.test]
            by_repeat.setdefault(item.split.repeat, []).extend(correct.tolist())
        details.append(
            row
            | {
                "per_class": {
                    str(name): {key: value[code] for key, value in each.items()}
                    | {"recall_low": recalls[code][0], "recall_high": recalls[code][1]}
                    for code, name in enumerate(classes)
                },
                "confusion": counts.tolist(),
                "intervals": {key: {"low": low, "high": high} for key, (low, high) in intervals.items()},
                "accuracy_by_repeat": {str(key): float(np.mean(value)) for key, value in by_repeat.items()},
                "best_epochs": [item.best_epoch for item in result.fitted if item.best_epoch >= 0],
            }
        )
    order = sorted(range(len(rows)), key=lambda place: (-rows[place]["accuracy"], rows[place]["log_loss"]))
    rows, details = [rows[place] for place in order], [details[place] for place in order]
    tested = tests > 0
    if rows:
        behind = [hits[rows[0]["model"]] - hits[row["model"]] for row in rows[1:]]
        compared = [paired_bootstrap(own[tested], units[tested], tests=tests[tested]) for own in behind]
        adjusted = [1.0, *holm([p for _, _, p in compared]).tolist()]
        for row, detail, p in zip(rows, details, adjusted, strict=True):
            row["ties_best"] = detail["ties_best"] = p > 0.05
            detail["p_against_best"] = p
        exact = [mcnemar_exact(once[rows[0]["model"]], once[row["model"]]) for row in rows[1:]]
        for detail, p in zip(details, [1.0, *holm(exact).tolist()], strict=True):
            detail["mcnemar_p_against_best"] = p
        for detail, (low, high, _) in zip(details[1:], compared, strict=True):
            detail["behind_best"] = {"low": low, "high": high}
        for row, detail in zip(rows, details, strict=True):
            ends = detail.get("behind_best", {"low": 0.0, "high": 0.0})
            row |= {"behind_low": ends["low"], "behind_high": ends["high"]}
            row["p_against_best"] = detail["p_against_best"]
    values: dict[str, Any] = {"classes": [str(name) for name in classes], "models": details}
    values["units"] = len(np.unique(units[tested]))
    chosen_from = [row["model"] for row in rows if row["kind"] != "shortcut"]
    if len(chosen_from) > 1:
        right = np.column_stack([hits[name] for name in chosen_from])
        accuracy, low, high = corrected_best(right[tested], tests[tested], units[tested])
        values["best_of"] = {"models": len(chosen_from), "accuracy": accuracy, "low": low, "high": high}
    return rows, values


def _recall_intervals(
    truth: np.ndarray, predicted: np.ndarray, unit: np.ndarray, where: np.ndarray, classes: int
) -> list[tuple[float, float]]:
    """95 % interval of the recall of each class; NaN where none of it was tested."""
    found = []
    for code in range(classes):
        own = truth == code
        hit = predicted[own] == code
        images = len(np.unique(where[own]))
        found.append(share_interval(hit, unit[own], images=images) if images else (float("nan"),) * 2)
    return found
