"""Lists of images on the page of an external evaluation: unknown labels, errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ball_features.reporting.external_record import ScoredImage
from ball_features.reporting.markup import Cell, Row, Table

__all__ = ["unknown_labels", "wrong_images"]

_SHOWN = 200  # images of a list


def unknown_labels(images: Sequence[ScoredImage]) -> Table | None:
    """What the model says of images whose label it does not know: a row a label."""
    labels = list(dict.fromkeys(item.label for item in images))
    if not labels:
        return None
    rows = []
    for label in sorted(labels):
        own = [item.prediction for item in images if item.label == label]
        names = sorted({item.predicted for item in own}, key=lambda name: -sum(one.predicted == name for one in own))
        listed = ", ".join(f"{name} {sum(one.predicted == name for one in own)}" for name in names)
        mean = float(np.mean([item.probability[item.predicted] for item in own]))
        flagged = float(np.mean([item.unusual for item in own]))
        shares = (Cell(f"{100 * mean:.1f}", mean), Cell(f"{100 * flagged:.1f}", flagged))
        rows.append(Row((Cell(label), Cell(listed), Cell(str(len(own)), float(len(own))), *shares)))
    header = ("label", "predicted as", "images", "mean probability %", "flagged %")
    return Table(header, tuple(rows), "Images of unknown labels", 2, wrapped=1)


def wrong_images(images: Sequence[ScoredImage]) -> Table:
    """The errors, the most confident first."""
    wrong = [item for item in images if item.true and item.true != item.prediction.predicted]
    wrong.sort(key=lambda item: -item.prediction.probability[item.prediction.predicted])
    rows = tuple(
        Row((Cell(item.prediction.path), Cell(item.true), Cell(item.prediction.predicted),
             Cell(f"{item.prediction.probability[item.prediction.predicted]:.3f}"),
             Cell(f"{item.prediction.distance:.4f}", item.prediction.distance)),
            "unusual" if item.prediction.unusual else "")
        for item in wrong[:_SHOWN]
    )  # fmt: skip
    return Table(("image", "true", "predicted", "probability", "distance"), rows, f"Errors, {len(wrong)} in all", 3)
