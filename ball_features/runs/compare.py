"""`ball compare`: the same images, splits and models over several caches."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.cache import Cache, choose_channels
from ball_features.config import FitConfig, split_names
from ball_features.config.paths import as_path, shareable_text, shown_path
from ball_features.config.toml import Repeat
from ball_features.dataset.grouping import read_grouping
from ball_features.errors import CacheError, ConfigError
from ball_features.evaluation.protocols import (
    ModelResult,
    Progress,
    check_finite,
    evaluate,
    named_progress,
)
from ball_features.evaluation.results import ModelRow
from ball_features.evaluation.rows import CompareRow, write_rows
from ball_features.evaluation.tasks import Evaluation
from ball_features.evaluation.views import model_views
from ball_features.files import escaped_controls
from ball_features.models.registry import Model, select
from ball_features.outputs import require_folder
from ball_features.reporting.run_tables import comparison as comparison_table
from ball_features.runs.checks import (
    check_name,
    check_options,
    check_protocol,
    complete_cache,
    require_unadapted,
    split_by,
    with_numbers,
)
from ball_features.runs.contents import Comparison, measure_comparison
from ball_features.runs.new_folder import NewFolder, reserved_folder, stamped
from ball_features.runs.store import Run, finish

__all__ = ["DEFAULT_MODELS", "compare"]

DEFAULT_MODELS = ("mlp", "logistic", "colour", "histogram", "nuclei")
_DIVIDING = ("patient", "site", "split", "group", "series", "block")  # columns that protocols go by
_NAMED_VIEWS = 2  # more views than these are counted, not named


@dataclass(frozen=True, eq=False)
class _Entry:
    """One of the caches to compare.

    Attributes:
        name: short name, which tells it from the others.
        cache: the cache as models see it, its rows in the order of the first cache's.
        specs: models to fit on it.
    """

    name: str
    cache: Cache
    specs: list[Model]


def _read(argument: str) -> tuple[str, Cache]:
    """Read CACHE.h5, CACHE.h5:CHANNELS or CACHE.h5:mean; return a short name and the cache as models see it."""
    head, mark, channels = argument.rpartition(".h5:")
    path, wanted = (as_path(f"{head}.h5"), channels) if mark else (as_path(argument), "")
    cache, name = complete_cache(path), Path(shown_path(path)).stem
    if wanted == "mean":
        return f"{name}:mean", choose_channels(cache, (), "mean")
    parts = split_names(wanted)
    return name + (f":{wanted}" if wanted else ""), choose_channels(cache, parts)


def _aligned(cache: Cache, name: str, first: Cache) -> Cache:
    """Bring the rows of a cache into the order of the first cache's."""
    row_of = {(path, digest): row for row, (path, digest) in enumerate(zip(cache.path, cache.sha256, strict=True))}
    wanted = list(zip(first.path, first.sha256, strict=True))
    missing = sum(key not in row_of for key in wanted)
    if missing or len(row_of) != len(wanted):
        raise CacheError(
            f"{name} holds other images than the first cache: {missing} of {len(wanted)} are not in it, and it has "
            f"{len(row_of)}. Extract the same folder for each."
        )
    order = np.array([row_of[key] for key in wanted])
    if (cache.label[order] != first.label).any():
        raise CacheError(f"{name} labels images otherwise than the first cache. Extract the same folder.")
    if (order == np.arange(len(order))).all():
        return cache
    return dataclasses.replace(
        cache,
        embeddings=cache.embeddings[order],
        path=cache.path[order],
        label=cache.label[order],
        sha256=cache.sha256[order],
        committed=cache.committed[order],
        twin_sha256=cache.twin_sha256[order] if len(cache.twin_sha256) else cache.twin_sha256,
        shortcuts={key: value[order] for key, value in cache.shortcuts.items()},
        columns={key: value[order] for key, value in cache.columns.items()},
    )


