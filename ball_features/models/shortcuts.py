"""Comparators without a backbone: the majority class, and trees on pixel statistics.

The statistics come from `extraction.pixels` by way of the cache. A network that does not beat these has shown nothing
about cells.
"""

from __future__ import annotations

from collections.abc import Callable

from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier

__all__ = ["SHORTCUT_MODELS"]


def _majority(seed: int) -> ClassifierMixin:
    """Always the commonest class; its probabilities are the shares of the classes, so that log loss is finite."""
    return DummyClassifier(strategy="prior")


def _trees(seed: int) -> ClassifierMixin:
    """Extra trees (Geurts et al. 2006, doi 10.1007/s10994-006-6226-1): no scaling, no tuning, good on few numbers."""
    return ExtraTreesClassifier(n_estimators=200, n_jobs=1, random_state=seed)


SHORTCUT_MODELS: dict[str, Callable[[int], ClassifierMixin]] = {
    "majority": _majority,
    "colour": _trees,
    "histogram": _trees,
    "corner": _trees,
    "nuclei": _trees,
}
