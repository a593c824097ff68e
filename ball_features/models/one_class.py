"""What it costs a site-adapted model to be adapted to images of one class, as measured on sites that were left out.

To a model whose embeddings tell little of the classes, a batch of one class looks mixed once its offset is subtracted,
so that no threshold on predicted shares refuses it (docs/shift.md). Whether that is so is measured with labels on the
user's own sites, and the bundle keeps the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MOST_COST", "OneClassRecord"]

_MOST = 10**9  # batches
MOST_COST = 0.05  # accuracy that a model may lose on such batches, and is still adapted without being told their kind


@dataclass(frozen=True)
class OneClassRecord:
    """What came of batches of one class.

    Attributes:
        batches: number of batches.
        adapted: number of them to which the model was adapted.
        without: accuracy with the average offset of the training sites, mean over batches.
        auto: accuracy with the offset that the model takes by itself, mean over batches.
    """

    batches: int
    adapted: int
    without: float
    auto: float

    def __post_init__(self) -> None:
        counts, shares = (self.batches, self.adapted), (self.without, self.auto)
        if any(type(value) is not int for value in counts) or not 0 <= self.adapted <= self.batches <= _MOST:
            raise ValueError("numbers of batches of one class out of range")
        if not self.batches:
            raise ValueError("no batch of one class")
        if any(type(value) not in (int, float) for value in shares):
            raise TypeError(f"accuracies {self.without!r} and {self.auto!r} on batches of one class")
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in shares):
            raise ValueError(f"accuracies {self.without} and {self.auto} on batches of one class")

    @classmethod
    def joined(cls, records: Sequence[OneClassRecord | None]) -> OneClassRecord | None:
        """The record of all batches of several records; None where there are none."""
        known = [record for record in records if record is not None]
        if not known:
            return None
        batches = sum(record.batches for record in known)
        without, auto = (
            sum(getattr(record, name) * record.batches for record in known) / batches for name in ("without", "auto")
        )
        return cls(batches, sum(record.adapted for record in known), min(without, 1.0), min(auto, 1.0))

    @property
    def tells(self) -> bool:
        """Whether the model may be adapted to images of which nobody says that they are of several classes."""
        return self.without - self.auto <= MOST_COST

    @property
    def figures(self) -> str:
        """The measurement in words."""
        many = "1 batch" if self.batches == 1 else f"{self.batches} batches"
        points = round(100 * self.auto) - round(100 * self.without)
        moved = f"cost {-points}" if points < 0 else f"gained {points}"
        return (
            f"on {many} of one class from sites left out, adapting {moved} points (accuracy "
            f"{100 * self.without:.0f} % without, {100 * self.auto:.0f} % with; adapted to {self.adapted})"
        )
