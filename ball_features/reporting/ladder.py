"""The optimism ladder: the same models under ever stricter protocols, and what each loses on the way down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.cache import Cache, choose_channels
from ball_features.config import FitConfig
from ball_features.dataset.splits import make_splits, merge_units, read_grouping
from ball_features.dataset.targets import require_folder
from ball_features.errors import ConfigError, DataError, SplitError
from ball_features.evaluation.protocols import ModelResult, evaluate
from ball_features.evaluation.uncertainty import share_interval
from ball_features.heads.registry import select
from ball_features.reporting.groups import group_rows, over_groups
from ball_features.reporting.joint import write_ladder_report
from ball_features.reporting.run import (
    check_options,
    complete_cache,
    place_folder,
    split_by,
    with_numbers,
    write_csv,
    write_json,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["RUNGS", "ladder", "render_ladder"]

# Rung -> (protocol, column of the groups file that stays together, or "" for copies only, None for nothing).
RUNGS: dict[str, tuple[str, str | None]] = {
    "random": ("holdout", None),
    "copies together": ("holdout", ""),
    "groups": ("group-cv", "group"),
    "blocks": ("block-cv", "block"),
    "series left out": ("leave-group-out", "series"),
}


def ladder(
    cache_path: Path | str,
    config: FitConfig,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str = "ladder",
    progress: Callable[..., None] | None = None,
) -> tuple[Path, list[dict[str, Any]], list[str]]:
    """Climb down.

    Args:
        cache_path: Made by `extract`, complete.
        config: Models, repeats of the hold-outs, seed, head; `groups` is a file made by `ball audit`.
        out_root: Folder of the runs.
        name: The run's folder in it.
        progress: Called with (fits done, fits in all, model just done), from the start on each rung.

    Returns:
        The run's folder; a row a model and rung with `accuracy`, its 95 % interval by the scatter of what the
        rung keeps together, `mean_recall` and `worst_recall` over the groups left out; and notes.

    Raises:
        ConfigError: No groups file is named.
        BallError: As `reporting.run.fit`.
    """
    if config.groups is None:
        raise ConfigError("The ladder needs groups, got none. Make them: ball audit IMAGES --out groups.csv")
    if config.group_column not in ("auto", "series"):
        raise ConfigError(
            f"Got the group column {config.group_column!r} for a ladder, whose rungs are by group, block and series. "
            f"Use --protocol leave-group-out --group-column {config.group_column}."
        )
    cache = choose_channels(complete_cache(Path(cache_path)), config.channels, config.combine)
    specs, notes = with_numbers(select(config.models), cache, named=bool(config.models))
    check_options(config, specs, cache)
    require_folder(out_root)
    rows: list[dict[str, Any]] = []
    for rung, (protocol, column) in RUNGS.items():
        own = replace(config, protocol=protocol, repeats=config.repeats if protocol == "holdout" else 1)
        grouping = read_grouping(replace(own, group_column=column or "auto"), cache.path, cache.label)
        assert grouping is not None
        try:
            if column:
                splits, said = split_by(own, cache, grouping)
                units = grouping.units(protocol, cache.sha256)
            else:
                alone = cache.path if column is None else cache.sha256
                splits, said = make_splits(own, cache.path, cache.label, alone)
                units = merge_units(alone)
        except SplitError as error:
            notes.append(f"{rung}: {error}")
            continue
        if column:
            notes += [f"{rung}: {note}" for note in said]
        for result in evaluate(
            cache, specs, splits, own, group=grouping.series, center=grouping.center, progress=progress
        ):
            if result.fitted:
                rows.append({"rung": rung} | _row(cache, result, units))

    if not rows:
        raise DataError("No model could be fitted on any rung, expected at least one. Try others with --models.")

    def write(folder: Path) -> None:
        write_csv(folder / "ladder.csv", list(rows[0]), ([row[key] for key in rows[0]] for row in rows))
        write_json(folder / "run.json", {"config": config.to_dict(), "cache": str(cache_path), "notes": notes})
        write_ladder_report(folder)

    return place_folder(Path(out_root), name, write), rows, notes


def _row(cache: Cache, result: ModelResult, units: np.ndarray) -> dict[str, Any]:
    codes = np.unique(cache.label, return_inverse=True)[1]
    where = np.concatenate([item.split.test for item in result.fitted])
    hit = np.concatenate([item.probability.argmax(1) == codes[item.split.test] for item in result.fitted]).astype(float)
    low, high = share_interval(hit, units[where], images=len(np.unique(where)))
    row: dict[str, Any] = {"model": result.spec.name, "kind": result.spec.kind, "accuracy": float(hit.mean())}
    row |= {"accuracy_low": low, "accuracy_high": high, "mean_recall": None, "worst_recall": None}
    groups = over_groups(group_rows(cache, [result], units), result.spec.name)
    if groups:
        recalls = [item["recall"] for item in groups]
        row |= {"mean_recall": float(np.mean(recalls)), "worst_recall": min(recalls)}
    return row


def render_ladder(rows: list[dict[str, Any]]) -> RenderableType:
    """Models as rows, rungs as columns, accuracy with its interval, and the drop from first to last."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Optimism ladder: accuracy in %", title_justify="left")
    for place, heading in enumerate(["model", "kind", *RUNGS, "worst series", "drop"]):
        table.add_column(heading, justify="left" if place < 2 else "right")
    by_model: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], {})[row["rung"]] = row
    last = list(RUNGS)[-1]
    for name, own in sorted(by_model.items(), key=lambda item: -item[1].get(last, {"accuracy": 0})["accuracy"]):
        cells = []
        for rung in RUNGS:
            row = own.get(rung)
            interval = f"{100 * row['accuracy_low']:.0f}-{100 * row['accuracy_high']:.0f}" if row else ""
            cells.append(f"{100 * row['accuracy']:.1f}\n{interval}" if row else "n/a")
        kind = next(iter(own.values()))["kind"]
        ends = [own.get(rung) for rung in ("random", last)]
        drop = f"{100 * (ends[0]['accuracy'] - ends[1]['accuracy']):.1f}" if ends[0] and ends[1] else "n/a"
        worst = f"{100 * own[last]['worst_recall']:.1f}" if last in own else "n/a"
        style = {"head": "bold", "shortcut": "yellow"}.get(kind)
        table.add_row(name, kind, *cells, worst, drop, style=style)
    caption = (
        "Below each figure its 95 % interval, by the scatter of what a rung keeps together. Series are inferred from "
        "class and overlay: likely, not known. Sorted by the last rung."
    )
    return Group(table, Text(caption, style="dim"))
