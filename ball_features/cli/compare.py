"""`ball compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.options import (
    Folds,
    GroupColumn,
    Groups,
    Jobs,
    Json,
    Quiet,
    Repeats,
    RunName,
    RunsFolder,
    Seed,
    TestViews,
    TrainViews,
    Verbose,
)
from ball_features.cli.root import app, console, print_json, progress_bar
from ball_features.models.registry import MODELS

__all__ = ["compare"]


@app.command()
def compare(
    caches: Annotated[
        list[str],
        typer.Argument(
            help="Two or more caches of the same images. CACHE.h5:original, :segmented, :original,segmented or :mean "
            "chooses the channels of a cache.",
            show_default=False,
        ),
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="How images are divided: holdout (at random), cv (cross-validation), group-cv (of whole groups), "
            "block-cv (of runs of neighbouring files), leave-group-out (each series in turn)."
        ),
    ] = "holdout",
    models: Annotated[
        str, typer.Option(help=f"Models of the table, with commas between, of: {', '.join(MODELS)}.")
    ] = "mlp,logistic,colour,histogram,nuclei",
    repeats: Repeats = 5,
    folds: Folds = 5,
    groups: Groups = None,
    group_column: GroupColumn = "auto",
    train_views: TrainViews = "auto",
    test_views: TestViews = "auto",
    seed: Seed = 0,
    out: RunsFolder = Path("artifacts/runs"),
    name: RunName = "",
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare caches (networks, channels, recipes of views) on the same images and splits.

    One table, with a paired test of each line against the best.
    """
    from ball_features.config import FitConfig, split_names
    from ball_features.reporting.run_tables import render_comparison
    from ball_features.runs.compare import compare as run

    config = FitConfig(
        protocol=protocol,
        models=split_names(models),
        repeats=repeats,
        folds=folds,
        seed=seed,
        groups=None if groups is None else str(groups),
        group_column=group_column,
        train_views=train_views,
        test_views=test_views,
        jobs=jobs,
    )
    with progress_bar("Fitting", quiet or as_json, "fits") as progress:
        result, rows = run(caches, config, out_root=out, name=name or None, progress=progress)
    if as_json:
        values = {"run": str(result.folder), "rows": rows, "notes": result.notes}
        print_json(values)
        return
    screen = console()
    for note in result.notes:
        screen.print(note, markup=False)
    screen.print(render_comparison(rows, result.title, screen.width))
    typer.echo(f"Run: {result.folder}")
