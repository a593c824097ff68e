"""`ball compare`: the same images, splits and models over several caches: the paper's table of backbones, honestly."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.cache import Cache, choose_channels
from ball_features.config import FitConfig, split_names
from ball_features.dataset.grouping import read_grouping
from ball_features.errors import CacheError, ConfigError
from ball_features.evaluation.protocols import check_finite, evaluate, fit_notes, named_progress
from ball_features.evaluation.tasks import Evaluation
from ball_features.evaluation.views import model_views
from ball_features.files import require_folder, write_csv
from ball_features.models.registry import Model, select
from ball_features.reporting.provenance import command
from ball_features.reporting.tables import SAME_MARK, comparison
from ball_features.runs.checks import (
    check_name,
    check_options,
    check_protocol,
    complete_cache,
    split_by,
    with_numbers,
)
from ball_features.runs.store import Run, store

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["DEFAULT_MODELS", "compare", "render_comparison"]

DEFAULT_MODELS = ("mlp", "logistic", "colour", "histogram", "nuclei")
_COLUMNS = (
    "cache", "backbone", "channels", "recipe", "views", "dim", "images_per_s", "model", "kind", "accuracy",
    "accuracy_low", "accuracy_high", "recall", "f1", "log_loss", "behind_low", "behind_high", "p_against_best",
    "ties_best",
)  # fmt: skip
_NAMED_VIEWS = 2  # more than these are counted


def _read(argument: str) -> tuple[str, Cache]:
    """(short name, cache as models see it) of CACHE.h5, CACHE.h5:CHANNELS or CACHE.h5:mean."""
    head, mark, channels = argument.rpartition(".h5:")
    path, wanted = (Path(f"{head}.h5"), channels) if mark else (Path(argument), "")
    cache = complete_cache(path)
    if wanted == "mean":
        return f"{path.stem}:mean", choose_channels(cache, (), "mean")
    parts = split_names(wanted)
    return path.stem + (f":{wanted}" if wanted else ""), choose_channels(cache, parts)


def _aligned(cache: Cache, name: str, first: Cache) -> Cache:
    """The cache with its rows in the order of the first one's."""
    place = {(path, digest): row for row, (path, digest) in enumerate(zip(cache.path, cache.sha256, strict=True))}
    wanted = list(zip(first.path, first.sha256, strict=True))
    missing = sum(key not in place for key in wanted)
    if missing or len(place) != len(wanted):
        raise CacheError(
            f"{name} holds other images than the first cache: {missing} of {len(wanted)} are not in it, and it has "
            f"{len(place)}. Extract the same folder for each."
        )
    order = np.array([place[key] for key in wanted])
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
    )


def compare(
    caches: Sequence[str],
    config: FitConfig | None = None,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    progress: Callable[..., None] | None = None,
) -> tuple[Run, list[dict[str, Any]]]:
    """Compare caches of the same images: backbones, channels or recipes.

    Args:
        caches: `CACHE.h5`, with `:original`, `:segmented`, `:original,segmented` or `:mean` behind it to choose its
            channels (all of them, one behind the other, if left out).
        config: Protocol, models, head. Shortcuts are fitted once, on the first cache's pixel numbers.
        out_root: Folder of the runs.
        name: The run's folder in it.
        progress: Called with (fits done, fits in all, cache and model just done), from the start for each cache.

    Returns:
        The run, whose models are called CACHE/MODEL, and a row for each of them: the columns of `compare.csv`.

    Raises:
        CacheError: A cache is missing, incomplete, or of other images.
        ConfigError: Fewer than two caches, one twice, or a channel that is not there.
        DataError: The groups file does not fit, or no model could be fitted.
        SplitError: The protocol cannot be carried out on these classes.
    """
    start = time.perf_counter()
    config = config or FitConfig()
    check_name(name)
    check_protocol(config)
    if len(caches) < 2 or len(set(caches)) < len(caches):
        raise ConfigError(f"Got {len(caches)} caches ({', '.join(caches)}), expected two or more different ones.")
    specs = select(config.models or DEFAULT_MODELS)
    if all(spec.kind == "shortcut" for spec in specs):
        raise ConfigError("Got shortcuts only, expected a model on embeddings too, such as --models mlp,colour.")
    named = [_read(argument) for argument in caches]
    first = named[0][1]
    # All that can be wrong with a cache is found before the first model is fitted.
    aligned = [_aligned(cache, argument, first) for (_, cache), argument in zip(named, caches, strict=True)]
    short = _short_names([key for key, _ in named], aligned)
    grouping = read_grouping(config, first.path, first.label)
    splits, notes = split_by(config, first, grouping)
    against = {} if grouping is None else {"group": grouping.series, "center": grouping.center}
    require_folder(out_root)
    chosen: list[list[Model]] = []
    for number, cache in enumerate(aligned):
        own = [spec for spec in specs if spec.kind != "shortcut" or number == 0]
        own, said = with_numbers(own, cache, named=bool(config.models))
        notes += said
        check_options(config, own, cache)
        check_finite(cache)
        for spec in own:
            model_views(spec, cache, config)  # raises where a view is not in this cache
        chosen.append(own)
    results, facts = [], {}
    for cache, own, label in zip(aligned, chosen, short, strict=True):
        evaluation = Evaluation(cache, tuple(own), tuple(splits), config, **against)
        own_results = evaluate(evaluation, named_progress(progress, label))
        notes += fit_notes(own_results)
        for result in own_results:
            shared = result.spec.kind == "shortcut"
            full = result.spec.name if shared else f"{label}/{result.spec.name}"
            facts[full] = _facts(None if shared else cache, label, result.spec, config)
            results.append(dataclasses.replace(result, spec=dataclasses.replace(result.spec, name=full)))
    rows: list[dict[str, Any]] = []

    def more(folder: Path, metrics: list[dict[str, Any]]) -> None:
        for row in metrics:
            rows.append(facts[row["model"]] | {key: row[key] for key in _COLUMNS if key in row and key != "model"})
        write_csv(folder / "compare.csv", _COLUMNS, ([row[key] for key in _COLUMNS] for row in rows))
        (folder / "compare.md").write_text(comparison(rows), encoding="utf-8")

    run = store(
        first,
        results,
        splits,
        config,
        grouping=grouping,
        notes=notes,
        source=list(caches),
        again=command("compare", list(caches), config),
        what=f"{len(first.path)} images, {len(caches)} caches",
        start=start,
        out_root=out_root,
        name=name or f"compare-{config.protocol}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}",
        more=more,
    )
    return run, rows