def compare(
    caches: Sequence[str],
    config: FitConfig | Mapping[str, Any] | None = None,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[Run, list[CompareRow]]:
    """Compare caches of the same images: backbones, channels or recipes.

    Args:
        caches: paths `CACHE.h5`, each optionally with `:original`, `:segmented`, `:original,segmented` or `:mean`
            behind it to choose its channels. Without a choice all channels are concatenated.
        config: protocol, models and head. Shortcuts are fitted once, on the first cache's pixel statistics.
        out_root: folder of the runs.
        name: name of the run's folder in it.
        notes: notes that stand before the run's own.
        progress: called with (fits done, all fits, cache and model just done); it starts over for each cache.

    Returns:
        The run, whose models are called CACHE/MODEL, and the rows of `compare.csv`.

    Raises:
        CacheError: a cache is missing, incomplete, or of other images.
        ConfigError: there are fewer than two caches, or one twice; or a channel does not exist.
        DataError: the groups file does not fit, or no model could be fitted.
        SplitError: the protocol cannot be carried out on these classes.
    """
    start = time.perf_counter()
    config = FitConfig.of(config)
    caches = [caches] if isinstance(caches, str) else caches
    check_name(name)
    require_unadapted(config, "several caches")
    check_protocol(config)
    if len(caches) < 2 or len(set(map(os.path.realpath, caches))) < len(caches):
        listed = ", ".join(map(shown_path, caches))
        raise ConfigError(f"Got {len(caches)} caches ({listed}), expected two or more different ones.")
    # Everything that can be wrong with a cache is found before the first model is fitted.
    entries, model_notes = _entries(caches, config)
    first = entries[0].cache
    grouping = read_grouping(config, first.path, first.label, first.columns)
    splits, split_notes = split_by(config, first, grouping)
    require_folder(out_root)
    for entry in entries:
        _check(entry, config)
    results: list[ModelResult] = []
    fitted_on: dict[str, tuple[_Entry, Model]] = {}
    for entry in entries:
        evaluation = Evaluation(entry.cache, tuple(entry.specs), tuple(splits), config, grouping)
        for result in evaluate(evaluation, named_progress(progress, entry.name)):
            spec = result.spec if result.spec.kind == "shortcut" else _renamed(result.spec, entry.name)
            fitted_on[spec.name] = (entry, result.spec)
            results.append(dataclasses.replace(result, spec=spec))
    with reserved_folder(Path(out_root), name or stamped(f"compare-{config.protocol}", out_root)) as folder:
        comparison = Comparison(
            cache=first,
            config=config,
            splits=splits,
            results=results,
            grouping=grouping,
            source=list(caches),
            repeat=Repeat("compare", {"caches": list(caches)}, config),
            folder=folder,
            subject=f"{len(first.path)} images, {len(caches)} caches",
            notes=[*notes, *split_notes, *model_notes],
            start=start,
        )
        contents = measure_comparison(comparison)
        rows = [_row(row, *fitted_on[row.model], config) for row in contents.models]
        with NewFolder(folder.parent, folder.name) as new:
            contents.write(new.path)
            write_rows(new.path / "compare.csv", rows)
            (new.path / "compare.md").write_text(escaped_controls(comparison_table(rows), kept="\n"), encoding="utf-8")
    return finish(contents, new.path, None), rows


def _entries(caches: Sequence[str], config: FitConfig) -> tuple[list[_Entry], list[str]]:
    """Read the caches and choose the models of each; return notes on models that a cache cannot have."""
    specs = select(config.models or DEFAULT_MODELS)
    if all(spec.kind == "shortcut" for spec in specs):
        raise ConfigError("Got shortcuts only, expected a model on embeddings too, such as models=('mlp', 'colour').")
    named = [_read(argument) for argument in caches]
    places = _places(caches)
    aligned = [_aligned(cache, place, named[0][1]) for (_, cache), place in zip(named, places, strict=True)]
    columns = _joined_columns(aligned, places)
    aligned = [dataclasses.replace(cache, columns=columns) for cache in aligned]
    files = [name for name, _ in named]
    names = _short_names(files if len(set(files)) == len(files) else places, aligned)
    entries, notes = [], []
    for number, (name, cache) in enumerate(zip(names, aligned, strict=True)):
        own = [spec for spec in specs if spec.kind != "shortcut" or number == 0]
        own, said = with_numbers(own, cache, named=config.names_models)
        notes += said
        entries.append(_Entry(name, cache, own))
    return entries, notes


def _places(caches: Sequence[str]) -> list[str]:
    """A name for each cache by its place, as a run may tell it: without keys, and relative to where one works."""
    shared = [shareable_text(argument) for argument in caches]
    return [
        name if shared.count(name) == 1 else f"{name} ({shared[: number + 1].count(name)})"
        for number, name in enumerate(shared)
    ]


def _joined_columns(caches: Sequence[Cache], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of all caches, their rows in one order: what any of them knows of an image holds for its comparison.

    Raises:
        CacheError: Two name another patient, site, split or group for an image.
    """
    found: dict[str, np.ndarray] = {}
    source: dict[str, str] = {}
    for cache, name in zip(caches, names, strict=True):
        for column, own in cache.columns.items():
            if column not in found:
                found[column], source[column] = own, name
                continue
            known = found[column]
            other = np.flatnonzero((known != own) & (known != "") & (own != ""))
            if column in _DIVIDING and len(other):
                row = int(other[0])
                raise CacheError(
                    f"{name} and {source[column]} name another {column} for {len(other)} of {len(own)} images, such as "
                    f"{own[row]} and {known[row]} for {cache.path[row]}. Extract with the same sheet."
                )
            found[column] = np.where(known == "", own, known)
    return found


def _short_names(files: list[str], caches: list[Cache]) -> list[str]:
    """Name caches by backbone and channels where that tells them apart, else by their files."""
    own = []
    for cache in caches:
        joint = "+" if cache.combine == "concat" else "~"
        channels = f":{joint.join(cache.channels_used)}" if cache.channels_used != ("original",) else ""
        own.append(cache.backbone + channels)
    return own if len(set(own)) == len(own) else files


def _check(entry: _Entry, config: FitConfig) -> None:
    """Raise `ConfigError` or `CacheError` for a model or an embedding that would fail later."""
    check_options(config, entry.specs, entry.cache)
    check_finite(entry.cache)
    for spec in entry.specs:
        model_views(spec, entry.cache, config)  # raises where this cache lacks a view


def _renamed(spec: Model, cache: str) -> Model:
    return dataclasses.replace(spec, name=f"{cache}/{spec.name}")


def _row(row: ModelRow, entry: _Entry, spec: Model, config: FitConfig) -> CompareRow:
    cache, seeing = entry.cache, spec.kind != "shortcut"
    used = [f"{name} ({cache.segmentation})" if name == "segmented" else name for name in cache.channels_used]
    channels = (" + " if cache.combine == "concat" else " mean ").join(used)
    low, high = row.intervals["accuracy"]
    return CompareRow(
        cache=entry.name if seeing else "",
        backbone=cache.backbone if seeing else "",
        channels=channels if seeing else "",
        recipe=cache.recipe if seeing else "",
        views=_views_seen(spec, cache, config) if seeing else "",
        dim=cache.embeddings.shape[2] if seeing else 0,
        images_per_s=cache.images_per_s if seeing else float("nan"),
        model=spec.name,
        kind=row.kind,
        accuracy=row.accuracy,
        accuracy_low=low,
        accuracy_high=high,
        recall=row.values["recall"],
        f1=row.values["f1"],
        log_loss=row.values["log_loss"],
        behind_low=row.behind_best[0],
        behind_high=row.behind_best[1],
        p_against_best=row.p_against_best,
        ties_best=row.ties_best,
    )


def _views_seen(spec: Model, cache: Cache, config: FitConfig) -> str:
    """Name the views that a model was trained and tested on; of many views give the number only."""

    def named(views: tuple[int, ...]) -> str:
        return f"{len(views)} views" if len(views) > _NAMED_VIEWS else ", ".join(cache.view[view] for view in views)

    views = model_views(spec, cache, config)
    return named(views.train) if views.train == views.test else f"{named(views.train)}; tested: {named(views.test)}"
