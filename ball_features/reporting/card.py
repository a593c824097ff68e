"""A model card in Markdown (Mitchell et al. 2019, doi 10.1145/3287560.3287596), filled in from a bundle and its run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.bundles.bundle import Bundle
from ball_features.bundles.facts import BundleFacts, BundleFigures
from ball_features.config import COVERAGE
from ball_features.errors import DataError
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.results import Measurement, ModelRow
from ball_features.evaluation.run_details import COMPARISON, read_details
from ball_features.evaluation.stored_results import read_ladder, read_measurement, told_as_damage
from ball_features.files import write_text
from ball_features.models.base import PerViewClassifier
from ball_features.reporting.external_summary import read_summaries
from ball_features.reporting.heat import MANY_CLASSES, frequent_errors
from ball_features.reporting.markup import render
from ball_features.reporting.verdict import read_findings

__all__ = ["write_card"]

_SAID = ("serious", "warning")  # findings that the card repeats
_MANY_FOLDERS = 20  # more are not listed


@dataclass(frozen=True)
class _Table:
    """A table in Markdown: the first column to the left, the others to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class _OwnFigures:
    """Figures of the bundle itself, calibrated, on the test images of its split."""

    images: int
    left_out: str
    metrics: _Table
    sets: _Table
    notes: list[str]


@dataclass(frozen=True)
class _RunFigures:
    """Figures of the model in the comparison of its run."""

    chosen: str
    metrics: _Table
    classes: _Table
    confusion: _Table


@dataclass(frozen=True)
class _Rungs:
    """The model on the optimism ladder."""

    first: str
    last: str
    drop: str
    table: _Table


@dataclass(frozen=True)
class _Elsewhere:
    """External evaluations of the bundle."""

    table: _Table
    findings: list[str]


def write_card(
    bundle: Bundle, folder: Path, path: Path, ladder: Path | None = None, evaluations: Sequence[Path] = ()
) -> Path:
    """Write the card.

    Args:
        bundle: bundle from `read_bundle`.
        folder: folder of the bundle; the run around it gives the figures.
        path: file to write.
        ladder: folder of a run of the protocol ladder, which says what the figures are worth.
        evaluations: folders of external evaluations of this bundle, or their `evaluation.json`.

    Raises:
        DataError: The run's files, the ladder or an evaluation cannot be read, an evaluation is of another bundle, or
            the card cannot be written.
    """
    with told_as_damage(folder.resolve().parent.parent, *([ladder] if ladder else []), *evaluations):
        facts = bundle.facts
        plan = facts.preprocessing.plan.indices
        run, measurement, model = _read_run(folder, facts.model)
        text = render(
            "card.md",
            facts=facts,
            preprocessing=facts.preprocessing,
            run=run,
            classes=bundle.classes,
            views=_views([plan[place] for place in facts.model_views] or plan),
            by_view=isinstance(bundle.estimator, PerViewClassifier),
            sources=_sources(bundle, run),
            own=_own_figures(bundle),
            figures=_figures(model, measurement),
            ladder=None if ladder is None else _rungs(ladder, facts.model),
            elsewhere=_elsewhere(evaluations, folder) if evaluations else None,
            verdict=[finding for finding in read_findings(folder.resolve().parent.parent) if finding.severity in _SAID],
            unusual_percent=_percent(bundle.unusual_share),
            validation=len(bundle.distances),
            provenance=_provenance(facts, run),
        )
    write_text(path, text)
    return path


def _read_run(folder: Path, name: str) -> tuple[dict[str, Any], Measurement, ModelRow]:
    """What run.json and metrics.json hold, and the model's own row of the latter."""
    place = folder.resolve().parent.parent
    try:
        run = dict(read_details(place, (*COMPARISON, "config_fingerprint", "seeds")))
        measurement = read_measurement(place)
        return run, measurement, next(row for row in measurement.models if row.model == name)
    except (DataError, OSError, ValueError, StopIteration) as error:
        raise DataError(
            f"{folder} does not lie in the run that made it ({error}), expected RUN/models/MODEL. The card's figures "
            "come from there."
        ) from error


def _percent(value: float | None, digits: int = 1) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def _views(views: Sequence[int]) -> str:
    return "the plain image" if list(views) == [0] else "one view" if len(views) == 1 else f"{len(views)} views"


def _sources(bundle: Bundle, run: Mapping[str, Any]) -> str:
    """Where the training images come from, as far as their ids and the run's settings tell."""
    folders = [path.split("/")[0] for path in bundle.train_path]
    counts = {name: folders.count(name) for name in dict.fromkeys(folders)}
    if len(counts) < _MANY_FOLDERS:
        said = f"Training images by folder: {', '.join(f'{name} {count}' for name, count in counts.items())}."
    else:
        said = f"The training images lie in {len(counts)} folders, which splits.csv of the run names."
    column = run["config"].get("group_column")
    if run["config"].get("groups"):
        named = "" if column in (None, "auto") else f" (column {column})"
        return f"{said} Groups that no split divides come from {run['config']['groups']}{named}."
    named = "Columns of the cache name" if run.get("groups_sha256") else "No column named"
    return f"{said} {named} their patients, sites, slides or series."


def _own_figures(bundle: Bundle) -> _OwnFigures | None:
    found = bundle.facts.test
    if found is None:
        return None
    metrics = (
        ("accuracy", _with_interval(found), ""),
        ("log loss", f"{found.log_loss:.4f}", f"{found.uncalibrated_log_loss:.4f}"),
        ("expected calibration error", f"{found.ece:.4f}", f"{found.uncalibrated_ece:.4f}"),
        ("flagged as unusual %", _percent(found.unusual), ""),
    )
    sets = tuple(
        (f"{100 * row.coverage:g}", _percent(row.covered), f"{row.size:.2f}", _percent(row.single))
        for row in found.sets
    )
    return _OwnFigures(
        found.images,
        bundle.facts.left_out,
        _Table(("metric", "calibrated", "before"), metrics),
        _Table(("sets: coverage asked %", "covered %", "mean size", "one class %"), sets),
        bundle.notes(COVERAGE),
    )


