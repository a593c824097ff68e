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
        "scale_predicted": _classes_of(arrays, "scale_predicted", len(arrays["scores"]), len(facts.classes)),
    }
    views = len(facts.preprocessing.plan)
    checks |= {
        "model_views": set(facts.model_views) <= set(range(views)),
        "conformal": facts.conformal in CONFORMAL,
        "gaussians": "gaussian_mean" not in arrays or _fit_together(arrays, views),
        "colours": "colour_mean" not in arrays or _one_view(arrays),
        "neighbours": "near_train" not in arrays or _of_neighbours(arrays),
        "site_offsets": facts.adapt == "none" or all(_finite(arrays[name], 3, views) for name in _sites(arrays)),
    }
    faults += [name for name, holds in checks.items() if not holds]
    if faults:
        raise ValueError(f"{', '.join(faults)} out of range")


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


def _finite(values: np.ndarray, axes: int, views: int) -> bool:
    """Whether numbers are finite, with so many axes, the last but one of them the views."""
    return values.ndim == axes and values.shape[-2] == views and bool(np.isfinite(values).all())


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
    )


def _fit_together(arrays: Mapping[str, np.ndarray], views: int) -> bool:
    """Whether the Gaussians of the views and the scale of their scores belong together."""
    mean, basis, variance = (arrays[f"gaussian_{name}"] for name in ("mean", "basis", "variance"))
    scale = [arrays[f"scale_{name}"] for name in ("middle", "high", "values")]
    ends = [*scale[:2], *([arrays["scale_largest"]] if "scale_largest" in arrays else [])]
    order = arrays.get("scale_order", np.ones(1))
    rest, scores = arrays["gaussian_rest"], views + 1 + ("colour_mean" in arrays)
    groups = arrays.get("scale_groups", np.zeros(scores, dtype=np.int64))
    return (
        mean.ndim == basis.ndim == 3
        and len(mean) == len(basis) == len(variance) == len(rest) == views
        and mean.shape[2] == basis.shape[2]
        and variance.shape == basis.shape[:2]
        and all(part.shape == (scores,) for part in ends)
        and groups.shape == (scores,)
        and groups.dtype == np.int64
        and set(groups.tolist()) <= {0, 1, 2, 3}
        and order.shape == (1,)
        and order.dtype == np.float64
        and 1 <= float(order[0]) <= _MOST_ORDER
        and scale[2].shape == arrays["scale_predicted"].shape == arrays["scores"].shape
        and bool((variance > 0).all() and rest.ndim == 1 and (rest > 0).all())
        and all(_moderate(part) for part in (mean, basis, variance, scale[2], *ends))
    )


def _within(values: np.ndarray, least: float, most: float) -> bool:
    """Whether numbers are finite, increasing and in a range, but for rounding."""
    kind = values.dtype.kind == "f" and np.isfinite(values).all()
    return bool(kind and (np.diff(values) >= 0).all() and ((values > least - 0.01) & (values < most + 0.01)).all())
