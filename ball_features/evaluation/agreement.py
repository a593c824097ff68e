"""Whether the table of a comparison is that of its predictions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ball_features.errors import DataError
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.paired_tests import holm, mcnemar_exact
from ball_features.evaluation.results import Measurement, ModelRow
from ball_features.evaluation.stored_predictions import PREDICTIONS, StoredPredictions
from ball_features.models.registry import MODELS

__all__ = ["edited", "require_agreement", "wrong_kind"]

_LEVEL = 0.05  # of the tests behind `ties_best`


def require_agreement(folder: Path, measurement: Measurement, predictions: Mapping[str, StoredPredictions]) -> None:
    """Compare the table of a run with its predictions and with `MODELS`, which say the same unless one was edited.

    Args:
        folder: folder of the run.
        measurement: content of `metrics.json`.
        predictions: model -> its predictions.

    Raises:
        DataError: They contradict each other.
    """
    for row in measurement.models:
        own, wrong = predictions.get(row.model), wrong_kind("metrics.json", row.model, row.kind)
        if not wrong and own is None:
            wrong = f"{PREDICTIONS} has none of {row.model}"
        elif not wrong and own is not None and own.fault:
            wrong = f"{PREDICTIONS} gives {row.model} {own.fault}"
        elif not wrong and own is not None:
            other = _differing(row, own, measurement.classes)
            wrong = f"metrics.json and {PREDICTIONS} give {row.model} {', '.join(other)}" if other else ""
        if wrong:
            raise edited(folder, wrong)
    if wrong := _out_of_order(measurement.models) or _wrong_tests(measurement.models, predictions):
        raise edited(folder, wrong)


def wrong_kind(name: str, model: str, kind: str) -> str:
    """What a table says wrong of the kind of a model, in words, or ""."""
    if model in MODELS and kind != MODELS[model].kind:
        return f"{name} calls {model} a {kind}, and it is a {MODELS[model].kind}"
    return ""


def edited(folder: Path | str, wrong: str) -> DataError:
    """The error to raise where the files of a run contradict each other."""
    return DataError(f"{folder} was edited or damaged: {wrong}. Make the run again; run.json has its command.")


def _differing(row: ModelRow, own: StoredPredictions, classes: Sequence[str]) -> list[str]:
    """The figures of a model that its predictions contradict: name, stored value and computed one."""
    scores = evaluate_predictions(own.truth, own.probability)
    hit, repeat = own.hit, np.array([number for number, _ in own.split])
    pairs = [(name, row.values.get(name), value) for name, value in scores.values.items()]
    for code, name in enumerate(classes):
        stored = row.per_class.get(name, {})
        pairs += [(f"{key} of {name}", stored.get(key), float(value[code])) for key, value in scores.per_class.items()]
    pairs += [
        (f"accuracy of repeat {number}", stored, float(hit[repeat == number].mean()) if number in repeat else math.nan)
        for number, stored in row.accuracy_by_repeat.items()
    ]
    found = [
        f"{name} {stored:.6g} and {value:.6g}"
        for name, stored, value in pairs
        if stored is not None and not np.isclose(stored, value, atol=1e-6, equal_nan=True)
    ]
    different = row.confusion and scores.confusion.tolist() != row.confusion
    return [*found, "two confusion matrices"] if different else found


def _out_of_order(models: Sequence[ModelRow]) -> str:
    """What the rows of a table say that their own figures contradict, or ""."""
    for first, second in itertools.pairwise(models):
        if (second.accuracy, -second.values["log_loss"]) > (first.accuracy, -first.values["log_loss"]):
            return f"{second.model} stands below {first.model} in metrics.json, and is better"
    for row in models:
        if row.ties_best != (row.p_against_best > _LEVEL) and np.isfinite(row.p_against_best):
            return (
                f"metrics.json gives {row.model} p_against_best {row.p_against_best:.6g} and ties_best {row.ties_best}"
            )
    return ""


def _wrong_tests(models: Sequence[ModelRow], predictions: Mapping[str, StoredPredictions]) -> str:
    """The first p-value of McNemar's test that the predictions contradict, or ""."""
    first = {row.model: _first_hits(predictions[row.model]) for row in models}
    tested = [row for row in models[1:] if first[row.model].keys() == first[models[0].model].keys()]
    if len(tested) < len(models) - 1:
        return "predictions.csv has other test images for some models"
    best = np.array([*first[models[0].model].values()]) if models else np.array([])
    own = [np.array([first[row.model][key] for key in first[models[0].model]]) for row in tested]
    for row, p in zip(tested, holm([mcnemar_exact(best, hits) for hits in own]), strict=True):
        stored = row.mcnemar_p_against_best
        if np.isfinite(stored) and not np.isclose(stored, p, atol=1e-6):
            return f"metrics.json and predictions.csv give {row.model} mcnemar_p_against_best {stored:.6g} and {p:.6g}"
    return ""


def _first_hits(own: StoredPredictions) -> dict[tuple[str, str], bool]:
    """Whether a model was right about each image, (fold, path) -> bool, on the repeat that comes first."""
    return {
        (fold, path): bool(right)
        for path, (repeat, fold), right in zip(own.path, own.split, own.hit.tolist(), strict=True)
        if repeat == own.split[0][0]
    }
