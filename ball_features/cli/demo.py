"""`ball demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.fit import print_run
from ball_features.cli.options import Quiet, Verbose
from ball_features.cli.root import app, progress_bar, say

__all__ = ["demo"]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder that images, cache and run are written into.")] = Path(
        "artifacts/demo"
    ),
    per_class: Annotated[int, typer.Option(help="Number of synthetic images per class.")] = 60,
    seed: Annotated[int, typer.Option(help="Random seed of the synthetic images.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a small set of synthetic smear images, then run extract and fit on it.

    No data, internet connection or account is needed.
    """
    from ball_features.demo import demo as run

    with progress_bar("Embedding", quiet) as embedding, progress_bar("Fitting", quiet, "fits") as fitting:
        log = (lambda line: None) if quiet else say
        result = run(out, per_class=per_class, seed=seed, log=log, embedding=embedding, fitting=fitting)
    print_run(result.run, as_json=False)
    typer.echo(f"Images: {result.images}\nCache: {result.cache}")
    typer.echo(result.weights_note)
