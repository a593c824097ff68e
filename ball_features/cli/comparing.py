"""`ball compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.root import Json, Quiet, TestViews, TrainViews, Verbose, app, console, print_json, progress_bar
from ball_features.heads.registry import MODELS

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
    repeats: Annotated[
        int, typer.Option(help="How often the protocol is repeated, each time with another random seed.")
    ] = 5,
    folds: Annotated[int, typer.Option(help="Number of folds of a cross-validation (cv, group-cv, block-cv).")] = 5,
    groups: Annotated[
        Path | None,
        typer.Option(help="Groups file, such as `ball audit` writes: a CSV of path,group, whose groups no split cuts."),
    ] = None,
    group_column: Annotated[
        str, typer.Option(help="Column of --groups that a split keeps together; several joined with +.")
    ] = "auto",
    train_views: TrainViews = "auto",
    test_views: TestViews = "auto",
    seed: Annotated[int, typer.Option(help="Random seed of the splits and the models.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder that the run's own folder is written into.")] = Path(
        "artifacts/runs"
    ),
    name: Annotated[str, typer.Option(help="Name of this run's folder; protocol and time if left out.")] = "",
    jobs: Annotated[int, typer.Option(help="Number of models fitted at the same time; 0 uses every core.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare caches (networks, channels, recipes of views) on the same images and splits.

    One table, with a paired test of each line against the best.
    """
    from ball_features.config import FitConfig, split_names
    from ball_features.reporting.compare import compare as run
    from ball_features.reporting.compare import render_comparison

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
