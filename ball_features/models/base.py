"""Base classes that say what an estimator can do beyond scikit-learn's interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from ball_features.models.alignment import Alignment

__all__ = ["AlignedClassifier", "PerViewClassifier", "PipelineClassifier", "ViewRole"]


@dataclass(frozen=True)
class ViewRole:
    """What a view is to the model.

    Attributes:
        name: name of the view.
        recipe: "plain", "fields" or "cells"; views of other recipes are not used.
        pixels: key that is equal for views with equal pixels; those of cells share one model.
        whole_field: whether the view shows the space between the cells too.
    """

    name: str
    recipe: str
    pixels: str = ""
    whole_field: bool = False


class AlignedClassifier:
    """Classifier that can align embeddings before it uses them; see `Alignment`.

    Attributes:
        alignment_: fitted `Alignment`.
    """

    alignment_: Alignment

    @property
    def aligns(self) -> bool:
        """True if the fitted classifier changes embeddings first, which no file format of a bundle stores."""
        return self.alignment_.per_image or self.alignment_.centers_ is not None


class PipelineClassifier(ABC):
    """Classifier that scikit-learn's own parts can replace once it is fitted."""

    @abstractmethod
    def to_pipeline(self) -> Pipeline:
        """Return a fitted pipeline that gives the same answers."""


class PerViewClassifier(ABC):
    """Classifier with a model for each view: X is (N, views, D), and the order of the views matters.

    Attributes:
        models_: fitted estimator of each view.
    """

    classes_: np.ndarray
    models_: list[Any]

    @abstractmethod
    def predict_proba(self, X: Any, center: Any = None) -> np.ndarray:
        """Return class probabilities, float64 (N, C)."""

    @abstractmethod
    def view_proba(self, X: Any, center: Any = None) -> np.ndarray:
        """Return the class probabilities of each view's own model, float64 (N, views, C)."""
