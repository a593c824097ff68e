"""What colours a map of embeddings by the answers of a model: the class that it predicts, and where it is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.files import read_csv
from ball_features.reporting.charts import PALETTE, STYLES
from ball_features.reporting.scatter import told_apart

__all__ = ["Answers", "ladder_answers"]

# Looks by their number: the sixth colour stands out of grey, and a grey ring is paler than a grey disc.
_WRONG, _RIGHT, _UNTESTED = 5, 7, 15
_LAST = len(PALETTE) * STYLES - 1
_NOT_TESTED = "not tested"
_NAMES = {_WRONG: "wrong at least once", _RIGHT: "right", _UNTESTED: _NOT_TESTED}


@dataclass(frozen=True)
class Answers:
    """Answers of a model under one protocol.

    Attributes:
        first: path -> class that the model predicts in the first split that tests it.
        wrong: paths of the images that are wrong in any split.
    """

    first: dict[str, str]
    wrong: frozenset[str]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, str]]) -> Answers:
        """Collect answers; rows: (path, label, predicted class) of each prediction."""
        first, wrong = dict[str, str](), set[str]()
        for path, label, predicted in rows:
            first.setdefault(path, predicted)
            if predicted != label:
                wrong.add(path)
        return cls(first, frozenset(wrong))

    def predicted(self, paths: Sequence[str], label: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Colouring by predicted class, as `scatter.embedding_map` takes it; a class has its colour of `label`.

        Args:
            paths: images of the map.
            label: their classes, (images,).
        """
        names, code = told_apart(label)
        look = dict(zip(label.tolist(), code.tolist(), strict=True))
        untested = _UNTESTED if len(names) <= _UNTESTED else _LAST
        at = [look.get(self.first[path], _LAST) if path in self.first else untested for path in paths]
        names += [""] * (untested + 1 - len(names))
        names[untested] = names[untested] or (_NOT_TESTED if untested in at else "")
        return names, np.array(at)

    def errors(self, paths: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Colouring by whether the model is wrong; paths: images of the map."""
        at = [_WRONG if path in self.wrong else _RIGHT if path in self.first else _UNTESTED for path in paths]
        return [_NAMES.get(look, "") if look in at else "" for look in range(_UNTESTED + 1)], np.array(at)


def ladder_answers(folder: Path, rungs: Iterable[str], model: str) -> dict[str, Answers]:
    """Answers of one model on some rungs of a ladder; empty where the folder keeps no predictions.

    Args:
        folder: folder of the ladder.
        rungs: names of the rungs.
        model: name of the model.
    """
    file = folder / "predictions.csv"
    found: dict[str, list[tuple[str, str, str]]] = {rung: [] for rung in rungs}
    if file.exists():
        for row in read_csv(file):
            if row["model"] == model and row["rung"] in found:
                found[row["rung"]].append((row["path"], row["label"], row["predicted"]))
    return {rung: Answers.of(rows) for rung, rows in found.items() if rows}
