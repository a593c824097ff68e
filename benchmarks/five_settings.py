"""Every model of the product on five settings, for docs/shift.md: makes the runs from caches, then the tables.

    python benchmarks/five_settings.py run CACHES --data DATA --out RUNS [--models robust ...]
    python benchmarks/five_settings.py table RUNS [RUNS ...] [--fill benchmarks/left_out.md] > NEW.md

CACHES holds all.h5, hospitals.h5, malaria.h5 and augmented.h5, each made by `ball extract --recipe robust`, and
all_groups.csv, made by `ball audit` on the images of all.h5. DATA holds hospitals/sites.csv, malaria/patients.csv and
augmented/photographs.csv. A run holds the models that no earlier run of its setting holds, and the tables read all runs
of a setting together, which have the same test sets. `--fill` keeps what a page of tables holds and adds what it lacks:
to renew a cell, blank it there. Every figure is of images that no model was fitted on,
and what a model chooses (recipe, strength, epoch, adaptation) it chooses on training groups.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Tables:
    """What is printed of one network, by (title of the setting, model).

    Attributes:
        cells: accuracy and balanced recall.
        rows: interval, worst test set and lead over the reference.
        chosen: title of the setting -> recipes that `robust` chose.
    """

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: dict[tuple[str, str], str] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)

    def filled_by(self, other: Tables) -> Tables:
        """Return these tables with their blanks filled from others: what is there stays."""
        return Tables(other.cells | self.cells, other.rows | self.rows, other.chosen | self.chosen)


def tables_of(root: Path) -> Tables:
    """Tables of the runs of one network."""
    found = Tables()
    for setting in SETTINGS:
        paths, protocol, title = runs_of(root, setting), setting.protocol, setting.title
        own = {name: values for run in paths for name, values in sets_of(run, protocol).items()}
        stated = {name: both for run in paths for name, both in ends(run).items()}
        for name, values in own.items():
            accuracy, recall = 100 * values.mean(0)
            found.cells[title, name] = f"{accuracy:.1f} / {recall:.1f}"
            hits = values[:, 0]
            if protocol.startswith("leave-"):
                mean, half = (float(part) for part in interval(hits).split(" ± "))
                low, high = max(mean - half, 0.0), min(mean + half, 100.0)
            else:
                low, high = stated[name]
            lead = interval(hits - own[REFERENCE][:, 0]) if name != REFERENCE and REFERENCE in own else ""
            found.rows[title, name] = f"{accuracy:.1f} | {low:.1f} - {high:.1f} | {100 * hits.min():.1f} | {lead}"
        notes = [n for run in paths for n in json.loads((run / "run.json").read_text(encoding="utf-8"))["notes"]]
        chosen = [note.split(" (")[0].split(": ", 1)[1] for note in notes if note.startswith("robust, ")]
        chosen = [item for item in chosen if not item.startswith("Not adapted")]
        if chosen:
            found.chosen[title] = ", ".join(chosen)
    return found


def read_tables(page: Path) -> tuple[str, dict[str, Tables]]:
    """Read a page of printed tables: what precedes them, and the tables of each network."""
    head, *sections = page.read_text(encoding="utf-8").split("\n## ")
    networks = {}
    for section in sections:
        network, _, text = section.partition("\n")
        found = networks[network] = Tables()
        titles: list[str] = []
        for line in text.splitlines():
            parts = [part.strip() for part in line.strip("|").split("|")]
            if line.startswith("- "):
                title, _, recipes = line[2:].removesuffix(".").partition(", robust chose: ")
                found.chosen[title] = recipes
            elif line.startswith("| model |"):
                titles = parts[1:]
            elif parts[0] in MODELS:
                cells = zip(titles, parts[1:], strict=True)
                found.cells.update({(title, parts[0]): cell for title, cell in cells if cell})
            elif parts[0] in titles:
                found.rows[parts[0], parts[1]] = line.split(" | ", 2)[2].removesuffix(" |")
    return head, networks


def print_tables(network: str, found: Tables) -> None:
    """Print the tables of one network."""
    titles = [own.title for own in SETTINGS if any(own.title == title for title, _ in found.cells)]
    names = [name for name in MODELS if any((title, name) in found.cells for title in titles)]
    print(f"## {network}\n\nAccuracy / balanced recall, in %, mean over test sets:\n")
    print(f"| model | {' | '.join(titles)} |\n| --- |{' ---: |' * len(titles)}")
    for name in names:
        print(f"| {name} | {' | '.join(found.cells.get((title, name), '') for title in titles)} |")
    print(
        "\nAccuracy with its 95 % interval (groups left out: Student's over them; others: the run's own, by patient or "
        f"group), the worst test set, and the lead over {REFERENCE} on the same test sets with its interval:\n"
    )
    print("| setting | model | accuracy | 95 % | worst | lead |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for key in [(title, name) for title in titles for name in names]:
        if key in found.rows:
            print(f"| {' | '.join(key)} | {found.rows[key]} |")
    print()
    for title in titles:
        if title in found.chosen:
            print(f"- {title}, robust chose: {found.chosen[title]}.")


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
    table.add_argument("--fill", type=Path, help="page of earlier tables, whose blanks alone the runs fill")
    asked = parser.parse_args()
    if asked.command == "table":
        head, networks = read_tables(asked.fill) if asked.fill else ("", {})
        made = {root.name: tables_of(root) for root in asked.runs}
        for name in networks | made:
            print(head)
            print_tables(name, networks.get(name, Tables()).filled_by(made.get(name, Tables())))
            head = ""
        return
    known = {own.name: own for own in SETTINGS}
    for name in asked.settings:
        make(known[name], asked.caches, asked.data, asked.out, tuple(asked.models))


if __name__ == "__main__":
    main()
