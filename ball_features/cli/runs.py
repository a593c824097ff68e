"""`ball runs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import RunFolder, Shown
from ball_features.cli.screen import echo, print_json, show, width
from ball_features.config.fields import COMMON, Config, option

__all__ = ["COMMAND", "RunsOptions", "runs"]


@dataclass(frozen=True)
class RunsOptions(Config):
    """Options of `ball runs`."""

    sort: str = option(
        "name",
        "Column to sort by: name (try2 before try10), date, protocol, data, model, accuracy (the best first) or note.",
        panel=COMMON,
        choices=("name", "date", "protocol", "data", "model", "accuracy", "note"),
    )


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of the runs; artifacts/runs if left out.", show_default=False)],
    options: RunsOptions,
    shown: Shown,
) -> None:
    """List all runs of a folder: date, protocol, data, settings that differ, best model, note.

    External evaluations by `ball evaluate` follow: bundle, data, accuracy, note.
    Runs are looked for in the folders below too. A run that cannot be read is
    named and left out. Where the runs tested the same images, the accuracy of
    the best of them is corrected for having been chosen by these images.
    """
    from ball_features.reporting.evaluation_list import list_evaluations, render_evaluations
    from ball_features.reporting.run_list import differing, list_runs, sort_runs
    from ball_features.reporting.run_tables import render_runs
    from ball_features.reporting.run_tests import choice_of_runs, comparable_runs

    folder = folder or RunFolder().out
    found = list_runs(folder)
    evaluated = list_evaluations(folder, options.sort)
    listed, damaged = sort_runs(found.runs, options.sort), [*found.damaged, *evaluated.damaged]
    groups = comparable_runs([(run.name, run.folder) for run in listed], tests=False)
    if shown.as_json:
        values = {"runs": listed, "differing": differing(listed), "comparable": groups}
        values |= {"evaluations": [own.to_dict() for own in evaluated.evaluations]}
        print_json(values | {"damaged": [{"name": own.name, "reason": own.reason} for own in damaged]})
        return
    if listed:
        show(render_runs(listed, width()), quiet=shown.quiet)
        for note in () if shown.quiet else choice_of_runs(groups, len(listed)):
            echo(note)
    elif not evaluated.evaluations and not damaged:
        echo(f"No run in {folder}. `ball fit` writes runs, into artifacts/runs unless told otherwise.")
    if evaluated.evaluations:
        show(render_evaluations(evaluated.evaluations))
    for own in damaged:
        echo(f"Damaged: {own.name}: {own.reason}")


COMMAND = command(runs, optional=("folder",))
