"""The patient level on a page: each model on patients with intervals, and the answer for each patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.patient_scores import ClassScores, PatientScores
from ball_features.files import read_csv
from ball_features.reporting.markup import Cell, Row, Table
from ball_features.reporting.patient_table import patient_notes

__all__ = ["PatientSection", "patient_section"]

_LISTED = 100
_NONE = Cell("n/a", -1.0)


@dataclass(frozen=True)
class PatientSection:
    """What a page shows of patients.

    Attributes:
        heading: what is averaged or answered.
        models: a row a model with its metrics on patients and their intervals.
        classes: a row a model and class.
        answers: a row a patient with the answer of one model; None where patients have no class of their own, or the
            run keeps no answers.
        model: name of that model.
        notes: which patients are scored, and how.
        wrong: number of answers that are wrong.
        scored: number of answers that are right or wrong.
        mean_agreement: mean share of a patient's images that were classified as the patient was, in %.
    """

    heading: str
    models: Table
    classes: Table
    answers: Table | None
    model: str
    notes: list[str]
    wrong: int
    scored: int
    mean_agreement: str


def patient_section(folder: Path, scores: Sequence[PatientScores], model: str, title: str) -> PatientSection | None:
    """The patients of a run; None without patients.

    Args:
        folder: folder of the run, for `patients.csv`.
        scores: scores on patients, a row a model.
        model: model whose answers are listed.
        title: title of the run, which tells its tables from those of another run on the page.
    """
    if not scores:
        return None
    answered = scores[0].basis == "patients"
    answers = _read(folder / "patients.csv", model) if answered else []
    scored = [own for own in answers if own["label"]]
    agreement = [float(own["agreement"]) for own in answers]
    return PatientSection(
        heading=(
            "Patients: one answer from all images of each"
            if answered
            else "Patients: metrics on the images of each, averaged over patients"
        ),
        models=_models(scores, title),
        classes=_classes(scores, title),
        answers=_answers(answers, f"Patients by {model}: {title}") if answers else None,
        model=model,
        notes=patient_notes(scores),
        wrong=sum(own["label"] != own["predicted"] for own in scored),
        scored=len(scored),
        mean_agreement=f"{100 * sum(agreement) / len(agreement):.1f}" if agreement else "",
    )


def _read(path: Path, model: str) -> list[dict[str, str]]:
    """Rows of a model; none where there is no such file."""
    if not path.exists():
        return []
    return [row for row in read_csv(path) if row["model"] == model]


def _metric(own: PatientScores, name: str) -> Cell:
    metric, value = METRICS[name], own.values[name]
    if value != value:
        return _NONE
    text = metric.text(value, 1 if metric.percent else 3)
    ends = own.intervals.get(name)
    return Cell(f"{text} ({metric.interval_text(ends, 0 if metric.percent else 2)})" if ends else text, value)


def _models(scores: Sequence[PatientScores], title: str) -> Table:
    names = ("accuracy", "recall", "specificity", "f1", "auroc")
    rows = []
    for own in scores:
        cells = [Cell(own.model), Cell(own.kind), *(_metric(own, name) for name in names)]
        if scores[0].basis == "patients":
            vote = own.majority_accuracy
            cells.append(Cell(METRICS["accuracy"].text(vote, 1), vote) if vote == vote else _NONE)
        rows.append(Row(tuple(cells), own.kind))
    header = ("model", "kind", "accuracy (95 %)", "sensitivity (95 %)", "specificity (95 %)", "F1 (95 %)")
    vote_heading = ("by majority vote",) if scores[0].basis == "patients" else ()
    return Table((*header, "AUROC (95 %)", *vote_heading), tuple(rows), f"Patients: {title}", 2)


def _sensitivity(own: ClassScores) -> Cell:
    metric = METRICS["recall"]
    if own.sensitivity != own.sensitivity:
        return _NONE
    ends = metric.interval_text((own.sensitivity_low, own.sensitivity_high), 0)
    return Cell(f"{metric.text(own.sensitivity, 1)} ({ends})", own.sensitivity)


def _classes(scores: Sequence[PatientScores], title: str) -> Table:
    rows = []
    for own in scores:
        for name, part in own.per_class.items():
            specificity = METRICS["specificity"].text(part.specificity, 1)
            cells = (Cell(own.model), Cell(name), Cell(str(part.patients), float(part.patients)), _sensitivity(part))
            value = part.specificity if part.specificity == part.specificity else -1.0
            rows.append(Row((*cells, Cell(specificity, value)), own.kind))
    header = ("model", "class", "patients", "sensitivity (95 %)", "specificity")
    return Table(header, tuple(rows), f"Classes on patients: {title}", 2)


def _answers(answers: Sequence[Mapping[str, str]], name: str) -> Table:
    """A row a patient: wrong answers first, then those whose images agree least."""
    several = len({own["repeat"] for own in answers}) > 1

    def order(own: Mapping[str, str]) -> tuple[bool, float]:
        return own["label"] in ("", own["predicted"]), float(own["agreement"])

    rows = []
    for own in sorted(answers, key=order)[:_LISTED]:
        agreement, probability = float(own["agreement"]), float(own[f"p_{own['predicted']}"])
        cells = [Cell(own["patient"]), Cell(own["label"] or "several"), Cell(own["predicted"])]
        cells += [Cell(f"{100 * agreement:.0f}", agreement), Cell(own["images"], float(own["images"]))]
        cells += [Cell(f"{probability:.3f}", probability), *([Cell(own["repeat"])] if several else [])]
        rows.append(Row(tuple(cells)))
    header = ("patient", "label", "predicted", "% of images that agree", "images", "probability")
    return Table((*header, *(("repeat",) if several else ())), tuple(rows), name, 3)
