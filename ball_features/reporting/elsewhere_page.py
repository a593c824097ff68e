"""The part of a run's page about elsewhere: what views tell of the site, and accuracy by distance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ball_features.evaluation.elsewhere_rows import DistanceRow, SiteRow
from ball_features.evaluation.rows import read_rows
from ball_features.reporting.markup import Cell, Row, Table

__all__ = ["ElsewhereSection", "elsewhere_section"]


@dataclass(frozen=True)
class ElsewhereSection:
    """Tables with their notes; a table is None where the run has no such figures."""

    sites: Table | None
    site_note: str
    distances: Table | None
    distance_note: str


def elsewhere_section(folder: Path, model: str) -> ElsewhereSection | None:
    """The section of a run, or None where it has neither table.

    Args:
        folder: folder of the run.
        model: model whose accuracy by distance is shown.
    """
    sites = read_rows(folder / "sites.csv", SiteRow)
    distances = [row for row in read_rows(folder / "distances.csv", DistanceRow) if row.model == model]
    if not sites and not distances:
        return None
    site_note = ""
    if sites:
        first = sites[0]
        site_note = (
            f"On {first.images} images of {first.sites} sites. Robustness index: among the 50 nearest images, those of "
            "the same class from another site, as a share of these and those of the same site with another class. 1: "
            f"the class decides, 0: the site decides, {first.chance_index:.2f}: neither. Site named: how often a "
            f"linear model names the site (mean over sites; guessing {100 * first.chance_accuracy:.0f} %). Adapted: "
            "each embedding less the offset of its site."
        )
    return ElsewhereSection(
        sites=_sites(sites) if sites else None,
        site_note=site_note,
        distances=_distances(distances, model) if distances else None,
        distance_note="Equal numbers of images of the groups left out, the nearest first. Distance: mean cosine "
        "distance to the nearest training images, plain view. All models are in distances.csv.",
    )


def _cell(value: float | None, percent: bool) -> Cell:
    if value is None or value != value:
        return Cell("n/a", -1.0)
    return Cell(f"{100 * value:.1f}" if percent else f"{value:.2f}", value)


def _sites(rows: list[SiteRow]) -> Table:
    header = ("view", "robustness index", "95 %", "site named, %", "index, adapted", "site named, adapted, %")
    cells = [
        (
            Cell(row.view),
            _cell(row.index, False),
            Cell(f"{row.index_low:.2f} - {row.index_high:.2f}", row.index_low),
            _cell(row.site_accuracy, True),
            _cell(row.adapted_index, False),
            _cell(row.adapted_site_accuracy, True),
        )
        for row in rows
    ]
    return Table(header, tuple(Row(own) for own in cells), "What each view tells of the site", 1)


def _distances(rows: list[DistanceRow], model: str) -> Table:
    cells = [
        (
            Cell(f"{row.low:.3f} - {row.high:.3f}", row.low),
            Cell(str(row.images), float(row.images)),
            Cell(f"{100 * row.accuracy:.1f}", row.accuracy),
            Cell(f"{100 * row.accuracy_low:.0f} - {100 * row.accuracy_high:.0f}", row.accuracy_low),
            Cell(f"{100 * row.confidence:.1f}", row.confidence),
        )
        for row in rows
    ]
    header = ("distance", "images", "accuracy %", "95 %", "mean probability %")
    return Table(header, tuple(Row(own) for own in cells), f"{model}: accuracy by distance", 0)
