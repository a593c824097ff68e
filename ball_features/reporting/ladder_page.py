"""The optimism ladder on a page: accuracy from rung to rung as lines, and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.errors import DataError
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.rows import LadderRow
from ball_features.evaluation.run_details import read_details
from ball_features.evaluation.stored_results import PREDICTIONS, read_ladder
from ball_features.reporting.charts import Axis, Chart, Line, Tick, round_ticks
from ball_features.reporting.dots import SHORTCUT
from ball_features.reporting.finding import Finding
from ball_features.reporting.markup import Cell, Row, Table
from ball_features.reporting.provenance import Provenance, own_note, provenance_block
from ball_features.reporting.verdict import read_findings

__all__ = [
    "LadderSection",
    "column_left_out",
    "explained",
    "is_ladder",
    "ladder_caption",
    "ladder_lines",
    "ladder_section",
]

# What each rung asks of a model, for a reader who has not met it.
_RUNGS = {
    "random": "test images drawn at random, as most papers do",
    "copies together": "the same draws, but identical files are never in both training and test",
    "given split": "training and test images as the sheet or the folders give them",
    "groups": "images that show the same, whole or in part, also turned or brightened, are never in both",
    "blocks": "runs of twenty neighbouring files, likely taken one after the other, are never in both",
    "patients": "images of a patient are never in both",
    "series left out": "each series tested in turn by models that have seen none of it; a series is images of one "
    "class that were likely taken together (same scale bar, kind of file and stain): inferred, not known",
    "site left out": "each site (hospital or scanner) tested in turn by models that have seen none of its images",
}
_KINDS = {
    "head": "a small neural network that is trained on the embeddings; in bold",
    "baseline": "a classical model that is fitted on the embeddings",
    "shortcut": "a model that does without the network: it sees a few numbers of the pixels, such as colours, and "
    "never the shape of a cell",
}
_MODELS = {
    "mlp": "two layers of 64 units on the embeddings",
    "logistic": "logistic regression on the embeddings",
    "majority": "guesses: always answers the most frequent class of the training images, which can be rare among "
    "the test images where whole series, patients or sites are left out",
    "colour": "sees the mean and the spread of three colours of an image, and nothing else",
    "histogram": "sees how often each colour occurs in an image, and nothing else",
    "nuclei": "sees how many dark spots (nuclei) there are, how large and how dark, and nothing else",
    "corner": "sees the corners of an image, where scale bars are",
}
_EMBEDDINGS = ("embedding", "the numbers that the frozen network makes of an image; it was not trained on these images")
_LEFT_OUT = " left out"  # ends the name of the last rung, behind its column
_NAMED = 5  # lines with a colour and a name
_COLOURS = (0, 2, 3, 4, 6)
_OTHERS = 7  # colour of the lines without a name
_UNKNOWN = Cell("n/a", -1.0)
_COMPARED = "accuracy and recall of each model on each step, and those over the groups left out,"


@dataclass(frozen=True, eq=False)
class LadderSection:
    """The part of a page about an optimism ladder; `template` renders it."""

    title: str
    verdict: list[Finding]
    notes: list[str]
    caption: str
    wide: Chart
    narrow: Chart
    table: Table
    words: list[tuple[str, str]]
    provenance: Provenance | None
    compared: str
    template: str = "ladder_section.html"


def is_ladder(folder: Path) -> bool:
    """Whether a run's folder holds a ladder."""
    return (folder / "ladder.csv").exists()


def column_left_out(rungs: Sequence[str]) -> str:
    """The column whose values the last of these rungs leaves out; "" where that rung could not be made."""
    return rungs[-1].removesuffix(_LEFT_OUT) if rungs[-1].endswith(_LEFT_OUT) else ""


def ladder_caption(rungs: Sequence[str]) -> str:
    """How to read a ladder with these rungs."""
    same = "The first two steps use the same random draws; in the second, no image is tested whose identical copy was "
    same += "trained on. Later steps"
    said = same if "copies together" in rungs else "The steps after the first"
    said += " use draws of their own: a small difference may be chance."
    columns = [rung.removesuffix(_LEFT_OUT) for rung in rungs if rung.endswith(_LEFT_OUT)]
    if "series" in columns:
        said += " Series made by `ball audit` are inferred from overlays, stain and file order: likely, not known."
    named = " and ".join(repr(column) for column in columns if column != "series")
    return f"{said} Left out one by one: the values of the column {named}." if named else said


def explained(rows: Sequence[LadderRow]) -> list[tuple[str, str]]:
    """Names of the rungs, kinds and models of a ladder that can be said in plain words, each with these."""
    names = dict.fromkeys([*(row.rung for row in rows), *(row.kind for row in rows), *(row.model for row in rows)])
    known = _RUNGS | _KINDS | _MODELS
    return [(name, known[name]) for name in names if name in known] + [_EMBEDDINGS]


