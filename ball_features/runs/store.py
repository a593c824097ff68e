"""A finished run: its folder, its page, and the way back from its files."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.cache import Cache
from ball_features.errors import DataError
from ball_features.evaluation.patient_scores import PatientScores
from ball_features.evaluation.results import ModelRow, no_run
from ball_features.evaluation.rows import CompatRow, GroupRow, read_rows
from ball_features.evaluation.run_details import COMPARISON, read_details
from ball_features.evaluation.stored_results import read_measurement
from ball_features.files import write_json
from ball_features.reporting.finding import Finding
from ball_features.reporting.groups import render_compat, render_groups
from ball_features.reporting.page import write_report
from ball_features.reporting.patient_table import render_patients
from ball_features.reporting.tables import render
from ball_features.reporting.verdict import findings_to_json, read_findings, verdict
from ball_features.runs.contents import RunContents
from ball_features.runs.evidence_of import comparison_evidence
from ball_features.runs.last_files import write_last

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Run", "annotate", "finish", "read_run"]


@dataclass(frozen=True)
class Run:
    """A finished comparison.

    Attributes:
        folder: folder of the run.
        metrics: a row a model, sorted by accuracy.
        notes: notes for the reader.
        title: the protocol in a line.
        caption: explanation of intervals and marks.
        details: contents of `run.json`.
        groups: a row a model and group left out; empty under other protocols.
        compat: a row a model in the student report's arithmetic, where that was asked for.
        patients: a row a model on patients; empty where the data name none.
        findings: the verdict; empty for runs of version 0.1.0.
        unwritten: those of the notes that name a file which could not be written.
    """

    folder: Path
    metrics: list[ModelRow]
    notes: list[str]
    title: str
    caption: str
    details: dict[str, Any]
    groups: list[GroupRow] = field(default_factory=list)
    compat: list[CompatRow] = field(default_factory=list)
    patients: list[PatientScores] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """The notes but for those on files that could not be written."""
        return [note for note in self.notes if note not in self.unwritten]

    @property
    def bundles(self) -> list[Path]:
        """Folders of the bundles, sorted by name."""
        return sorted(path.parent for path in self.folder.glob("models/*/bundle.json"))

    def more_tables(self) -> list[RenderableType]:
        """Render the tables beside the main one: patients, groups left out, the student report's arithmetic."""
        tables = render_patients(self.patients) + render_groups(self.groups, [row.model for row in self.metrics])
        return [*tables, render_compat(self.compat)] if self.compat else tables

    def table(self, width: int = 120) -> RenderableType:
        """Render the comparison table for a terminal of this width in characters."""
        return render(self.metrics, self.title, self.caption, width)


def finish(contents: RunContents, folder: Path, cache: Cache | None) -> Run:
    """Write verdict and page of a run that lies in its folder; a page that fails leaves a note and the run as it is.

    Args:
        contents: the measured comparison.
        folder: folder that `RunContents.write` filled.
        cache: cache for the map of embeddings; None leaves the map out.
    """
    run = Run(
        folder=folder,
        metrics=contents.models,
        notes=contents.details["notes"],
        title=contents.title,
        caption=contents.caption,
        details=contents.details,
        groups=contents.groups,
        compat=contents.compat,
        patients=contents.measurement.patients,
        findings=verdict(comparison_evidence(contents)),
    )
    unwritten = write_last(
        folder,
        {
            "verdict.json": lambda: write_json(folder / "verdict.json", findings_to_json(run.findings)),
            "report.html": lambda: write_report(folder, cache=cache),
        },
    )
    return replace(_noted(run, unwritten), unwritten=unwritten) if unwritten else run


def _noted(run: Run, more: list[str]) -> Run:
    """Add notes to a run and, where the disk takes them, to its `run.json`."""
    notes = [*run.notes, *more]
    details = run.details | {"notes": notes}
    with contextlib.suppress(DataError):
        if run.folder.is_dir():
            write_json(run.folder / "run.json", details)
    return replace(run, notes=notes, details=details)


def annotate(folder: Path, note: str) -> None:
    """Keep the user's note in the `run.json` of a run or a ladder, where `ball runs` and pages find it.

    Raises:
        DataError: the folder holds no run, or cannot be written.
    """
    try:
        details = read_details(folder, ())
    except (OSError, ValueError) as error:
        raise no_run(folder, error) from error
    write_json(folder / "run.json", dict(details) | {"note": note})


def read_run(folder: Path | str) -> Run:
    """Read a run back.

    Raises:
        DataError: the folder holds no run, or a damaged one.
    """
    folder = Path(folder)
    measurement = read_measurement(folder)
    try:
        details = dict(read_details(folder, COMPARISON))
        return Run(
            folder=folder,
            metrics=measurement.models,
            notes=details["notes"],
            title=details["title"],
            caption=details["caption"],
            details=details,
            groups=read_rows(folder / "groups.csv", GroupRow),
            compat=read_rows(folder / "compat.csv", CompatRow),
            patients=measurement.patients,
            findings=read_findings(folder),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise no_run(folder, error) from error
