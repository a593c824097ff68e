"""`ball compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.root import Json, Quiet, TestViews, TrainViews, Verbose, app, console, print_json, progress_bar

__all__ = ["compare"]


@app.command()
def compare(
    caches: Annotated[
        list[str],
        typer.Argument(
            help="Caches of the same images; CACHE.h5:original, :segmented, :original,segmented or :mean chooses "
            "channels.",
            show_default=False,
        ),
    ],
    protocol: Annotated[str, typer.Option(help="holdout, cv, group-cv, block-cv or leave-group-out.")] = "holdout",
    models: Annotated[str, typer.Option(help="Names with commas between.")] = "mlp,logistic,colour,histogram,nuclei",
    repeats: Annotated[int, typer.Option(help="Repeats of the protocol with another seed.")] = 5,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validations.")] = 5,
    groups: Annotated[Path | None, typer.Option(help="CSV with path,group: what a split keeps together.")] = None,
    group_column: Annotated[str, typer.Option(help="Column of --groups to use; several with +.")] = "auto",
    train_views: TrainViews = "auto",
    test_views: TestViews = "auto",
    seed: Annotated[int, typer.Option(help="Of splits and models.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("artifacts/runs"),
    name: Annotated[str, typer.Option(help="Name of this run; protocol and time if left out.")] = "",
    jobs: Annotated[int, typer.Option(help="Fits at once; 0 takes every core.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare caches (backbones, channels, recipes) on the same images and splits, in one table with paired tests."""
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
