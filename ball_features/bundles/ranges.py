"""Ranges of what a bundle's files say, beyond their types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ball_features.bundles.facts import BundleFacts
from ball_features.config.bundling import CONFORMAL
from ball_features.extraction.pixels import SHORTCUT_WIDTHS

__all__ = ["require_ranges"]

_TEXTS = ("backbone", "weights", "weights_sha256", "normalize", "precision", "recipe", "overlay_mask", "resize")
_COUNTS = {"input_px": (8, 4096), "seed": (0, 1 << 63), "view_seed": (0, 1 << 63)}  # name -> least, most
_PRECISIONS = ("fp32", "bf16", "fp16")
_MOST_TEMPERATURE = 1e6
_MOST_ORDER = 100
_SCALE = ("middle", "high", "values", "predicted", "largest", "order", "groups")
_ELSEWHERE = {"gaussian_length", *(f"elsewhere_{part}" for part in _SCALE)}
_MOST = 1e15  # absolute value of a number that is squared


def require_ranges(values: Mapping[str, Any], facts: BundleFacts, arrays: Mapping[str, np.ndarray]) -> None:
    """Check the content of a bundle.

    Args:
        values: content of `bundle.json`.
        facts: the same, read.
        arrays: content of `reference.safetensors`.

    Raises:
        ValueError: Something is out of range.
    """
    faults = [name for name in _TEXTS if not isinstance(values.get(name, ""), str)]
    for name, (least, most) in _COUNTS.items():
        value = values.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            faults.append(name)
    codes = facts.estimator_classes
    checks = {
        "format": not isinstance(values["format"], bool),
        "precision": facts.preprocessing.precision in _PRECISIONS,
        "classes": len(set(facts.classes)) == len(facts.classes) > 1,
        "estimator_classes": bool(codes)
        and set(codes) <= set(range(len(facts.classes)))
        and len(codes) == len({*codes}),
        "temperature": math.isfinite(facts.temperature) and 0 < facts.temperature < _MOST_TEMPERATURE,
        "train_images": facts.train_images >= 0,
        "validation_images": facts.validation_images >= 0,
        "scores": arrays["scores"].ndim == 1 and _within(arrays["scores"], 0, 1),
        "distances": arrays["distances"].ndim == 1 and _within(arrays["distances"], 0, math.inf),
        "train": arrays["train"].ndim == 2 and _moderate(arrays["train"]),
        "train_class": _classes_of(arrays, "train_class", len(arrays["train"]), len(facts.classes)),
        "score_class": _classes_of(arrays, "score_class", len(arrays["scores"]), len(facts.classes)),
    }
    for name in ("scale_predicted", "elsewhere_predicted"):
        checks[name] = _classes_of(arrays, name, len(arrays["scores"]), len(facts.classes))
    views = len(facts.preprocessing.plan)
    checks |= {
        "model_views": set(facts.model_views) <= set(range(views)),
        "conformal": facts.conformal in CONFORMAL,
        "gaussians": "gaussian_mean" not in arrays or _fit_together(arrays, views),
        "colours": "colour_mean" not in arrays or _one_view(arrays),
        "neighbours": "near_train" not in arrays or _of_neighbours(arrays),
        "adapt": facts.adapt == "none" or _is_adaptation(facts.adapt),
        "site_offsets": facts.adapt == "none" or all(_per_view(arrays[name], views) for name in _sites(arrays)),
        "site_shares": facts.adapt == "none" or _of_shares(arrays),
        "elsewhere": not any(name.startswith("elsewhere_") for name in arrays) or _ELSEWHERE <= {*arrays},
        "lengths": ("gaussian_length" in arrays) == ("near_length" in arrays),
    }
    faults += [name for name, holds in checks.items() if not holds]
    if faults:
        raise ValueError(f"{', '.join(faults)} out of range")


def _is_adaptation(name: str) -> bool:
    from ball_features.models.adaptation import ADAPTATIONS

    return name in ADAPTATIONS


def _classes_of(arrays: Mapping[str, np.ndarray], name: str, images: int, classes: int) -> bool:
    """Whether an array, if it is there, names a class of each image."""
    codes = arrays.get(name)
    if codes is None:
        return True
    return codes.shape == (images,) and codes.dtype == np.int64 and set(codes.tolist()) <= {*range(classes)}


def _moderate(values: np.ndarray) -> bool:
    """Whether numbers are floats that can be squared and added up."""
    return values.dtype.kind == "f" and float(np.abs(values).max(initial=0)) < _MOST


def _sites(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return ["site_offsets", "site_class_means", *(["site_kept"] if "site_kept" in arrays else [])]


def _per_view(values: np.ndarray, views: int) -> bool:
    """Whether numbers are (sites or classes, views, dim), and can be squared."""
    return values.ndim == 3 and values.shape[1] == views and _moderate(values)


def _of_shares(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether shares of classes and their concentration, which older bundles lack, are what they can be."""
    shares = arrays.get("site_shares")
    return shares is None or bool(shares.ndim == 1 and _moderate(shares) and (shares >= 0).all())


