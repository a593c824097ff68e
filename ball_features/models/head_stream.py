"""Training of the head on rows that are read from a file when they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ball_features.models.row_stream import RowStream
from ball_features.models.training import Rows, Training

__all__ = ["Windows", "evaluate_stream"]

Part = tuple[float, float, torch.Tensor]  # loss, accuracy, and the class of each row that they are means over


@dataclass(frozen=True, eq=False)
class Windows:
    """Shuffled windows of training rows as tensors.

    Attributes:
        rows: training rows.
        number: class of every image of the file, among the classes of the training rows.
        views: number of consecutive rows that are views of one image, for the consistency of the head.
        seed: seed of the order of the blocks.
    """

    rows: RowStream
    number: np.ndarray
    views: int
    seed: int

    def first(self) -> Rows:
        """Return the first window of the first epoch, for the shapes."""
        return next(self._of(0))

    def run_epoch(self, training: Training, epoch: int) -> tuple[float, float]:
        """Train on every row once; the mean loss and accuracy, each batch's before its own step."""
        parts: list[Part] = []
        for window in self._of(epoch):
            training.load(window)
            parts.append((*training.run_epoch(training.draw_order()), window.codes))
        return _mean(parts, training.class_weight)

    def _of(self, epoch: int) -> Iterator[Rows]:
        for X, images in self.rows.windows(np.random.default_rng([self.seed, epoch])):
            weight = None if self.rows.weight is None else torch.from_numpy(self.rows.weight[images])
            yield Rows(torch.from_numpy(X), torch.from_numpy(self.number[images]), weight, None, self.views)


def evaluate_stream(training: Training, rows: RowStream, classes: np.ndarray) -> tuple[float, float]:
    """Return loss and accuracy in eval mode on rows whose classes are among the sorted classes of training."""
    parts: list[Part] = []
    for X, codes in rows.blocks():
        known = torch.from_numpy(np.searchsorted(classes, codes))
        parts.append((*training.evaluate(torch.from_numpy(X), known), known))
    return _mean(parts, training.class_weight)


def _mean(parts: Sequence[Part], class_weight: torch.Tensor) -> tuple[float, float]:
    values = np.array([part[:2] for part in parts])
    loss = [float(class_weight[codes].sum()) for *_, codes in parts]
    rows = [len(codes) for *_, codes in parts]
    return float(np.average(values[:, 0], weights=loss)), float(np.average(values[:, 1], weights=rows))
