"""`ball fit`: a cache and a configuration to a run directory, from which every number can be computed again."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.cache import Cache, choose_channels, read_cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import Grouping, Split, make_splits, merge_units, read_grouping
from ball_features.dataset.targets import require_folder
from ball_features.errors import CacheError, ConfigError, DataError
from ball_features.evaluation.fitting import Fitted
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.protocols import ModelResult, evaluate
from ball_features.evaluation.views import fixed_views, model_views
from ball_features.heads.registry import MODELS, ModelSpec, select
from ball_features.reporting.groups import LEAST_IMAGES, compat_rows, group_rows, render_compat, render_groups
from ball_features.reporting.measure import measure
from ball_features.reporting.page import write_report
from ball_features.reporting.provenance import command, provenance
from ball_features.reporting.strict_json import json_text
from ball_features.reporting.tables import SAME_MARK, interval_table, markdown, render

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "Run",
    "Saver",
    "check_name",
    "check_options",
    "complete_cache",
    "counted",
    "describe_cache",
    "fit",
    "place_folder",
    "prediction_rows",
    "read_run",
    "split_by",
    "split_rows",
    "store",
    "with_numbers",
    "write_csv",
    "write_json",
]

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

    @property
    def bundles(self) -> list[Path]:
        """Folders of the models that were saved for use on new images, by name."""
        return sorted(path.parent for path in self.folder.glob("models/*/bundle.json"))

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
    notes: Sequence[str] = (),
    progress: Callable[..., None] | None = None,
) -> Run:
    """Compare models on a cache under one protocol.

    Args:
        cache_path: Made by `extract`, complete.
        config: Protocol, models, head; the defaults if None.
        out_root: Folder of the runs.
        name: The run's folder in it; protocol and time if None. A name that is taken gets a number.
        compat_batch_metrics: Add the student report's own arithmetic as one more table.
        save: Models to hand to `saver`: a name, "all" (of those on embeddings), or "best": the first, or
            robust-views where it cannot be told from that.
        saver: Called with (folder of models, cache, configuration, fitted model, its name) for each of them;
            `ball_features.fit` brings its own.
        notes: To begin the run's notes with.
        progress: Called with (fits done, fits in all, model just done).

    Raises:
        CacheError: The cache is missing, incomplete or not finite.
        ConfigError: A model is unknown, or models are to be saved without a saver.
        DataError: The groups file does not fit.
        SplitError: The protocol cannot be carried out on these classes.
    """
    start = time.perf_counter()
    config = config or FitConfig()
    specs = select(config.models)
    check_name(name)
    cache = choose_channels(complete_cache(Path(cache_path)), config.channels, config.combine)
    specs, lacking = with_numbers(specs, cache, named=bool(config.models))
    check_options(config, specs, cache, save)
    grouping = read_grouping(config, cache.path, cache.label)
    splits, said = split_by(config, cache, grouping)
    if grouping is None and any(spec.groups and spec.kind != "head" for spec in specs):
        said = [
            *said,
            "Without --groups the robust models know no series to be trained against; `ball audit` infers them.",
        ]
    said = [*notes, *lacking, *said]
    saved = _require_savable(save, [spec.name for spec in specs if spec.kind != "shortcut"])
    if saved and saver is None:
        raise ConfigError(f"Got save={save!r} without a saver, expected one: call `ball_features.fit`, which has it.")
    kept = [spec.name for spec in specs if spec.kind == "head" or spec.name in saved]
    against = {} if grouping is None else {"group": grouping.series, "center": grouping.center}
    require_folder(out_root)
    results = evaluate(cache, specs, splits, config, keep=kept, progress=progress, **against)

    def more(folder: Path, rows: list[dict[str, Any]]) -> None:
        best = _best([row for row in rows if row["model"] in saved])
        for result in results:
            if saver is not None and result.fitted and result.spec.name in ([best] if save == "best" else saved):
                saver(folder / "models", cache, config, result.fitted[0], result.spec.name)

    return store(
        cache,
        results,
        splits,
        config,
        grouping=grouping,
        notes=said,
        source=str(cache_path),
        again=command("fit", str(cache_path), config, compat_batch_metrics=compat_batch_metrics, save=save),
        what=describe_cache(cache),
        start=start,
        out_root=out_root,
        name=name,
        compat_batch_metrics=compat_batch_metrics,
        page_cache=cache,
        more=more,
    )


def _best(rows: Sequence[dict[str, Any]]) -> str | None:
    """The first model, or robust-views where it cannot be told from the best: it is made for images of other series.

    Which of several equals comes first on these test images says nothing; choosing by it would be choosing on them.
    """
    equals = [row["model"] for row in rows if row["ties_best"] and MODELS[row["model"]].by_view]
    return next(iter([*equals, *(row["model"] for row in rows)]), None)


def check_options(config: FitConfig, specs: Sequence[ModelSpec], cache: Cache, save: str = "") -> None:
    """Refuse options that no chosen model would heed, or that lack what they work by.

    Raises:
        ConfigError: There is such an option.
    """
    head, names = config.head, ", ".join(spec.name for spec in specs)
    given = [
        item.name for item in dataclasses.fields(head) if getattr(head, item.name) != getattr(HeadConfig(), item.name)
    ]
    own = ["head_batch_size" if name == "batch_size" else name for name in given if name != "per_image"]
    shared = [*(["per_image"] if head.per_image else []), *(["center"] if config.center else [])]
    training = ["train_views"] if config.train_views != "auto" else []
    testing = ["tta"] if config.tta else ["test_views"] if config.test_views != "auto" else []
    heads, robust = [spec for spec in specs if spec.kind == "head"], [spec for spec in specs if spec.groups]
    seeing = [spec for spec in specs if spec.features == "embedding"]
    mixing = [spec for spec in seeing if not spec.by_view]  # the others train on each view that they test on
    for options, heeding, expected in (
        (own, heads, "mlp"),
        (shared, robust, "mlp or one of the robust models"),
        (training, mixing, "a model on embeddings other than robust-views"),
        (testing, seeing, "a model on embeddings"),
    ):
        if options and not heeding:
            shown = " and ".join(f"--{name.replace('_', '-')}" for name in options)
            raise ConfigError(
                f"Got {shown} with the models {names}, none of which heeds it. Name {expected} too, or leave it out."
            )
    for wanted, option in ((head.group_loss, f"the group loss {head.group_loss!r}"), (config.center, "--center")):
        if wanted and config.groups is None:
            raise ConfigError(f"Got {option} without groups, expected --groups FILE.csv, made by `ball audit`.")
    if config.tta and len(cache.view) == 1:
        raise ConfigError("Got --tta on a cache of one view, expected several. Extract with --views N.")
    if head.consistency and any(
        spec.kind == "head" and len(model_views(spec, cache, config).train) == 1 for spec in specs
    ):
        raise ConfigError(
            f"Got the consistency {head.consistency} with one view to train on, expected several. Name them: "
            "--train-views all."
        )
    saved = [spec.name for spec in robust if save in ("all", "best", spec.name)]
    if saved and shared:
        raise ConfigError(
            f"Got --save {save} with --{' and --'.join(name.replace('_', '-') for name in shared)}, which no bundle of "
            f"{', '.join(saved)} holds. Leave out one or the other."
        )


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
        compat_batch_metrics: Add the report's own arithmetic.
        page_cache: For the map in `report.html`; none without it.
        more: Called with (folder, rows of the table) to add files.
    """
    notes = notes + [
        f"{result.spec.name} failed and is not in the table: {result.failure}" for result in results if result.failure
    ]
    copies = merge_units(cache.sha256)
    units = copies if grouping is None else grouping.units(config.protocol, cache.sha256)
    rows, details = measure(cache, results, units)
    notes = [*notes, *_choice_note(details)]
    groups = group_rows(cache, results, copies if grouping is None else merge_units(cache.sha256, grouping.together))
    compat = compat_rows(cache, results) if compat_batch_metrics else []
    column = "" if grouping is None else grouping.column
    title, caption = _words(what, config, column, splits, cache.label)
    repeats = [split.repeat for split in splits]
    values = {"title": title, "caption": caption, "notes": notes}
    values |= provenance(cache, config, source=source, start=start, repeats=repeats, again=again)

    def write(folder: Path) -> None:
        write_json(folder / "run.json", values)
        write_json(folder / "metrics.json", details)
        write_csv(folder / "metrics.csv", _COLUMNS, ([row[key] for key in _COLUMNS] for row in rows))
        header = ("path", "label", "group", "repeat", "split", "fold")
        write_csv(
            folder / "splits.csv", header, split_rows(cache, splits, units if grouping is None else grouping.group)
        )
        classes = sorted(set(cache.label.tolist()))
        header = ("model", "repeat", "fold", "path", "label", "predicted", *(f"p_{key}" for key in classes))
        write_csv(folder / "predictions.csv", header, prediction_rows(cache, results, classes))
        header = ("model", "repeat", "epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "fold")
        write_csv(folder / "curves.csv", header, _curve_rows(results, header[3:7]))
        intervals = list(_interval_rows(details["models"]))
        write_csv(folder / "intervals.csv", ("model", "metric", "value", "low", "high"), intervals)
        text = markdown(rows, title, caption) + "\n" + interval_table(details["models"], details["units"])
        (folder / "table.md").write_text(text, encoding="utf-8")
        for table, values_of in (("groups.csv", groups), ("compat.csv", compat)):
            if values_of:
                write_csv(folder / table, list(values_of[0]), (row.values() for row in values_of))
        _save_heads(folder / "models", results, classes, cache)
        if more is not None:
            more(folder, rows)
        write_report(folder, cache=page_cache)

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = place_folder(Path(out_root), name or f"{config.protocol}-{stamp}", write)
    return Run(folder, rows, notes, title, caption, values, groups, compat)


def counted(number: int, what: str) -> str:
    """A number of things: "1 test set", "5 test sets"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def check_name(name: str | None) -> None:
    """Raise `ConfigError` for the name of a run that would lead elsewhere."""
    if name is not None and (not name or Path(name).name != name):
        raise ConfigError(f"Got the run name {name!r}, expected one without slashes; --out sets the folder.")


def with_numbers(specs: Sequence[ModelSpec], cache: Cache, *, named: bool) -> tuple[list[ModelSpec], list[str]]:
    """The models that a cache has numbers and views for, and a note on the others; all where they were named."""
    if not named:  # on drawn views, or one, it is robust-logistic over again
        specs = [spec for spec in specs if not spec.by_view or fixed_views(cache)]
    lacking = [
        spec for spec in specs if spec.features not in ("embedding", "none") and spec.features not in cache.shortcuts
    ]
    if named or not lacking:
        return list(specs), []
    names = ", ".join(spec.name for spec in lacking)
    note = f"The cache was made before there were {names} numbers; extract again with --overwrite to have that row."
    return [spec for spec in specs if spec not in lacking], [note]


def describe_cache(cache: Cache) -> str:
    """A cache for a title: images, views, network, channels."""
    views = f"{len(cache.view)} views" if len(cache.view) > 1 else "1 view"
    used = cache.attributes.get("channels_used")
    joint = " + " if cache.attributes.get("combine") == "concat" else " averaged with "
    channels = f", {joint.join(used)}" if used else ""
    return f"{len(cache.path)} images, {views}, {cache.attributes['backbone']}{channels}"


def split_by(config: FitConfig, cache: Cache, grouping: Grouping | None) -> tuple[list[Split], list[str]]:
    """`make_splits` of a cache, with what its groups file says."""
    group, together = (None, None) if grouping is None else (grouping.group, grouping.together)
    return make_splits(config, cache.path, cache.label, cache.sha256, group, together)


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


def complete_cache(path: Path) -> Cache:
    """Read a cache; raise `CacheError` where images are still missing in it."""
    cache = read_cache(path)
    if not cache.complete:
        raise CacheError(
            f"{path} is incomplete: {int(cache.committed.sum())} of {len(cache.path)} images are in it. "
            "Run the same `ball extract` again; it goes on from there."
        )
    return cache


def _words(what: str, config: FitConfig, column: str, splits: Sequence[Split], label: np.ndarray) -> tuple[str, str]:
    """Title and caption of a run."""
    tested = np.unique(np.concatenate([split.test for split in splits]))
    sizes = sorted({len(split.test) for split in splits})
    tests = " to ".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
    many = {"holdout": counted(config.repeats, "random hold-out"), "cv": f"{config.repeats} x {config.folds}-fold cv"}
    how = many.get(config.protocol, f"{config.protocol} by {column}")
    if config.protocol == "leave-group-out":
        whole, covers = "the groups left out do", f"their choice, of which there are {len(splits) // config.repeats}"
    else:
        whole = "groups of images do" if column else "images do, with their copies"
        covers = "the choice of images, not that of slides or patients"
    title = f"{how} · {what} · {tests} test images a split"
    few = [(str(name), int((label[tested] == name).sum())) for name in np.unique(label)]
    few = [f"{name} ({count})" for name, count in few if count < LEAST_IMAGES]
    caption = (
        f"Sorted by accuracy, pooled over {counted(len(splits), 'test set')}; {len(tested)} distinct images were "
        f"tested. The 95 % interval is Wilson's on as many independent images as would scatter as {whole}: it covers "
        f"{covers}. n/a: not defined. {SAME_MARK}: not distinguishable from the best (signs of whole groups turned, "
        "Holm, 5 %). Shortcuts see pixel numbers only, no network."
    )
    if few:
        caption += (
            f" Tested by fewer than {LEAST_IMAGES} images: {', '.join(few)}. Precision, recall and F1 are means over "
            "classes, so that these few images move them as much as all those of another class."
        )
    return title, caption


def _choice_note(details: dict[str, Any]) -> list[str]:
    """What the first line of the table is worth to who chooses by it."""
    best = details.get("best_of")
    if best is None or not math.isfinite(best["accuracy"]):
        return []
    return [
        f"The best of {best['models']} models, on images that did not choose it: {100 * best['accuracy']:.2f} % (95 % "
        f"{100 * best['low']:.1f} - {100 * best['high']:.1f}; bootstrap of the choice, Tsamardinos et al. 2018)."
    ]


def split_rows(cache: Cache, splits: Sequence[Split], group: np.ndarray) -> Iterable[Sequence[Any]]:
    """Rows of `splits.csv`: path, label, group, repeat, part, fold."""
    for split in splits:
        for part in ("train", "val", "test"):
            for row in getattr(split, part):
                yield cache.path[row], cache.label[row], group[row], split.repeat, part, split.fold


def prediction_rows(cache: Cache, results: Sequence[ModelResult], classes: list[str]) -> Iterable[Sequence[Any]]:
    """Rows of `predictions.csv`: model, repeat, fold, path, label, predicted, and the probability of each class."""
    for result in results:
        for item in result.fitted:
            predicted = item.probability.argmax(1)
            for place, row in enumerate(item.split.test):
                own = (result.spec.name, item.split.repeat, item.split.fold, cache.path[row], cache.label[row])
                yield *own, classes[predicted[place]], *item.probability[place].tolist()


def _interval_rows(models: Sequence[dict[str, Any]]) -> Iterable[Sequence[Any]]:
    for model in models:
        for name, own in model["intervals"].items():
            yield model["model"], name, model[name], own["low"], own["high"]


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
    from safetensors.numpy import save

    folder.mkdir()
    for result in results:
        for item in result.fitted:
            if item.estimator is None or not hasattr(item.estimator, "state_"):
                continue
            name = result.spec.name
            state = {key: np.ascontiguousarray(v) for key, v in item.estimator.state_.items()}
            (folder / f"{name}.safetensors").write_bytes(save(state))  # `save_file` lets only the owner read it
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
    partial = root / f".{name}.{os.getpid()}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
    except BaseException as error:  # an interrupt too leaves nothing that looks like a run
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
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
    path.write_text(json_text(values) + "\n", encoding="utf-8")
