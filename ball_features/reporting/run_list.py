"""The runs of a folder: what each is, found again by name, date, protocol, data and settings."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ball_features.config import FitConfig
from ball_features.config.paths import own_name
from ball_features.dataset import listing
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.curve import CurveRow
from ball_features.evaluation.rows import LadderRow
from ball_features.evaluation.run_details import read_details
from ball_features.evaluation.stored_results import read_curve, read_ladder, read_measurement

__all__ = [
    "Damaged",
    "RunList",
    "RunSummary",
    "changed",
    "differing",
    "list_runs",
    "natural_key",
    "read_summary",
    "shortened",
    "sort_runs",
]

_MARKS = ("run.json", "metrics.json", "splits.csv")  # files that only a run has
_DEEPEST = 4  # folders below the one that is listed
_SAME_NUMBERS = ("jobs", "protocol")  # settings that change no number, or have a column of their own
_OF_CACHE = ("backbone", "recipe", "precision")


@dataclass(frozen=True)
class RunSummary:
    """A run in a row.

    Attributes:
        name: path of its folder, relative to the folder that was listed.
        folder: folder of the run.
        created: date and time at which it was made, ISO 8601; "" where the run does not say.
        protocol: name of the protocol.
        data: name of the cache, or names of several.
        images: number of images in the cache.
        settings: setting -> its value in words, defaults included.
        model: model with the highest accuracy; shortcuts only where there is no other.
        accuracy: its accuracy; NaN where none was measured.
        low: lower end of its 95 % interval.
        high: upper end.
        note: the user's own note.
        content: digest of the cache's settings and images; "" where the run does not say.
    """

    name: str
    folder: Path
    created: str
    protocol: str
    data: str
    images: int
    settings: Mapping[str, str]
    model: str = ""
    accuracy: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    content: str = ""

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        values: dict[str, object] = {**asdict(self), "settings": dict(self.settings)}
        return values


@dataclass(frozen=True)
class Damaged:
    """A folder of a run that cannot be read: its name, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class RunList:
    """Runs of a folder, in natural order of their names, and those that cannot be read."""

    runs: list[RunSummary] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Key that sorts numbers in names by their value, and letters of either case together: try1, Try2, try10."""
    return listing.natural_key(name.casefold())


def list_runs(folder: Path | str) -> RunList:
    """Find the runs in a folder and in the folders below it.

    Args:
        folder: folder of the runs, or of one run.

    Raises:
        DataError: the folder is missing or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"No folder at {folder}, expected the folder of the runs, such as artifacts/runs.")
    runs, damaged = [], []
    unreadable: list[tuple[Path, str]] = []
    for path in _run_folders(folder, 0, unreadable):
        name = own_name(path) if path == folder else path.relative_to(folder).as_posix()
        try:
            runs.append(replace(read_summary(path), name=name))
        except DataError as error:
            damaged.append(Damaged(name, str(error)))
    damaged += [
        Damaged(path.relative_to(folder).as_posix(), f"The folder cannot be read ({reason}).")
        for path, reason in unreadable
    ]
    runs, damaged = sort_runs(runs), sorted(damaged, key=lambda own: natural_key(own.name))
    return RunList(_short_data(runs), damaged)


def _run_folders(folder: Path, depth: int, unreadable: list[tuple[Path, str]]) -> Iterator[Path]:
    """Folders of runs; those that cannot be read are added to a list, with the reason."""
    try:
        inside = sorted(folder.iterdir())
        holds_run = any((folder / mark).exists() for mark in _MARKS)
    except OSError as error:
        if depth == 0:
            raise DataError(f"{folder} cannot be read ({error.strerror}). Give another folder.") from error
        unreadable.append((folder, str(error.strerror)))
        return
    if holds_run:
        yield folder
        return
    for path in inside if depth < _DEEPEST else ():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from _run_folders(path, depth + 1, unreadable)


def read_summary(folder: Path) -> RunSummary:
    """Read what a run is and how good its best model is.

    Raises:
        DataError: the folder holds no run, or a damaged one.
    """
    try:
        details = read_details(folder, ("config", "cache", "images"))
        config, source = details["config"], details["cache"]
        protocol = str(config["protocol"])
        rungs = read_ladder(folder)
        summary = RunSummary(
            name=own_name(folder),
            folder=folder,
            created=str(details.get("created", "")),
            protocol="ladder" if rungs else str(details.get("protocol", protocol)),
            data=source if isinstance(source, str) else ", ".join(source),
            images=int(details["images"]),
            settings=_settings(config, details),
            note=str(details.get("note", "")),
            content=" ".join(str(details.get(name, "")) for name in ("cache_fingerprint", "images_sha256")).strip(),
        )
        curve = read_curve(folder)
        best = _best_of_ladder(rungs) if rungs else _best_of_curve(curve) if curve else _best(folder)
    except DataError:
        raise
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError) as error:
        words = f"{type(error).__name__}: {error}"
        raise DataError(f"{folder} holds no whole run ({words}). Run it again, or remove the folder.") from error
    model, accuracy, low, high = best
    return replace(summary, model=model, accuracy=accuracy, low=low, high=high)