def _with_interval(found: BundleFigures) -> str:
    """The accuracy with its interval, which bundles of earlier versions lack."""
    ends = f" ({_percent(found.accuracy_low)} - {_percent(found.accuracy_high)})"
    return _percent(found.accuracy, 2) + ("" if math.isnan(found.accuracy_low) else ends)


def _chosen(model: ModelRow, measurement: Measurement) -> str:
    """How many models these test images have compared."""
    rivals = [row.model for row in measurement.models if row.kind != "shortcut"]
    if len(rivals) < 2:
        return "No other model was compared on these test images."
    text = (
        f"{len(rivals)} models were compared on these test images; by accuracy this one is number "
        f"{rivals.index(model.model) + 1}. A model that is taken because it was best here looks better than it is "
        "(Cawley and Talbot 2010)"
    )
    best = measurement.best_of
    if best is None or math.isnan(best.accuracy):
        return f"{text}."
    return (
        f"{text}: the best of them reaches {_percent(best.accuracy, 2)} % ({_percent(best.low)} - "
        f"{_percent(best.high)}) on images that did not choose it."
    )


def _figures(model: ModelRow, measurement: Measurement) -> _RunFigures:
    low, high = model.intervals["accuracy"]
    rows = [("accuracy", f"{_percent(model.accuracy, 2)} ({_percent(low)} - {_percent(high)})")]
    for name, metric in METRICS.items():
        if name != "accuracy" and not math.isnan(model.values[name]):
            label = f"{name}, mean over classes" if metric.percent else name
            rows.append((label, metric.text(model.values[name], 2 if metric.percent else 3)))
    classes = tuple(
        (
            name,
            f"{own['support']:.0f}",
            _percent(own["precision"]),
            f"{_percent(own['recall'])} ({_percent(own['recall_low'])} - {_percent(own['recall_high'])})",
        )
        for name, own in model.per_class.items()
    )
    return _RunFigures(
        _chosen(model, measurement),
        _Table(("metric", "% or value"), tuple(rows)),
        _Table(("class", "tests", "precision %", "recall % (95 %)"), classes),
        _confusion(list(model.per_class), model.confusion),
    )


def _confusion(names: list[str], counts: list[list[int]]) -> _Table:
    """The confusion matrix; of many classes the most frequent errors."""
    if len(names) <= MANY_CLASSES:
        return _Table(
            ("true / predicted", *names), tuple((name, *row) for name, row in zip(names, counts, strict=True))
        )
    rows = ((names[true], names[called], counts[true][called]) for true, called in frequent_errors(np.array(counts)))
    return _Table(("true class", "predicted", "images"), tuple(rows))


def _rungs(folder: Path, name: str) -> _Rungs:
    if not (folder / "ladder.csv").exists():
        raise DataError(f"{folder} holds no ladder: ladder.csv is missing. Give a run of the protocol ladder.")
    rows = [row for row in read_ladder(folder) if row.model == name]
    if not rows:
        raise DataError(f"The ladder in {folder} has no rows of {name}. Run it with {name} among its models.")
    cells = tuple(
        (
            row.rung,
            _percent(row.accuracy),
            f"{_percent(row.accuracy_low)} - {_percent(row.accuracy_high)}",
            "" if row.worst_recall is None else _percent(row.worst_recall),
        )
        for row in rows
    )
    drop = rows[0].accuracy - rows[-1].accuracy
    table = _Table(("test images", "accuracy %", "95 %", "worst group %"), cells)
    return _Rungs(rows[0].rung, rows[-1].rung, f"{100 * drop:.1f}", table)


def _elsewhere(evaluations: Sequence[Path], folder: Path) -> _Elsewhere:
    """A row an evaluation, and what their verdicts say.

    Raises:
        DataError: An evaluation cannot be read, or is of another bundle.
    """
    rows, findings = [], []
    for own in read_summaries(evaluations, folder):
        lost = f"{100 * own.difference:.1f} ({100 * own.difference_low:.1f} - {100 * own.difference_high:.1f})"
        cells = (
            f"{own.source}, {own.created[:10]}",
            own.images,
            f"{_percent(own.accuracy)} ({_percent(own.low)} - {_percent(own.high)})",
            "n/a" if math.isnan(own.difference) else lost,
            _percent(own.balanced),
            "n/a" if math.isnan(own.ece) else f"{own.ece:.3f}",
            f"{_percent(own.covered)} of {100 * own.coverage:g}",
            _percent(own.flagged),
        )
        rows.append(cells)
        findings += [f"{own.source}: {sentence}" for sentence in own.sentences]
    header = (
        "images of", "images", "accuracy % (95 %)", "points lost (95 %)", "mean recall %", "ECE", "sets cover %",
        "unusual %",
    )  # fmt: skip
    return _Elsewhere(_Table(header, tuple(rows)), findings)


def _provenance(facts: BundleFacts, run: Mapping[str, Any]) -> _Table:
    rows = (
        ("weights SHA-256", f"`{facts.preprocessing.weights_sha256}`"),
        ("cache fingerprint", f"`{facts.cache_fingerprint}`"),
        ("configuration", f"`{run['config_fingerprint']}`"),
        ("protocol", facts.protocol),
        ("seed", run["seeds"]["seed"]),
        *run["versions"].items(),
    )
    return _Table(("item", "value"), rows)
