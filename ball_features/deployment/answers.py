"""Predictions on new images, and their files: CSV with a JSON file beside it, JSON, or a page."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.bundles.prediction import Prediction
from ball_features.dataset.manifest import Rejected
from ball_features.deployment.predictions_page import predictions_page
from ball_features.errors import DataError

__all__ = ["Predictions", "check_suffix"]

_SUFFIXES = (".csv", ".json", ".html")


@dataclass(frozen=True)
class Predictions:
    """Predictions on several images, and the bundle that made them.

    Attributes:
        predictions: one prediction for each image that could be decoded, in the order of the files.
        rejected: files that could not be decoded, with reasons.
        classes: names of the classes, in the order of the probabilities.
        about: bundle, model and network, the coverage of sets and the threshold for unusual images.
        notes: what a reader must know about sets and flags.
    """

    predictions: list[Prediction]
    rejected: list[Rejected]
    classes: tuple[str, ...]
    about: dict[str, Any]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return self._beside() | {"predictions": [item.to_dict() for item in self.predictions]}

    def _beside(self) -> dict[str, Any]:
        rejected = [{"path": item.path, "reason": item.reason} for item in self.rejected]
        return self.about | {"notes": self.notes, "rejected": rejected}

    def write(self, path: Path | str) -> list[Path]:
        """Write a file in the format that its name ends in: .csv, .json or .html.

        Args:
            path: file to write.

        Returns:
            Files written. p.csv has one row for each prediction, and p.csv.json beside it has the rest.

        Raises:
            DataError: The name has another ending, or the folder cannot be written.
        """
        path = Path(path)
        check_suffix(path)
        header = ["path", "predicted", *(f"p_{name}" for name in self.classes), "set", "distance", "unusual"]
        rows = [_row(item, self.classes) for item in self.predictions]
        files = [path]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".csv":
                with path.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerow(header)
                    writer.writerows(rows)
                files.append(path.with_name(path.name + ".json"))
                files[1].write_text(json.dumps(self._beside(), indent=1) + "\n", encoding="utf-8")
            elif path.suffix == ".json":
                path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
            else:
                path.write_text(predictions_page(self), encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path} cannot be written ({error.strerror}). Give another output file.") from error
        return files


def check_suffix(path: Path) -> None:
    """Raise `DataError` if the name of an output file has none of the known endings."""
    if path.suffix not in _SUFFIXES:
        raise DataError(
            f"Got the output file {path}, expected a name that ends in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}."
        )


def _row(item: Prediction, classes: Sequence[str]) -> list[str]:
    return [
        item.path,
        item.predicted,
        *(f"{item.probability[name]:.6f}" for name in classes),
        "|".join(item.set),
        f"{item.distance:.6f}",
        str(item.unusual).lower(),
    ]