def _best(folder: Path) -> tuple[str, float, float, float]:
    models = read_measurement(folder).models
    if not models:
        raise DataError(f"{folder} holds no whole run (no model was measured). Run it again, or remove the folder.")
    row = next((row for row in models if row.kind != "shortcut"), models[0])
    return (row.model, row.accuracy, *row.intervals.get("accuracy", (math.nan, math.nan)))


def _best_of_ladder(rungs: Sequence[LadderRow]) -> tuple[str, float, float, float]:
    """The best model on the strictest rung."""
    last = [row for row in rungs if row.rung == rungs[-1].rung]
    row = max(last, key=lambda own: (own.kind != "shortcut", own.accuracy))
    return row.model, row.accuracy, row.accuracy_low, row.accuracy_high


def _best_of_curve(curve: Sequence[CurveRow]) -> tuple[str, float, float, float]:
    """The best model on the largest training set."""
    row = max(curve, key=lambda own: (own.size, own.kind != "shortcut", own.accuracy))
    return row.model, row.accuracy, row.accuracy_low, row.accuracy_high


def _settings(config: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, str]:
    """Every setting in words; those that an older run lacks have their default."""
    values = _flat(FitConfig().to_dict()) | _flat(config)
    of_cache = details.get("cache_attributes") or {}
    values |= {name: of_cache[name] for name in _OF_CACHE if name in of_cache}
    return {name: _words(value) for name, value in values.items() if name not in _SAME_NUMBERS}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": own for inner, own in value.items()}
        else:
            found[name] = value
    return found


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "all"
    return f"{value:g}" if isinstance(value, float) else str(value)


def differing(runs: Sequence[RunSummary]) -> list[str]:
    """Names of the settings that are not the same in all runs, in the order of the settings."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if len({run.settings.get(name, "") for run in runs}) > 1]


def changed(run: RunSummary, names: Sequence[str]) -> str:
    """The settings of a run among these that are not the default, in words; "defaults" where there is none."""
    usual = _settings(FitConfig().to_dict(), {})
    own = {name: run.settings.get(name, "") for name in names}
    return (
        ", ".join(f"{name}={shortened(value)}" for name, value in own.items() if value != usual.get(name)) or "defaults"
    )


def shortened(text: str, most: int = 24) -> str:
    """A long text as its two ends with dots between."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"


_KEYS: dict[str, Callable[[RunSummary], Any]] = {
    "name": lambda run: natural_key(run.name),
    "date": lambda run: run.created,
    "protocol": lambda run: (run.protocol, natural_key(run.name)),
    "data": lambda run: (natural_key(run.data), natural_key(run.name)),
    "model": lambda run: (run.model, natural_key(run.name)),
    "accuracy": lambda run: -run.accuracy if run.accuracy == run.accuracy else math.inf,
    "note": lambda run: (run.note == "", natural_key(run.note)),
}


def sort_runs(runs: Sequence[RunSummary], by: str = "name") -> list[RunSummary]:
    """Sort runs by a column: name (natural order), date, protocol, data, model, accuracy (the best first) or note.

    Raises:
        ConfigError: there is no such column.
    """
    if by not in _KEYS:
        raise ConfigError(f"Got sort={by!r}, expected one of: {', '.join(_KEYS)}.", option="sort")
    return sorted(runs, key=_KEYS[by])


def _short_data(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Name caches by their file where no two caches of one name are among them; one has several paths."""
    caches = {(Path(run.data).name, run.content or run.data) for run in runs}
    names = Counter(name for name, _ in caches)
    paths = Counter(data for data, _ in {(run.data, run.content or run.data) for run in runs})

    def shown(run: RunSummary) -> str:
        if names[Path(run.data).name] == 1 and ", " not in run.data:
            return Path(run.data).name
        digest = hashlib.sha256(run.content.encode()).hexdigest()[:6]
        return run.data if paths[run.data] == 1 else f"{run.data} #{digest}"

    return [replace(run, data=shown(run)) for run in runs]
