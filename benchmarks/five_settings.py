"""Every model of the product on five settings, for docs/shift.md: makes the runs from caches, then the tables.

    python benchmarks/five_settings.py run CACHES --data DATA --out RUNS [--models robust ...]
    python benchmarks/five_settings.py table RUNS [RUNS ...] > benchmarks/left_out.md

CACHES holds all.h5, hospitals.h5, malaria.h5 and augmented.h5, each made by `ball extract --recipe robust`, and
all_groups.csv, made by `ball audit` on the images of all.h5. DATA holds hospitals/sites.csv, malaria/patients.csv and
augmented/photographs.csv. A run holds the models that no earlier run of its setting holds, and the tables read all runs
of a setting together, which have the same test sets. Every figure is of images that no model was fitted on,
and what a model chooses (recipe, strength, epoch, adaptation) it chooses on training groups.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from left_out import figures, interval

from ball_features import fit
from ball_features.config import FitConfig
from ball_features.models.registry import MODELS

REFERENCE = "logistic"


@dataclass(frozen=True)
class Setting:
    """One protocol on one collection.

    Attributes:
        name: folder of its run.
        title: heading of its column.
        cache: name of the cache.
        groups: file with the columns, relative to the data; all_groups.csv is beside the cache.
        columns: column of the run's own groups file -> column that it is copied from.
        protocol: protocol.
        column: `group_column`, or "" for the protocol's own.
        adapt: `adapt`.
    """

    name: str
    title: str
    cache: str
    groups: str
    columns: dict[str, str]
    protocol: str
    column: str = ""
    adapt: str = "none"


_ALL = "all_groups.csv"
_SITES, _PATIENTS = "hospitals/sites.csv", "malaria/patients.csv"
SETTINGS = (
    Setting("random", "ALL, random", "all", _ALL, {"group": "path", "series": "series"}, "holdout"),
    Setting("blocks", "ALL, blocks", "all", _ALL, dict.fromkeys(("group", "series", "block"), ""), "block-cv"),
    Setting("series", "ALL, series (A)", "all", _ALL, dict.fromkeys(("group", "series"), ""), "leave-group-out"),
    Setting("sites-A", "sites (A)", "hospitals", _SITES, {"site": "site"}, "leave-site-out"),
    Setting("sites-B", "sites (B)", "hospitals", _SITES, {"site": "site"}, "leave-site-out", adapt="auto"),
    Setting("patients-A", "patients (A)", "malaria", _PATIENTS, {"patient": "patient"}, "group-cv", "patient"),
    Setting(
        "patients-B",
        "patients (B)",
        "malaria",
        _PATIENTS,
        {"patient": "patient", "site": "patient"},
        "group-cv",
        "patient",
        "auto",
    ),
    Setting(
        "photographs",
        "photographs (A)",
        "augmented",
        "augmented/photographs.csv",
        {"photograph": "photograph"},
        "group-cv",
        "photograph",
    ),
)


def make(setting: Setting, caches: Path, data: Path, out: Path, models: tuple[str, ...]) -> None:
    """Make one run of the models that no run of the setting holds yet."""
    earlier = [model for run in runs_of(out, setting) for model in ends(run)]
    models = tuple(model for model in models or tuple(MODELS) if model not in earlier)
    if not models:
        return
    cache = caches / f"{setting.cache}.h5"
    source = caches / _ALL if setting.groups == _ALL else data / setting.groups
    out.mkdir(parents=True, exist_ok=True)
    columns = out / f"{setting.name}.csv"
    with source.open(newline="", encoding="utf-8") as file, columns.open("w", newline="", encoding="utf-8") as new:
        writer = csv.writer(new)
        writer.writerow(["path", *setting.columns])
        for row in csv.DictReader(file):
            writer.writerow([row["path"], *(row[kept or name] for name, kept in setting.columns.items())])
    config = FitConfig(
        protocol=setting.protocol,
        models=models,
        groups=str(columns),
        adapt=setting.adapt,
        repeats=5 if setting.protocol == "holdout" else 1,
        **({"group_column": setting.column} if setting.column else {}),
    )
    number = len(runs_of(out, setting)) + 1
    fit(cache, config, out_root=out, name=setting.name if number == 1 else f"{setting.name}-{number}")
    print(f"{setting.name}: done", flush=True)


def runs_of(root: Path, setting: Setting) -> list[Path]:
    """Finished runs of a setting, the earliest first."""
    found = [root / setting.name, *sorted(root.glob(f"{setting.name}-[0-9]"))]
    return [run for run in found if (run / "run.json").is_file()]


def ends(run: Path) -> dict[str, tuple[float, float]]:
    """95 % interval of the accuracy of each model, in %, as the run states it: by group where it has any."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return {
            row["model"]: (100 * float(row["accuracy_low"]), 100 * float(row["accuracy_high"]))
            for row in csv.DictReader(file)
        }


