"""The table of an external evaluation for a terminal: a row a level, from the bundle's own test to each site."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ball_features.evaluation.metrics import METRICS
from ball_features.reporting.external_record import Evaluation

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["render_evaluation"]

_SITES = 20  # sites that a terminal shows
# As many metrics as a terminal of 80 columns holds; the page and `evaluation.json` have all of `METRICS`.
_METRICS = ("recall", "f1", "auroc", "log_loss", "ece")
_NAN = float("nan")


def _row(name: str, images: int, values: dict[str, float], ends: tuple[float, float]) -> list[str]:
    accuracy = METRICS["accuracy"]
    cells = [name, str(images), accuracy.text(values["accuracy"], 1), accuracy.interval_text(ends, 1)]
    return cells + [METRICS[key].text(values.get(key, _NAN)) for key in _METRICS]


def render_evaluation(result: Evaluation) -> RenderableType:
    """Render the table and, below it, calibration, sets and flag in a line each."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    scores = result.scores
    rows = []
    if result.published is not None:
        own = result.published
        values = {"accuracy": own.accuracy.value, "ece": own.ece}
        rows.append(_row("its own test", own.accuracy.images, values, (own.accuracy.low, own.accuracy.high)))
    rows.append(_row("these images", scores.images, scores.values, scores.intervals["accuracy"]))
    if scores.patients is not None:
        own = scores.patients
        rows.append(_row("patients", own.patients, own.values, own.intervals["accuracy"]))
    if scores.site_means is not None:
        means = scores.site_means
        rows.append(_row("mean of sites", means.sites, means.values, means.intervals["accuracy"]))
    if len(scores.sites) > 1:
        rows += [_row(own.site, own.images, own.values, (own.low, own.high)) for own in scores.sites[:_SITES]]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    header = ["", "n", "acc.", "95 %", *("bal. rec." if key == "recall" else METRICS[key].heading for key in _METRICS)]
    for number, heading in enumerate(header):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*map(Text, cells))
    return Group(table, Text("\n".join(_lines(result)), style="dim"))


def _lines(result: Evaluation) -> list[str]:
    scores = result.scores
    sets = next(row for row in scores.sets if row.coverage == result.coverage)
    lines = [
        f"Sets at {100 * result.coverage:g} %: {_percent(sets.covered.value)} hold the true class; {sets.size:.2f} "
        "classes on average.",
        f"Unusual: {_percent(scores.flagged.value)} of the images; accuracy {_percent(scores.accuracy_flagged.value)} "
        f"among them, {_percent(scores.accuracy_others.value)} among the others.",
    ]
    if len(scores.sites) > 1:
        each = ", ".join(f"{own.site} {_percent(own.flagged)}" for own in scores.sites[:_SITES])
        lines.append(f"Unusual by site: {each}{', ...' if len(scores.sites) > _SITES else ''}.")
    own = result.recalibration
    if own is not None:
        fitted, tested = int(own.fitted.sum()), int((~own.fitted).sum())
        lines.append(
            f"A temperature fitted on {fitted} of the images takes the ECE of the {tested} others from "
            f"{own.before.ece:.3f} to {own.after.ece:.3f}; a set threshold, their coverage from "
            f"{_percent(own.before.covered)} to {_percent(own.after.covered)} with {own.after.size:.2f} classes."
        )
    return lines


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{100 * share:.1f} %"
