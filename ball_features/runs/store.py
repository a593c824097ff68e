"""A run: its predictions measured, its folder written and read back."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.cache import Cache
from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import Split
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError
from ball_features.evaluation.measure import measure
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.protocols import ModelResult
from ball_features.files import place_folder, write_csv, write_json
from ball_features.reporting.groups import compat_rows, group_rows, render_compat, render_groups
from ball_features.reporting.page import write_report
from ball_features.reporting.provenance import provenance
from ball_features.reporting.tables import interval_table, markdown, render
from ball_features.reporting.words import choice_note, failed, require_fitted, title_and_caption
from ball_features.runs.contents import curve_rows, interval_rows, prediction_rows, save_heads, split_rows

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Run", "read_run", "store"]

_COLUMNS = ("model", "kind", "accuracy", "accuracy_low", "accuracy_high", *METRICS[1:], "fit_s", "predict_s")


@dataclass(frozen=True)
class Run:
    """A finished comparison.

    Attributes:
        folder: Where it lies.
        metrics: A row a model, sorted by accuracy: the columns of `metrics.csv` and `ties_best`.
        notes: What a reader should know.
        title: The protocol in a line.
        caption: What interval and marks mean.
        details: `run.json`.
        groups: A row a model and group left out, empty under other protocols.
        compat: A row a model in the student report's arithmetic, where that was asked for.
    """

    folder: Path
    metrics: list[dict[str, Any]]
    notes: list[str]
    title: str
    caption: str
    details: dict[str, Any]
    groups: list[dict[str, Any]] = field(default_factory=list)
    compat: list[dict[str, Any]] = field(default_factory=list)

    @property
    def bundles(self) -> list[Path]:
        """Folders of the models that were saved for use on new images, by name."""
        return sorted(path.parent for path in self.folder.glob("models/*/bundle.json"))

    def more_tables(self) -> list[RenderableType]:
        """What else there is to show: recall by group, the student report's arithmetic."""
        tables = render_groups(self.groups, [row["model"] for row in self.metrics])
        return [*tables, render_compat(self.compat)] if self.compat else tables

    def table(self, width: int = 120) -> RenderableType:
        """The comparison table, for a terminal of this many characters."""
        return render(self.metrics, self.title, self.caption, width)


def store(
    cache: Cache,
    results: Sequence[ModelResult],
    splits: Sequence[Split],
    config: FitConfig,
    *,
    grouping: Grouping | None,
    notes: list[str],
    source: Any,
    again: str,
    what: str,
    start: float,
    out_root: Path | str,
    name: str | None,
    compat_batch_metrics: bool = False,
    page_cache: Cache | None = None,
    more: Callable[[Path, list[dict[str, Any]]], None] | None = None,
) -> Run:
    """Measure predictions and write the run's folder.

    Args:
        cache: The images, their labels and provenance.
        results: A result a model.
        splits: That they were made on.
        config: As stored.
        grouping: From the groups file, or None.
        notes: For the reader; failures are added.
        source: Of the embeddings, for `run.json`.
        again: The command that makes the run again, likewise.
        what: The same for the title.
        start: `time.perf_counter()` when it all began.
        out_root: Folder of the runs.
        name: Of this one; protocol and time if None.
        compat_batch_metrics: Add the student report's own arithmetic.
        page_cache: For the map in `report.html`; none without it.
        more: Called with (folder, rows of the table) to add files.

    Raises:
        DataError: No model could be fitted, or the folder cannot be written.
    """
    require_fitted(results)
    notes = notes + [
        f"{result.spec.name} failed and is not in the table: {result.failure}" for result in results if result.failure
    ]
    copies = merge_units(cache.sha256)
    units = copies if grouping is None else grouping.units(config.protocol, cache.sha256)
    rows, details = measure(cache, results, units)
    notes = [*notes, *choice_note(details)]
    groups = group_rows(cache, results, copies if grouping is None else merge_units(cache.sha256, grouping.together))
    compat = compat_rows(cache, results) if compat_batch_metrics else []
    column = "" if grouping is None else grouping.column
    title, caption = title_and_caption(what, config, column, splits, cache.label)
    repeats = [split.repeat for split in splits]
    values = {"title": title, "caption": caption, "notes": notes, "failures": failed(results)}
    sha256 = None if grouping is None else grouping.sha256
    values |= provenance(cache, config, source=source, start=start, repeats=repeats, again=again, groups_sha256=sha256)

    def write(folder: Path) -> None:
        write_json(folder / "run.json", values)
        write_json(folder / "metrics.json", details)
        write_csv(folder / "metrics.csv", _COLUMNS, ([row[key] for key in _COLUMNS] for row in rows))
        header = ("path", "label", "group", "repeat", "split", "fold", "unit")
        group = units if grouping is None else grouping.group
        write_csv(folder / "splits.csv", header, split_rows(cache, splits, group, units))
        classes = sorted(set(cache.label.tolist()))
        header = ("model", "repeat", "fold", "path", "label", "predicted", *(f"p_{key}" for key in classes))
        write_csv(folder / "predictions.csv", header, prediction_rows(cache, results, classes))
        header = ("model", "repeat", "epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "fold")
        write_csv(folder / "curves.csv", header, curve_rows(results, header[3:7]))
        intervals = list(interval_rows(details["models"]))
        write_csv(folder / "intervals.csv", ("model", "metric", "value", "low", "high"), intervals)
        text = markdown(rows, title, caption) + "\n" + interval_table(details["models"], details["units"])
        (folder / "table.md").write_text(text, encoding="utf-8")
        for table, values_of in (("groups.csv", groups), ("compat.csv", compat)):
            if values_of:
                write_csv(folder / table, list(values_of[0]), (row.values() for row in values_of))
        save_heads(folder / "models", results, classes, cache)
        if more is not None:
            more(folder, rows)
        write_report(folder, cache=page_cache)

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = place_folder(Path(out_root), name or f"{config.protocol}-{stamp}", write)
    return Run(folder, rows, notes, title, caption, values, groups, compat)


def read_run(folder: Path | str) -> Run:
    """Read a run back.

    Raises:
        DataError: The folder holds no run.
    """
    folder = Path(folder)
    try:
        details = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        models = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["models"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no run ({error}). Expected a folder written by `ball fit`.") from error
    rows = [{key: math.nan if row[key] is None else row[key] for key in (*_COLUMNS, "ties_best")} for row in models]
    groups, compat = (_read_rows(folder / f"{table}.csv") for table in ("groups", "compat"))
    return Run(folder, rows, details["notes"], details["title"], details["caption"], details, groups, compat)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """A table of `store` as it was before it was written; none where there is no such file."""
    if not path.exists():
        return []

    def value(name: str, text: str) -> Any:
        if name in ("model", "group", "taken_for"):
            return text
        if text == "":
            return None
        return int(text) if name == "images" else float(text)

    with path.open(newline="", encoding="utf-8") as file:
        return [{name: value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