def sets_of(run: Path, protocol: str) -> dict[str, np.ndarray]:
    """Accuracy and balanced recall of each test set of 20 images and more, float (test sets, 2), by model."""
    found = figures(run)
    if not protocol.startswith("leave-"):
        return found
    with (run / "groups.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["images"]) >= 20]
    return {
        model: np.array([[float(r["recall"]), float(r["balanced_recall"])] for r in rows if r["model"] == model])
        for model in found
    }


def print_tables(root: Path) -> None:
    """Print the tables of one network."""
    runs = {own.title: (runs_of(root, own), own.protocol) for own in SETTINGS if runs_of(root, own)}
    found = {
        title: {name: values for run in own for name, values in sets_of(run, protocol).items()}
        for title, (own, protocol) in runs.items()
    }
    names = [name for name in MODELS if any(name in own for own in found.values())]
    print(f"## {root.name}\n\nAccuracy / balanced recall, in %, mean over test sets:\n")
    print(f"| model | {' | '.join(found)} |\n| --- |{' ---: |' * len(found)}")
    for name in names:
        cells = []
        for own in found.values():
            values = 100 * own[name].mean(0) if name in own else None
            cells.append("" if values is None else f"{values[0]:.1f} / {values[1]:.1f}")
        print(f"| {name} | {' | '.join(cells)} |")
    print(
        "\nAccuracy with its 95 % interval (groups left out: Student's over them; others: the run's own, by patient or "
        f"group), the worst test set, and the lead over {REFERENCE} on the same test sets with its interval:\n"
    )
    print("| setting | model | accuracy | 95 % | worst | lead |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for title, own in found.items():
        paths, protocol = runs[title]
        stated = {name: both for run in paths for name, both in ends(run).items()}
        for name in names:
            if name not in own:
                continue
            hits = own[name][:, 0]
            middle = interval(hits)
            if protocol.startswith("leave-"):
                mean, half = (float(part) for part in middle.split(" ± "))
                low, high = max(mean - half, 0.0), min(mean + half, 100.0)
            else:
                low, high = stated[name]
            lead = interval(hits - own[REFERENCE][:, 0]) if name != REFERENCE and REFERENCE in own else ""
            mean, worst = 100 * hits.mean(), 100 * hits.min()
            print(f"| {title} | {name} | {mean:.1f} | {low:.1f} - {high:.1f} | {worst:.1f} | {lead} |")
    print()
    for title, (paths, _) in runs.items():
        notes = [n for run in paths for n in json.loads((run / "run.json").read_text(encoding="utf-8"))["notes"]]
        chosen = [note.split(" (")[0].split(": ", 1)[1] for note in notes if note.startswith("robust, ")]
        print(f"- {title}, robust chose: {', '.join(item for item in chosen if not item.startswith('Not adapted'))}.")
    print()


def main() -> None:
    """Make runs or print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("caches", type=Path)
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--models", nargs="+", default=[])
    run.add_argument("--settings", nargs="+", default=[own.name for own in SETTINGS])
    table = commands.add_parser("table")
    table.add_argument("runs", nargs="+", type=Path)
    asked = parser.parse_args()
    if asked.command == "table":
        for root in asked.runs:
            print_tables(root)
        return
    known = {own.name: own for own in SETTINGS}
    for name in asked.settings:
        make(known[name], asked.caches, asked.data, asked.out, tuple(asked.models))


if __name__ == "__main__":
    main()
