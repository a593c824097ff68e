"""The files of a run: tables with full precision, strict JSON, and a folder that appears whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import Cache
from ball_features.dataset.splits import Split
from ball_features.evaluation.protocols import ModelResult
from ball_features.files import write_json

__all__ = [
    "curve_rows",
    "interval_rows",
    "prediction_rows",
    "save_heads",
    "split_rows",
]


def split_rows(cache: Cache, splits: Sequence[Split], group: np.ndarray, units: np.ndarray) -> Iterable[Sequence[Any]]:
    """Rows of `splits.csv`: path, label, group, repeat, part, fold, unit (what counts once in intervals and tests)."""
    for split in splits:
        for part in ("train", "val", "test"):
            for row in getattr(split, part):
                yield cache.path[row], cache.label[row], group[row], split.repeat, part, split.fold, units[row]


def prediction_rows(cache: Cache, results: Sequence[ModelResult], classes: list[str]) -> Iterable[Sequence[Any]]:
    """Rows of `predictions.csv`: model, repeat, fold, path, label, predicted, and the probability of each class."""
    for result in results:
        for item in result.fitted:
            predicted = item.probability.argmax(1)
            for place, row in enumerate(item.split.test):
                own = (result.spec.name, item.split.repeat, item.split.fold, cache.path[row], cache.label[row])
                yield *own, classes[predicted[place]], *item.probability[place].tolist()


def interval_rows(models: Sequence[dict[str, Any]]) -> Iterable[Sequence[Any]]:
    """Rows of `intervals.csv`: model, metric, value, low, high."""
    for model in models:
        for name, own in model["intervals"].items():
            yield model["model"], name, model[name], own["low"], own["high"]


def curve_rows(results: Sequence[ModelResult], names: Sequence[str]) -> Iterable[Sequence[Any]]:
    """Rows of `curves.csv`: model, repeat, epoch, these curves, fold."""
    for result in results:
        for item in result.fitted:
            if not item.curves:
                continue
            for epoch in range(len(item.curves[names[0]])):
                values = (float(item.curves[name][epoch]) for name in names)
                yield result.spec.name, item.split.repeat, epoch + 1, *values, item.split.fold


def save_heads(folder: Path, results: Sequence[ModelResult], classes: list[str], cache: Cache) -> None:
    """The heads of the first split: weights as safetensors, and what they need beside them as JSON."""
    from safetensors.numpy import save

    folder.mkdir()
    for result in results:
        for item in result.fitted:
            if item.estimator is None or not hasattr(item.estimator, "state_"):
                continue
            name = result.spec.name
            state = {key: np.ascontiguousarray(v) for key, v in item.estimator.state_.items()}
            (folder / f"{name}.safetensors").write_bytes(save(state))  # `save_file` lets only the owner read it
            facts = {
                "model": name,
                "repeat": item.split.repeat,
                "fold": item.split.fold,
                "classes": [classes[code] for code in item.estimator.classes_],
                "parameters": item.estimator.get_params(),
                "best_epoch": item.best_epoch + 1,
                "cache_fingerprint": cache.attributes["fingerprint"],
            }
            write_json(folder / f"{name}.json", facts)
