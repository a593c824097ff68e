"""`ball tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.fit import print_run
from ball_features.cli.options import (
    CachePath,
    Combine,
    GroupColumn,
    Json,
    Quiet,
    RunsFolder,
    UsedChannels,
    Verbose,
)
from ball_features.cli.root import app, console, print_json, progress_bar

__all__ = ["tune"]


@app.command()
def tune(
    cache: CachePath,
    trials: Annotated[
        int, typer.Option(help="Number of settings to try; those of the student report are the first.")
    ] = 27,
    epochs: Annotated[int, typer.Option(help="Number of epochs of a full training.")] = 40,
    test_size: Annotated[float, typer.Option(help="Share of images in the test set, which chooses nothing.")] = 0.20,
    val_size: Annotated[
        float, typer.Option(help="Share of images in the validation set, which chooses the settings.")
    ] = 0.16,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="Groups file, such as `ball audit` writes: a CSV of path,group, whose groups the split does not cut."
        ),
    ] = None,
    group_column: GroupColumn = "auto",
    channels: UsedChannels = "",
    combine: Combine = "concat",
    seed: Annotated[int, typer.Option(help="Random seed of the split, the settings and the trainings.")] = 0,
    out: RunsFolder = Path("artifacts/runs"),
    name: Annotated[str, typer.Option(help="Name of this run's folder; time if left out.")] = "",
    jobs: Annotated[int, typer.Option(help="Number of trainings at the same time; 0 uses every core.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Search the head's settings: width, depth, dropout, learning rate, weight decay, batch, epochs, use of views.

    Validation images choose, in many short trainings of which the best third
    goes on (successive halving). The chosen head and that of the student report
    are then tested once, on images that chose nothing. Writes trials.csv and a
    run.
    """
    from ball_features.config import FitConfig, HeadConfig, split_names
    from ball_features.reporting.run_tables import render_trials
    from ball_features.runs.tune import tune as run

    config = FitConfig(
        test_size=test_size,
        val_size=val_size,
        groups=None if groups is None else str(groups),
        group_column=group_column,
        channels=split_names(channels),
        combine=combine,
        seed=seed,
        head=HeadConfig(epochs=epochs),
        jobs=jobs,
    )
    with progress_bar("Training", quiet or as_json, "heads") as progress:
        result, rows = run(cache, config, trials=trials, out_root=out, name=name or None, progress=progress)
    if as_json:
        values = {"run": str(result.folder), "trials": rows, "metrics": result.metrics, "notes": result.notes}
        print_json(values)
        return
    console().print(render_trials(rows))
    print_run(result, as_json=False)
