"""`ball fit`: a cache and a configuration to a run directory, from which every number can be computed again."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features import __version__
from ball_features.cache import Cache, read_cache
from ball_features.config import FitConfig
from ball_features.dataset.splits import Split, make_splits, merge_units, read_groups
from ball_features.errors import CacheError, ConfigError, DataError
from ball_features.evaluation.metrics import METRICS, evaluate_predictions
from ball_features.evaluation.protocols import Fitted, ModelResult, evaluate
from ball_features.evaluation.uncertainty import holm, paired_bootstrap, wilson
from ball_features.heads.registry import select
from ball_features.reporting.groups import compat_rows, group_rows, render_compat, render_groups
from ball_features.reporting.page import write_report
from ball_features.reporting.tables import SAME_MARK, markdown, render

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Run", "complete_cache", "fit", "place_folder", "read_run", "write_csv", "write_json"]

Saver = Callable[[Path, Cache, FitConfig, Fitted, str], None]
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
        compat: A row a model in the report's arithmetic, where that was asked for.
    """

    folder: Path
    metrics: list[dict[str, Any]]
    notes: list[str]
    title: str
    caption: str
    details: dict[str, Any]
    groups: list[dict[str, Any]] = field(default_factory=list)
    compat: list[dict[str, Any]] = field(default_factory=list)

    def more_tables(self) -> list[RenderableType]:
        """What else there is to show: recall by group, the report's arithmetic."""
        tables = render_groups(self.groups, [row["model"] for row in self.metrics])
        return [*tables, render_compat(self.compat)] if self.compat else tables

    def table(self, width: int = 120) -> RenderableType:
        """The comparison table, for a terminal of this many characters."""
        return render(self.metrics, self.title, self.caption, width)