def _one_view(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the Gaussians of the colours are those of one view, as many numbers as a histogram has."""
    mean, basis, variance, rest = (arrays[f"colour_{name}"] for name in ("mean", "basis", "variance", "rest"))
    return (
        mean.ndim == basis.ndim == 3
        and len(mean) == len(basis) == len(variance) == len(rest) == 1
        and mean.shape[2] == basis.shape[2] == SHORTCUT_WIDTHS["histogram"]
        and variance.shape == basis.shape[:2]
        and bool((variance > 0).all() and rest.ndim == 1 and (rest > 0).all())
        and all(_moderate(part) for part in (mean, basis, variance))
    )


def _of_neighbours(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether training images of the plain view, and the distances between them, belong together."""
    train, spacing = arrays["near_train"], arrays["near_spacing"]
    return (
        train.ndim == 2
        and 0 < len(train) <= len(arrays["train"])
        and train.shape[1] == arrays["gaussian_mean"].shape[2]
        and spacing.shape == (len(train),)
        and bool((spacing > 0).all())
        and _moderate(train)
        and _moderate(spacing)
        and _of_lengths(arrays, "near_length", 1)
    )


def _of_lengths(arrays: Mapping[str, np.ndarray], name: str, count: int) -> bool:
    """Whether what embeddings are divided by, if it is there, is so many numbers."""
    length = arrays.get(name)
    return length is None or bool(length.shape == (count,) and _moderate(length) and (length >= 0).all())


def _fit_together(arrays: Mapping[str, np.ndarray], views: int) -> bool:
    """Whether the Gaussians of the views and the scale of their scores belong together."""
    mean, basis, variance = (arrays[f"gaussian_{name}"] for name in ("mean", "basis", "variance"))
    rest, scores = arrays["gaussian_rest"], views + 1 + ("colour_mean" in arrays)
    scales = ["scale", *(["elsewhere"] if "elsewhere_middle" in arrays else [])]
    return (
        mean.ndim == basis.ndim == 3
        and len(mean) == len(basis) == len(variance) == len(rest) == views
        and mean.shape[2] == basis.shape[2]
        and variance.shape == basis.shape[:2]
        and bool((variance > 0).all() and rest.ndim == 1 and (rest > 0).all())
        and _of_lengths(arrays, "gaussian_length", views)
        and all(_moderate(part) for part in (mean, basis, variance))
        and all(_of_scale(arrays, name, scores) for name in scales)
    )


def _of_scale(arrays: Mapping[str, np.ndarray], name: str, scores: int) -> bool:
    """Whether a scale is one of so many scores, with as many calibration images as the bundle has."""
    middle, high, values, predicted = (arrays[f"{name}_{part}"] for part in ("middle", "high", "values", "predicted"))
    ends = [middle, high, *([arrays[f"{name}_largest"]] if f"{name}_largest" in arrays else [])]
    order = arrays.get(f"{name}_order", np.ones(1))
    groups = arrays.get(f"{name}_groups", np.zeros(scores, dtype=np.int64))
    return (
        all(part.shape == (scores,) for part in ends)
        and groups.shape == (scores,)
        and groups.dtype == np.int64
        and set(groups.tolist()) <= {0, 1, 2, 3}
        and order.shape == (1,)
        and order.dtype == np.float64
        and 1 <= float(order[0]) <= _MOST_ORDER
        and values.shape == predicted.shape == arrays["scores"].shape
        and all(_moderate(part) for part in (values, *ends))
    )


def _within(values: np.ndarray, least: float, most: float) -> bool:
    """Whether numbers are finite, increasing and in a range, but for rounding."""
    kind = values.dtype.kind == "f" and np.isfinite(values).all()
    return bool(kind and (np.diff(values) >= 0).all() and ((values > least - 0.01) & (values < most + 0.01)).all())
