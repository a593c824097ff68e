"""The table of patients, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.patient_scores import ClassScores, PatientScores
from ball_features.reporting.tables import KIND_STYLES

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["patient_notes", "patient_table", "render_patients"]

# Metric -> heading: a clinician says sensitivity where the other tables say recall.
_MEANS = {"recall": "sensitivity", "specificity": "specificity"}
_METRICS = {"f1": "F1", "auroc": "AUROC"}


def patient_notes(scores: Sequence[PatientScores]) -> list[str]:
    """Say which patients are scored, and how; nothing without patients."""
    if not scores:
        return []
    first = scores[0]
    if first.basis == "images":
        every = first.several_labels == first.patients
        count = f"All {first.patients}" if every else f"{first.several_labels} of the {first.patients}"
        return [
            f"{count} patients have images of several classes, so that a patient has no class of its own. The patient "
            f"level is the mean of each metric over the {first.patients} patients."
        ]
    left = f" {first.several_labels} patients with images of several classes are not." if first.several_labels else ""
    return [f"{first.patients} patients are scored by the mean of log-probabilities over their images.{left}"]


def _title(first: PatientScores) -> str:
    if first.basis == "images":
        return f"By patient: each metric on a patient's images, mean over {first.patients} patients"
    return f"By patient: one answer for each of {first.patients} patients"


def _cell(own: PatientScores, name: str) -> str:
    metric = METRICS[name]
    digits = (1, 0) if metric.percent else (2, 2)
    value = metric.text(own.values[name], digits[0])
    return f"{value} ({metric.interval_text(own.intervals[name], digits[1])})" if name in own.intervals else value


def _sensitivity(own: ClassScores) -> str:
    recall = METRICS["recall"]
    return f"{recall.text(own.sensitivity)} ({recall.interval_text((own.sensitivity_low, own.sensitivity_high), 0)})"


def _table(scores: Sequence[PatientScores]) -> tuple[list[str], list[list[str]]]:
    """Header and rows. Of two classes each has its sensitivity, which is the specificity of the other one."""
    classes = list(scores[0].per_class) if len(scores[0].per_class) == 2 else []
    header = ["model", "kind", "accuracy", *(f"sensitivity {name}" for name in classes)]
    header += [*([] if classes else _MEANS.values()), *_METRICS.values()]
    rows = []
    for own in scores:
        cells = [own.model, own.kind, _cell(own, "accuracy"), *(_sensitivity(own.per_class[name]) for name in classes)]
        rows.append([*cells, *(_cell(own, name) for name in [*([] if classes else _MEANS), *_METRICS])])
    return header, rows


def render_patients(scores: Sequence[PatientScores]) -> list[RenderableType]:
    """Render the table for a terminal; nothing without patients."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not scores:
        return []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, title=_title(scores[0]), title_justify="left")
    header, rows = _table(scores)
    for number, heading in enumerate(header):
        table.add_column(Text(heading), justify="left" if number < 2 else "right")
    for own, cells in zip(scores, rows, strict=True):
        table.add_row(*map(Text, cells), style=KIND_STYLES.get(own.kind))
    return [table]


def patient_table(scores: Sequence[PatientScores]) -> str:
    """Write the table in Markdown, and the classes of each model; "" without patients."""
    if not scores:
        return ""
    header, rows = _table(scores)
    lines = ["", f"### {_title(scores[0])}", "", f"| {' | '.join(header)} |"]
    lines.append("| --- | --- |" + " ---: |" * (len(header) - 2))
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    means = " F1 and AUROC are means over classes." if len(scores[0].per_class) == 2 else " Means over classes."
    lines += ["", f"In brackets the 95 % interval, by a bootstrap over patients.{means} Each class:", ""]
    lines += ["| model | class | patients | sensitivity | specificity |", "| --- | --- | ---: | ---: | ---: |"]
    for own in scores:
        for label, part in own.per_class.items():
            specificity = METRICS["specificity"].text(part.specificity)
            lines.append(f"| {own.model} | {label} | {part.patients} | {_sensitivity(part)} | {specificity} |")
    return "\n".join([*lines, ""])
