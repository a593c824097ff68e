"""The protocol learning-curve of `ball fit`: what more images, patients or sites would bring."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ball_features.cache import Cache
from ball_features.config import LEARNING_CURVE, FitConfig
from ball_features.config.paths import without_places
from ball_features.config.toml import FILE, Repeat
from ball_features.dataset.grouping import Grouping, read_grouping, read_groups
from ball_features.dataset.nested import Nested, nested_splits
from ball_features.dataset.splits import Split
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError
from ball_features.evaluation.curve import CurveRow, curve_rows, forecast_rows, say_forecast
from ball_features.evaluation.power_law import ForecastRow
from ball_features.evaluation.protocols import ModelResult, Progress, evaluate, fit_notes, require_fitted
from ball_features.evaluation.rows import write_rows
from ball_features.evaluation.tasks import Evaluation, obstacles
from ball_features.files import write_csv, write_json
from ball_features.models.registry import Model, select
from ball_features.outputs import require_folder
from ball_features.reporting.curve_page import write_curve_report
from ball_features.reporting.provenance import provenance
from ball_features.reporting.words import counted, describe_cache
from ball_features.runs.checks import (
    check_name,
    check_options,
    chosen_cache,
    image_table,
    require_unadapted,
    with_numbers,
)
from ball_features.runs.contents import failures, prediction_rows, split_rows
from ball_features.runs.last_files import write_last
from ball_features.runs.new_folder import NewFolder, reserved_folder, stamped

__all__ = ["LearningCurve", "learning_curve"]

DEFAULT_MODELS = ("mlp", "logistic")
_LEAST_SITES = 6  # of a column site that the user did not name: fewer leave no curve


@dataclass(frozen=True)
class LearningCurve:
    """A finished learning curve.

    Attributes:
        folder: folder of the run.
        rows: a row a model and size.
        forecasts: a row a model.
        sentences: what twice the units would bring, a sentence a model.
        notes: notes for the reader.
        unwritten: sentences on files that could not be written.
    """

    folder: Path
    rows: list[CurveRow]
    forecasts: list[ForecastRow]
    sentences: list[str]
    notes: list[str]
    unwritten: list[str] = field(default_factory=list)


def learning_curve(
    cache_path: Path | str,
    config: FitConfig,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    progress: Progress | None = None,
) -> LearningCurve:
    """Fit the models on nested subsets of the training images, and test all on one fixed test set.

    Subsets are of patients where the data name patients, of sites where they name six or more, of the column that
    `group_column` names, and of images otherwise.

    Args:
        cache_path: a complete cache, made by `extract`.
        config: models (the head and logistic regression if none is named), number of chains of subsets (`repeats`),
            sizes of test and validation set, seed, groups and head.
        out_root: folder of the runs.
        name: name of the run's folder in it; protocol and time if None.
        progress: called with (fits done, fits of this model's group, model just done).

    Raises:
        CacheError: the cache is missing, incomplete or not finite.
        ConfigError: a setting has no effect.
        DataError: the groups file does not fit, or no model could be fitted.
        SplitError: there are too few units for a test set and two sizes.
    """
    start = time.perf_counter()
    repeat = Repeat("fit", {"cache": str(cache_path)}, replace(config, protocol=LEARNING_CURVE))
    config = replace(config, protocol=FitConfig.protocol)
    check_name(name)
    require_unadapted(config, "a learning curve")
    cache = chosen_cache(cache_path, config)
    specs, notes = with_numbers(select(config.models or DEFAULT_MODELS), cache, named=config.names_models)
    check_options(config, specs, cache)
    grouping = read_grouping(config, cache.path, cache.label, cache.columns)
    noun, unit, said = _unit(config, cache, grouping)
    nested = nested_splits(config, image_table(cache, grouping), unit, noun)
    notes += [*(() if grouping is None else grouping.notes), *said, *nested.notes]
    require_folder(out_root)
    results = _fit(Evaluation(cache, tuple(specs), tuple(nested.splits), config, grouping), progress)
    require_fitted(results)
    codes = np.unique(cache.label, return_inverse=True)[1]
    together = [cache.sha256, *(() if grouping is None else (grouping.together, grouping.group))]
    units = merge_units(*together, *(() if unit is None else (unit,)))
    rows = curve_rows(results, nested.sizes, codes, units, noun)
    forecasts = forecast_rows(results, nested.sizes, codes, units, noun)
    sentences = [say_forecast(row) for row in forecasts]
    notes += [*fit_notes(results), *_missing(results, nested)]
    with reserved_folder(Path(out_root), name or stamped(LEARNING_CURVE, out_root)) as folder:
        details = {
            "protocol": LEARNING_CURVE,
            "title": _title(cache, nested, noun),
            "notes": [*map(without_places, notes)],
            "sentences": sentences,
            "failures": failures(results),
        }
        details |= provenance(
            cache,
            config,
            source=str(cache_path),
            start=start,
            repeats=range(config.repeats),
            again=repeat.command(folder),
            groups_sha256=None if grouping is None else grouping.sha256,
        )
        with NewFolder(folder.parent, folder.name) as new:
            write_json(new.path / "run.json", details)
            (new.path / FILE).write_text(repeat.text(), encoding="utf-8")
            write_rows(new.path / "curve.csv", rows)
            write_rows(new.path / "forecast.csv", forecasts)
            header = ("path", "label", "group", "repeat", "split", "fold", "unit")
            group = units if unit is None else unit
            write_csv(new.path / "splits.csv", header, split_rows(cache, nested.splits, group, units))
            classes = sorted(set(cache.label.tolist()))
            header = ("model", "repeat", "fold", "path", "label", "predicted", *(f"p_{name}" for name in classes))
            write_csv(new.path / "predictions.csv", header, prediction_rows(cache, results, classes))
    unwritten = write_last(new.path, {"report.html": lambda: write_curve_report(new.path)})
    return LearningCurve(new.path, rows, forecasts, sentences, notes, unwritten)


def _unit(config: FitConfig, cache: Cache, grouping: Grouping | None) -> tuple[str, np.ndarray | None, list[str]]:
    """Name of the unit that subsets are made of, its value for each image (None: each image), and notes."""
    if config.group_column != "auto" and grouping is not None:
        return config.group_column, grouping.group, []
    if grouping is not None and grouping.patient is not None and (grouping.patient != "").any():
        alone = np.char.add("image ", cache.path)
        return "patient", np.where(grouping.patient == "", alone, grouping.patient), []
    site = cache.columns.get("site")
    if site is None and config.groups is not None:
        with contextlib.suppress(DataError):  # the file has no such column
            site = read_groups(config.groups, "site", cache.path.tolist(), blanks=True)
    if site is None or not (site != "").any():
        return "image", None, []
    sites = len(np.unique(site[site != ""]))
    if sites >= _LEAST_SITES:
        return "site", np.where(site == "", np.char.add("image ", cache.path), site), []
    note = (
        f"The {sites} sites are too few for subsets of sites, so that subsets are of images: the curve holds for more "
        "images of these sites. group_column='site' draws sites all the same."
    )
    return "image", None, [note]


def _fit(evaluation: Evaluation, progress: Progress | None) -> list[ModelResult]:
    """Fit every model on the subsets that are large enough for it."""
    blocked = [obstacles(replace(evaluation, splits=(split,))) for split in evaluation.splits]
    by_splits: dict[tuple[int, ...], list[Model]] = {}
    for model in evaluation.models:
        possible = tuple(number for number, found in enumerate(blocked) if model.name not in found)
        by_splits.setdefault(possible, []).append(model)
    found: dict[str, ModelResult] = {}
    for possible, models in by_splits.items():
        splits: Sequence[Split] = [evaluation.splits[number] for number in possible]
        if not splits:
            found |= {model.name: ModelResult(model, [], blocked[-1][model.name]) for model in models}
            continue
        own = replace(evaluation, models=tuple(models), splits=tuple(splits))
        found |= {result.spec.name: result for result in evaluate(own, progress)}
    return [found[model.name] for model in evaluation.models]


def _missing(results: Sequence[ModelResult], nested: Nested) -> list[str]:
    """Say which models could not be fitted, at all or on small subsets."""
    notes = []
    for result in results:
        if result.failure:
            notes.append(f"{result.spec.name} failed and has no curve: {result.failure}")
            continue
        lacking = len(nested.splits) - len(result.fitted)
        if lacking:
            notes.append(f"{result.spec.name} was not fitted on {lacking} subsets, which are too small for it.")
    return notes


def _title(cache: Cache, nested: Nested, noun: str) -> str:
    test = len(nested.splits[0].test)
    first, last = nested.sizes[0], nested.sizes[-1]
    subsets = f"{first.units:.0f} to {last.units:.0f} {noun}s, {counted(last.subsets, 'seed')}"
    return f"Learning curve · {describe_cache(cache)} · {subsets} · {test} test images, the same for all"