def _short_names(names: list[str], caches: list[Cache]) -> list[str]:
    """Backbone and channels where that tells the caches apart, else the names of their files."""
    own = []
    for cache in caches:
        used = cache.attributes.get("channels_used", ["original"])
        joint = "+" if cache.attributes.get("combine", "concat") == "concat" else "~"
        own.append(cache.attributes["backbone"] + (f":{joint.join(used)}" if used != ["original"] else ""))
    return own if len(set(own)) == len(own) else names


def _facts(cache: Cache | None, label: str, spec: Model, config: FitConfig) -> dict[str, Any]:
    if cache is None:
        empty = dict.fromkeys(("cache", "backbone", "channels", "recipe", "views"), "")
        return empty | {"dim": 0, "images_per_s": float("nan"), "model": spec.name}
    own = cache.attributes
    used = own.get("channels_used", ["original"])
    used = [f"{name} ({own['segmentation']})" if name == "segmented" else name for name in used]
    return {
        "cache": label,
        "backbone": own["backbone"],
        "channels": (" + " if own.get("combine", "concat") == "concat" else " mean ").join(used),
        "recipe": own["recipe"],
        "views": _views_seen(spec, cache, config),
        "dim": cache.embeddings.shape[2],
        "images_per_s": cache.images_per_s,
        "model": spec.name,
    }


def _views_seen(spec: Model, cache: Cache, config: FitConfig) -> str:
    """The views that a model was trained and tested on, by name; of many only their number."""

    def told(views: tuple[int, ...]) -> str:
        return f"{len(views)} views" if len(views) > _NAMED_VIEWS else ", ".join(cache.view[view] for view in views)

    views = model_views(spec, cache, config)
    return told(views.train) if views.train == views.test else f"{told(views.train)}; tested: {told(views.test)}"


def render_comparison(rows: Sequence[dict[str, Any]], title: str, width: int = 120) -> RenderableType:
    """The table for a terminal of this many characters."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = [line.strip("|").split("|") for line in comparison(rows).splitlines() if line.startswith("|")]
    narrow = 1 if width < 130 else 0  # the last column goes where there is no room for it
    lines = [line[: len(line) - narrow] for line in lines]
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for place, heading in enumerate(lines[0]):
        table.add_column(heading.strip(), justify="right" if place > 2 else "left", no_wrap=place > 1)
    for line, row in zip(lines[2:], rows, strict=True):
        table.add_row(*(cell.strip() for cell in line), style={"head": "bold", "shortcut": "yellow"}.get(row["kind"]))
    caption = (
        f"The same images and splits for all. {SAME_MARK}: does not differ significantly from the best at 5 % (paired "
        "permutation test over groups, Holm-corrected for multiple comparisons). behind the best: 95 % interval of the "
        "difference in accuracy, not corrected."
    )
    return Group(table, Text(caption, style="dim"))
