"""What a model card quotes of an external evaluation, read from its `evaluation.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ball_features.errors import DataError
from ball_features.evaluation.stored_results import PREDICTIONS
from ball_features.files import read_csv, read_json
from ball_features.reporting.external_record import FORMAT, bundle_digest

__all__ = ["EvaluationSummary", "read_summaries", "read_summary"]


@dataclass(frozen=True)
class EvaluationSummary:
    """What a model card quotes of an evaluation.

    Attributes:
        source: folder or cache that was evaluated.
        created: date and time.
        bundle_sha256: digest of the bundle's `bundle.json`, or "".
        images: number of images scored.
        accuracy: share that is right.
        low: lower end of its 95 % interval.
        high: upper end.
        balanced: mean over classes of the recall.
        ece: expected calibration error; NaN if undefined.
        covered: share of prediction sets that hold the true class, at `coverage`.
        coverage: coverage that the sets were made for.
        flagged: share of images that were flagged.
        difference: published accuracy less this one; NaN without published figures.
        difference_low: lower end of its 95 % interval.
        difference_high: upper end.
        sentences: sentences of the verdict that are serious or warnings.
        bundle: name of the bundle: its folder, or its model where that is not kept.
        note: the user's own note.
    """

    source: str
    created: str
    bundle_sha256: str
    images: int
    accuracy: float
    low: float
    high: float
    balanced: float
    ece: float
    covered: float
    coverage: float
    flagged: float
    difference: float
    difference_low: float
    difference_high: float
    sentences: tuple[str, ...]
    bundle: str = ""
    note: str = ""


def read_summaries(evaluations: Sequence[Path], bundle: Path) -> list[EvaluationSummary]:
    """Read external evaluations of a bundle.

    Args:
        evaluations: folders of the evaluations, or their `evaluation.json`.
        bundle: folder of the bundle.

    Raises:
        DataError: An evaluation cannot be read, or is of another bundle.
    """
    digest, found = bundle_digest(bundle), []
    for path in evaluations:
        own = read_summary(path)
        if own.bundle_sha256 != digest:
            raise DataError(
                f"{path} is the evaluation of another bundle than {bundle} (SHA-256 {own.bundle_sha256[:12] or 'none'} "
                f"of bundle.json, expected {digest[:12]}). Evaluate this bundle with `ball evaluate`."
            )
        found.append(own)
    return found


def read_summary(path: Path) -> EvaluationSummary:
    """Read `evaluation.json`, or that of a folder.

    Raises:
        DataError: There is no evaluation, or a damaged one.
    """
    file = path / "evaluation.json" if path.is_dir() else path
    try:
        values = read_json(file)
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, expected {FORMAT}")
        if (file.parent / PREDICTIONS).exists():
            _require_agreement(file, values)
        sets = next(row for row in values["sets"] if row["coverage"] == values["coverage"])
        published: Mapping[str, Any] = values["published"] or {}
        return EvaluationSummary(
            source=str(values["source"]),
            created=str(values["created"]),
            bundle_sha256=str(values["bundle"]["sha256"]),
            images=int(values["n"]),
            accuracy=_number(values["accuracy"]),
            low=_number(values["accuracy_low"]),
            high=_number(values["accuracy_high"]),
            balanced=_number(values["balanced_recall"]),
            ece=_number(values["metrics"]["ece"]["value"]),
            covered=_number(sets["covered"]["value"]),
            coverage=_number(values["coverage"]),
            flagged=_number(values["unusual"]["flagged"]["value"]),
            difference=_number(published.get("difference")),
            difference_low=_number(published.get("low")),
            difference_high=_number(published.get("high")),
            sentences=tuple(
                str(item["sentence"]) for item in values["verdict"] if item["severity"] in ("serious", "warning")
            ),
            bundle=str(values["bundle"].get("name") or values["bundle"]["model"]),
            note=str(values.get("note", "")),
        )
    except (OSError, ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise DataError(
            f"{file} holds no external evaluation ({type(error).__name__}: {error}). Expected evaluation.json, which "
            "`ball evaluate` writes."
        ) from error


def _require_agreement(file: Path, values: Mapping[str, Any]) -> None:
    """Compare an evaluation with the predictions beside it, which say the same unless one was edited."""
    classes, hits = values["classes"], dict[str, list[bool]]()
    for row in read_csv(file.parent / PREDICTIONS):
        if float(row[f"p_{row['predicted']}"]) < max(float(row[f"p_{name}"]) for name in classes):
            raise _edited(file, f"{PREDICTIONS} gives {row['path']} a predicted class that is not the most probable")
        if row["status"] == "scored":
            hits.setdefault(row["true"], []).append(row["predicted"] == row["true"])
    every = [hit for own in hits.values() for hit in own]
    recalls = [sum(own) / len(own) for own in hits.values()]
    found = {"n": len(every), "accuracy": fmean(every or [math.nan]), "balanced_recall": fmean(recalls or [math.nan])}
    for name, value in found.items():
        stored = _number(values[name])
        if not (math.isclose(stored, value, abs_tol=1e-6) or (math.isnan(stored) and math.isnan(value))):
            raise _edited(file, f"{file.name} and {PREDICTIONS} give {name} {stored:.6g} and {value:.6g}")


def _edited(file: Path, wrong: str) -> DataError:
    return DataError(f"{file.parent} was edited or damaged: {wrong}. Evaluate the images again.")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
