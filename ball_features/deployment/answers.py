"""Predictions on new images, and their files: CSV with a JSON file beside it, JSON, or a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ball_features.bundles.prediction import Prediction
from ball_features.dataset.manifest import Rejected
from ball_features.deployment.alarm import judge
from ball_features.deployment.patient_answers import PatientAnswer, answer_each_patient
from ball_features.deployment.predictions_page import predictions_page
from ball_features.errors import DataError
from ball_features.files import is_expected, joined_names, require_apart, write_csv, write_text
from ball_features.outputs import remove_former, require_writable
from ball_features.reporting.finding import Finding
from ball_features.reporting.verdict import findings_to_json

__all__ = ["Predictions", "beside", "check_suffix", "patients_beside", "require_replaceable"]

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
        patient: patient of each image, "" where it is not known; empty without a sheet.
        remarks: files that were passed over, by ending; rows of the sheet and images that do not match.
    """

    predictions: list[Prediction]
    rejected: list[Rejected]
    classes: tuple[str, ...]
    about: dict[str, Any]
    notes: list[str]
    patient: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)

    @cached_property
    def findings(self) -> list[Finding]:
        """The verdict."""
        return judge(self.predictions, self.classes, self.about["unusual_share"], str(self.about["bundle"]))

    @cached_property
    def patients(self) -> list[PatientAnswer]:
        """An answer for each patient; empty without a sheet."""
        return answer_each_patient(self.predictions, self.patient, self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return self._beside() | {"predictions": [item.to_dict() for item in self.predictions]}

    def _beside(self) -> dict[str, Any]:
        rejected = [{"path": item.path, "reason": item.reason} for item in self.rejected]
        values = self.about | {"verdict": findings_to_json(self.findings), "notes": self.notes}
        values |= {"rejected": rejected, "remarks": self.remarks}
        return values | ({"patients": [item.to_dict() for item in self.patients]} if self.patients else {})

    def write(self, path: Path | str) -> list[Path]:
        """Write a file in the format that its name ends in: .csv, .json or .html.

        Args:
            path: file to write.

        Returns:
            Files written. p.csv has one row for each prediction, and p.csv.json beside it has the rest;
            p.patients.csv has one row for each patient, where a sheet named them; without one, one of earlier answers
            is removed.

        Raises:
            DataError: The name has another ending, the file cannot be written, or a file is there that `write` did not
                make.
        """
        path = Path(path)
        if not is_expected(path):  # by the command, which knows what it has read
            require_replaceable(path, "output file", (), patients=bool(self.patients))
        header = ["path", "predicted", *(f"p_{name}" for name in self.classes), "set", "distance", "unusual"]
        rows = [_row(item, self.classes) for item in self.predictions]
        if self.patient:
            header.append("patient")
            rows = [[*row, name] for row, name in zip(rows, self.patient, strict=True)]
        files = [path]
        if path.suffix == ".csv":
            write_csv(path, header, rows)
            files.append(beside(path))
            write_text(files[1], json.dumps(self._beside(), indent=1) + "\n")
            if self.patients:
                files.append(patients_beside(path))
                lines = (one.row(self.classes) for one in self.patients)
                write_csv(files[2], PatientAnswer.columns(self.classes), lines)
            else:
                remove_former(patients_beside(path), "patient answers")
        elif path.suffix == ".json":
            write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")
        else:
            write_text(path, predictions_page(self))
        return files


def beside(path: Path) -> Path:
    """The file beside a CSV file of predictions, for what does not belong to one image."""
    return path.with_name(path.name + ".json")


def patients_beside(path: Path) -> Path:
    """The file beside a CSV file of predictions, with an answer for each patient."""
    return path.with_name(f"{path.stem}.patients.csv")


def require_replaceable(path: Path, setting: str, inputs: Iterable[Path | str], *, patients: bool = True) -> None:
    """Check that predictions may be written to a file, and beside it, before they are made.

    Args:
        path: the file.
        setting: name of the setting that holds the path, for the message.
        inputs: files that are read.
        patients: whether there may be answers for patients.

    Raises:
        DataError: The name has none of the known endings, or a file is there that `Predictions.write` did not make.
    """
    check_suffix(path)
    kind = {".csv": "predictions", ".json": "answers", ".html": "page"}[path.suffix]
    require_writable(path, setting, kind=kind, inputs=(own := list(inputs)))
    if path.suffix == ".csv":
        require_writable(beside(path), setting, kind="answers", inputs=own, named=False)
        require_apart({setting: path, "file beside it": beside(path), "file of patients": patients_beside(path)})
        if patients:
            require_writable(patients_beside(path), setting, kind="patient answers", inputs=own, named=False)


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
        joined_names(item.set),
        f"{item.distance:.6f}",
        str(item.unusual).lower(),
    ]