def fit(
    cache_path: Path | str,
    config: FitConfig | None = None,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    compat_batch_metrics: bool = False,
    save: str = "",
    saver: Saver | None = None,
    progress: Callable[..., None] | None = None,
) -> Run:
    """Compare models on a cache under one protocol.

    Args:
        cache_path: Made by `extract`, complete.
        config: Protocol, models, head; the defaults if None.
        out_root: Folder of the runs.
        name: The run's folder in it; protocol and time if None. A name that is taken gets a number.
        compat_batch_metrics: Add the student report's own arithmetic as one more table.
        save: Models to hand to `saver`: a name, "best" (of those on embeddings) or "all".
        saver: Called with (folder of models, cache, configuration, fitted model, its name) for each of them.
        progress: Called with (fits done, fits in all, model just done).

    Raises:
        CacheError: The cache is missing, incomplete or not finite.
        ConfigError: A model is unknown.
        DataError: The groups file does not fit.
        SplitError: The protocol cannot be carried out on these classes.
    """
    start = time.perf_counter()
    config = config or FitConfig()
    specs = select(config.models)
    if name is not None and (not name or Path(name).name != name):
        raise ConfigError(f"Got the run name {name!r}, expected one without slashes; --out sets the folder.")
    cache = complete_cache(Path(cache_path))
    group = None if config.groups is None else read_groups(config.groups, config.group_column, cache.path.tolist())
    splits, notes = make_splits(config, cache.path, cache.label, cache.sha256, group)
    if config.tta and len(cache.view) == 1:
        raise ConfigError("Got --tta on a cache of one view, expected several. Extract with --views N.")
    saved = _require_savable(save, [spec.name for spec in specs if spec.kind != "shortcut"])
    kept = [spec.name for spec in specs if spec.kind == "head" or spec.name in saved]
    results = evaluate(cache, specs, splits, config, group=_series(config, cache), keep=kept, progress=progress)
    notes += [
        f"{result.spec.name} failed and is not in the table: {result.failure}" for result in results if result.failure
    ]
    units = merge_units(cache.sha256) if group is None else merge_units(cache.sha256, group)
    rows, details = _metrics(cache, results, units)
    groups = group_rows(cache, results)
    compat = compat_rows(cache, results) if compat_batch_metrics else []
    title, caption = _words(cache, config, splits, rows)
    values = {
        "title": title,
        "caption": caption,
        "notes": notes,
        "config": config.to_dict(),
        "config_fingerprint": config.fingerprint(),
        "cache": str(cache_path),
        "cache_fingerprint": cache.attributes["fingerprint"],
        "cache_attributes": cache.attributes,
        "images": len(cache.path),
        "classes": sorted(set(cache.label.tolist())),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ball_version": __version__,
        "python": platform.python_version(),
        "versions": {key: metadata.version(key) for key in ("numpy", "scikit-learn", "torch", "xgboost")},
        "seeds": {"seed": config.seed, "repeats": sorted({split.repeat for split in splits})},
        "fit_s": time.perf_counter() - start,
    }

    def write(folder: Path) -> None:
        write_json(folder / "run.json", values)
        write_json(folder / "metrics.json", details)
        write_csv(folder / "metrics.csv", _COLUMNS, ([row[key] for key in _COLUMNS] for row in rows))
        header = ("path", "label", "group", "repeat", "split", "fold")
        write_csv(folder / "splits.csv", header, _split_rows(cache, splits, units if group is None else group))
        classes = sorted(set(cache.label.tolist()))
        header = ("model", "repeat", "fold", "path", "label", "predicted", *(f"p_{key}" for key in classes))
        write_csv(folder / "predictions.csv", header, _prediction_rows(cache, results, classes))
        header = ("model", "repeat", "epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "fold")
        write_csv(folder / "curves.csv", header, _curve_rows(results, header[3:7]))
        (folder / "table.md").write_text(markdown(rows, title, caption), encoding="utf-8")
        for table, values_of in (("groups.csv", groups), ("compat.csv", compat)):
            if values_of:
                write_csv(folder / table, list(values_of[0]), (row.values() for row in values_of))
        _save_heads(folder / "models", results, classes, cache)
        write_report(folder, cache=cache)
        best = next((row["model"] for row in rows if row["model"] in saved), None)
        for result in results:
            if saver is not None and result.fitted and result.spec.name in ([best] if save == "best" else saved):
                saver(folder / "models", cache, config, result.fitted[0], result.spec.name)

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = place_folder(Path(out_root), name or f"{config.protocol}-{stamp}", write)
    return Run(folder, rows, notes, title, caption, values, groups, compat)


def _series(config: FitConfig, cache: Cache) -> np.ndarray | None:
    """What robust models are trained against: the file's series where it names them, else the column in use."""
    if config.groups is None:
        return None
    try:
        return read_groups(config.groups, "series", cache.path.tolist())
    except DataError:
        return read_groups(config.groups, config.group_column, cache.path.tolist())


def _require_savable(save: str, names: Sequence[str]) -> Sequence[str]:
    """Names of the models to keep; raises `ConfigError` for one that cannot be saved."""
    if not save:
        return ()
    if save in ("best", "all"):
        return names
    if save not in names:
        raise ConfigError(
            f"Got --save {save}, expected best, all, or one of: {', '.join(names)}. Shortcuts see no network and "
            "are not meant for use."
        )
    return (save,)


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
    return Run(folder, rows, details["notes"], details["title"], details["caption"], details)


def complete_cache(path: Path) -> Cache:
    """Read a cache; raise `CacheError` where images are still missing in it."""
    cache = read_cache(path)
    if not cache.complete:
        raise CacheError(
            f"{path} is incomplete: {int(cache.committed.sum())} of {len(cache.path)} images are in it. "
            "Run the same `ball extract` again; it goes on from there."
        )
    return cache


def _metrics(cache: Cache, results: Sequence[ModelResult], units: np.ndarray) -> tuple[list[dict[str, Any]], Any]:
    """Rows of the table, sorted, and everything for `metrics.json`."""
    classes, codes = np.unique(cache.label, return_inverse=True)
    rows, details = [], []
    hits: dict[str, np.ndarray] = {}
    tested = np.zeros(len(codes), dtype=bool)
    for result in results:
        if not result.fitted:
            continue
        where = np.concatenate([item.split.test for item in result.fitted])
        truth, probability = codes[where], np.concatenate([item.probability for item in result.fitted])
        numbers = evaluate_predictions(truth, probability)
        tested[where] = True
        # Repeats test an image several times; it is still one image, and its copies are no news either.
        low, high = wilson(numbers["accuracy"], len(np.unique(units[where])))
        each, counts = numbers.pop("per_class"), numbers.pop("confusion")
        row = {"model": result.spec.name, "kind": result.spec.kind, **numbers}
        row |= {"accuracy_low": low, "accuracy_high": high}
        row |= {key: float(np.mean([getattr(item, key) for item in result.fitted])) for key in ("fit_s", "predict_s")}
        rows.append(row)
        share = np.bincount(where, probability.argmax(1) == truth, minlength=len(codes))
        hits[result.spec.name] = share / np.maximum(np.bincount(where, minlength=len(codes)), 1)
        by_repeat: dict[int, list[bool]] = {}
        for item in result.fitted:
            right = item.probability.argmax(1) == codes[item.split.test]
            by_repeat.setdefault(item.split.repeat, []).extend(right.tolist())
        details.append(
            row
            | {
                "per_class": {
                    str(name): {key: value[code] for key, value in each.items()} for code, name in enumerate(classes)
                },
                "confusion": counts.tolist(),
                "accuracy_by_repeat": {str(key): float(np.mean(value)) for key, value in by_repeat.items()},
                "best_epochs": [item.best_epoch for item in result.fitted if item.best_epoch >= 0],
            }
        )
    order = sorted(range(len(rows)), key=lambda place: (-rows[place]["accuracy"], rows[place]["log_loss"]))
    rows, details = [rows[place] for place in order], [details[place] for place in order]
    if rows:
        best = hits[rows[0]["model"]][tested]
        compared = [paired_bootstrap(best - hits[row["model"]][tested], units[tested]) for row in rows[1:]]
        adjusted = [1.0, *holm([p for _, _, p in compared]).tolist()]
        for row, detail, p in zip(rows, details, adjusted, strict=True):
            row["ties_best"] = detail["ties_best"] = p > 0.05
            detail["p_against_best"] = p
        for detail, (low, high, _) in zip(details[1:], compared, strict=True):
            detail["behind_best"] = {"low": low, "high": high}
    return rows, {"classes": [str(name) for name in classes], "models": details}


def _words(cache: Cache, config: FitConfig, splits: Sequence[Split], rows: Sequence[dict[str, Any]]) -> tuple[str, str]:
    distinct = len(np.unique(np.concatenate([split.test for split in splits])))
    tests = int(np.mean([len(split.test) for split in splits]))
    views = f"{len(cache.view)} views" if len(cache.view) > 1 else "1 view"
    many = {"holdout": f"{config.repeats} random hold-outs", "cv": f"{config.repeats} x {config.folds}-fold cv"}
    what = many.get(config.protocol, f"{config.protocol} by {config.group_column}")
    title = f"{what} · {len(cache.path)} images, {views}, {cache.attributes['backbone']} · {tests} test images a split"
    caption = (
        f"Sorted by accuracy, pooled over {len(splits)} test sets; {distinct} distinct images were tested, and the "
        "95 % Wilson interval counts each (with its copies or group) once: it covers the choice of images, not the "
        "choice of slides or patients. n/a: not defined. "
        f"{SAME_MARK}: not distinguishable from the best (paired bootstrap by unit, Holm, 5 %). "
        "Shortcuts see pixel numbers only, no network."
    )
    return title, caption


def _split_rows(cache: Cache, splits: Sequence[Split], group: np.ndarray) -> Iterable[Sequence[Any]]:
    for split in splits:
        for part in ("train", "val", "test"):
            for row in getattr(split, part):
                yield cache.path[row], cache.label[row], group[row], split.repeat, part, split.fold


def _prediction_rows(cache: Cache, results: Sequence[ModelResult], classes: list[str]) -> Iterable[Sequence[Any]]:
    for result in results:
        for item in result.fitted:
            predicted = item.probability.argmax(1)
            for place, row in enumerate(item.split.test):
                own = (result.spec.name, item.split.repeat, item.split.fold, cache.path[row], cache.label[row])
                yield *own, classes[predicted[place]], *item.probability[place].tolist()


def _curve_rows(results: Sequence[ModelResult], names: Sequence[str]) -> Iterable[Sequence[Any]]:
    for result in results:
        for item in result.fitted:
            if not item.curves:
                continue
            for epoch in range(len(item.curves[names[0]])):
                values = (float(item.curves[name][epoch]) for name in names)
                yield result.spec.name, item.split.repeat, epoch + 1, *values, item.split.fold


def _save_heads(folder: Path, results: Sequence[ModelResult], classes: list[str], cache: Cache) -> None:
    """The heads of the first split: weights as safetensors, and what they need beside them as JSON."""
    from safetensors.numpy import save_file

    folder.mkdir()
    for result in results:
        for item in result.fitted:
            if item.estimator is None or not hasattr(item.estimator, "state_"):
                continue
            name = result.spec.name
            save_file(
                {key: np.ascontiguousarray(v) for key, v in item.estimator.state_.items()},
                folder / f"{name}.safetensors",
            )
            facts = {
                "model": name,
                "repeat": item.split.repeat,
                "fold": item.split.fold,
                "classes": [classes[code] for code in item.estimator.classes_],
                "parameters": item.estimator.get_params(),
                "best_epoch": item.best_epoch + 1,
                "cache_fingerprint": cache.attributes["fingerprint"],
            }
            write_json(folder / f"{name}.json", facts)


def place_folder(root: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Write a folder whole, then give it a name that is free."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = root / f".{name}.{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
    except OSError as error:
        raise DataError(f"The run cannot be written to {root} ({error.strerror}). Give another --out.") from error
    for number in range(1, 10_000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            partial.rename(folder)
            return folder
    raise DataError(f"{root} holds 10,000 runs called {name}. Give another --name.")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table with full precision."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON; what is not a number becomes null."""
    path.write_text(json.dumps(_plain(values), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Values that JSON knows; NaN becomes null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
