"""`ball tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.fitting import print_run
from ball_features.cli.root import Json, Quiet, Verbose, app, console, print_json, progress_bar

__all__ = ["tune"]


@app.command()
def tune(
    cache: Annotated[Path, typer.Argument(help="A cache made by `ball extract`.", show_default=False)],
    trials: Annotated[int, typer.Option(help="Settings to try; the report's own are the first.")] = 27,
    epochs: Annotated[int, typer.Option(help="Of a full training.")] = 40,
    test_size: Annotated[float, typer.Option(help="Share of images in the test set, which chooses nothing.")] = 0.20,
    val_size: Annotated[float, typer.Option(help="Share of images that choose.")] = 0.16,
    groups: Annotated[Path | None, typer.Option(help="CSV with path,group: what the split keeps together.")] = None,
    group_column: Annotated[str, typer.Option(help="Column of --groups to use; several with +.")] = "auto",
    channels: Annotated[str, typer.Option(help="Channels of the cache to use, such as original,segmented.")] = "",
    combine: Annotated[str, typer.Option(help="Several channels: concat (behind one another) or mean.")] = "concat",
    seed: Annotated[int, typer.Option(help="Of the split, the settings and the trainings.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("artifacts/runs"),
    name: Annotated[str, typer.Option(help="Name of this run; time if left out.")] = "",
    jobs: Annotated[int, typer.Option(help="Trainings at once; 0 takes every core.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Search the head's settings: width, depth, dropout, learning rate, weight decay, batch, epochs, use of views.

    Validation images choose, by successive halving; the chosen head and the report's are then tested once, on images
    that chose nothing. Writes trials.csv and a run.
    """
    from ball_features.config import FitConfig, HeadConfig, split_names
    from ball_features.reporting.tuning import render_trials
    from ball_features.reporting.tuning import tune as run

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
