"""The epochs of a training, and the choice of the one whose weights are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ball_features.models.training import Training

__all__ = ["Trained", "run_epochs"]


@dataclass(frozen=True, eq=False)
class Trained:
    """Result of a training.

    Attributes:
        state: parameters and running statistics of the epoch that was kept.
        history: "train_loss", "train_accuracy", "val_loss", "val_accuracy" -> float64 (epochs,).
        best_epoch: number of that epoch, from 0.
    """

    state: dict[str, np.ndarray]
    history: dict[str, np.ndarray]
    best_epoch: int


def run_epochs(
    training: Training,
    epochs: int,
    train: Callable[[int], tuple[float, float]],
    validate: Callable[[], tuple[float, float]] | None,
) -> Trained:
    """Train, and keep the epoch with the lowest validation loss, or the last one without validation.

    Args:
        training: the training.
        epochs: number of epochs.
        train: function that runs the epoch of this number, and returns its loss and accuracy.
        validate: function that returns loss and accuracy of the validation rows, or None.
    """
    curves = np.full((4, epochs), np.nan)
    best, best_loss, best_epoch = None, math.inf, epochs - 1
    for epoch in range(epochs):
        curves[:2, epoch] = train(epoch)
        if validate is None:
            continue
        curves[2:, epoch] = validate()
        if curves[2, epoch] < best_loss:
            best, best_loss, best_epoch = training.state(), curves[2, epoch], epoch
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    return Trained(training.state() if best is None else best, dict(zip(names, curves, strict=True)), best_epoch)