def ladder_section(folder: Path) -> LadderSection:
    """The part of a page about a ladder.

    Raises:
        DataError: The folder holds no ladder.
    """
    try:
        details = read_details(folder)
        notes = [*own_note(details), *details["notes"]]
        rows = read_ladder(folder)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no ladder ({error}). Make one with the protocol ladder.") from error
    if not rows:
        raise DataError(f"{folder} holds no ladder: ladder.csv is missing or empty. Make one with the protocol ladder.")
    return LadderSection(
        title=details.get("title", "Optimism ladder"),
        verdict=read_findings(folder),
        notes=notes,
        caption=ladder_caption(list(dict.fromkeys(row.rung for row in rows))),
        wide=ladder_lines(rows),
        narrow=ladder_lines(rows, brief=True),
        table=_table(rows),
        words=explained(rows),
        provenance=provenance_block(details),
        compared=_COMPARED if (folder / PREDICTIONS).exists() else "",
    )


def ladder_lines(rows: Sequence[LadderRow], *, brief: bool = False) -> Chart:
    """Accuracy from rung to rung, the lines named at their ends; models beyond the first few are grey.

    Args:
        rows: rows of `ladder.csv`.
        brief: whether rungs are numbers on the axis, and names in the note, for a narrow page.
    """
    rungs = list(dict.fromkeys(row.rung for row in rows))
    points = {
        name: np.array([[rungs.index(row.rung), 100 * row.accuracy] for row in rows if row.model == name])
        for name in dict.fromkeys(row.model for row in rows)
    }
    kind = {row.model: row.kind for row in rows}
    named = _named(points, kind)
    drawn, colours = [], iter(_COLOURS)
    for name, own in sorted(points.items(), key=lambda item: item[0] in named):
        if name in named:
            colour = SHORTCUT if kind[name] == "shortcut" else next(colours)
            drawn.append(Line(own, colour, 1 if kind[name] == "shortcut" else 0, f"{name} {own[-1, 1]:.1f}", 2.5))
        else:
            label = f"{name} {own[-1, 1]:.1f}" if name == "majority" else ""  # what guessing gives
            drawn.append(Line(own, _OTHERS, 1 if kind[name] == "shortcut" else 0, label, 1))
    lowest = min(own[:, 1].min() for own in points.values())
    ticks = round_ticks(50.0 if lowest > 75 else 0.0, 100.0)
    at_x = tuple(Tick(place, str(place + 1) if brief else name) for place, name in enumerate(rungs))
    said = [f"{len(points) - len(named)} other models in grey."] if len(points) > len(named) else []
    said += ["Dashed: shortcuts, which do without the network."] if "shortcut" in kind.values() else []
    said += [f"Rungs: {'; '.join(f'{place + 1} {name}' for place, name in enumerate(rungs))}."] if brief else []
    return Chart(
        "Accuracy in % from random splits (left) to what was never seen (right)",
        Axis(-0.15, len(rungs) - 0.85, at_x),
        Axis(min(ticks[0], lowest), 100, tuple(Tick(tick, f"{tick:g}") for tick in ticks), rules=True),
        lines=tuple(drawn),
        note=" ".join(said),
        plot_px=300,
    )


def _named(points: dict[str, np.ndarray], kind: dict[str, str]) -> list[str]:
    """A head, the best model and the best shortcut of the first and of the last rung; others while there is room."""
    networks = [name for name in points if kind[name] != "shortcut"]
    first = sorted(networks, key=lambda name: -points[name][0, 1])
    last = sorted(networks, key=lambda name: (-points[name][-1, 0], -points[name][-1, 1]))
    shortcuts = sorted((name for name in points if kind[name] == "shortcut"), key=lambda name: -points[name][0, 1])
    strict = sorted(shortcuts, key=lambda name: (-points[name][-1, 0], -points[name][-1, 1]))
    heads = [name for name in networks if kind[name] == "head"]
    wanted = [*heads[:1], *first[:1], *last[:1], *shortcuts[:1], *strict[:1], *first[1:]]
    return list(dict.fromkeys(wanted))[:_NAMED]


def _table(rows: Sequence[LadderRow]) -> Table:
    """A row a model, a column a rung, sorted by the last rung."""
    metric = METRICS["accuracy"]
    rungs = list(dict.fromkeys(row.rung for row in rows))
    column = column_left_out(rungs)
    by_model: dict[str, dict[str, LadderRow]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.rung] = row

    def at(own: dict[str, LadderRow], rung: str) -> float:
        return own[rung].accuracy if rung in own else math.nan

    lines = []
    for name, own in sorted(by_model.items(), key=lambda item: -np.nan_to_num(at(item[1], rungs[-1]))):
        cells = [Cell(name), Cell(next(iter(own.values())).kind)]
        for row in (own.get(rung) for rung in rungs):
            if row is None:
                cells.append(_UNKNOWN)
                continue
            interval = metric.interval_text((row.accuracy_low, row.accuracy_high), 0)
            cells.append(Cell(f"{metric.text(row.accuracy, 1)} ({interval})", row.accuracy))
        if column:
            last = own.get(rungs[-1])
            for share in (None, None) if last is None else (last.mean_balanced_recall, last.worst_recall):
                cells.append(_UNKNOWN if share is None else Cell(f"{100 * share:.1f}", share))
        drop = at(own, rungs[0]) - at(own, rungs[-1])
        cells.append(_UNKNOWN if math.isnan(drop) else Cell(f"{100 * drop:.1f}", drop))
        lines.append(Row(tuple(cells), cells[1].text))
    sides = (f"balanced recall, mean over {column}", f"recall of the worst {column}") if column else ()
    header = ("model", "kind", *rungs, *sides, "drop in points")
    return Table(header, tuple(lines), "Accuracy of each model on each rung", 2)
