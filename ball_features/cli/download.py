"""`ball download`."""

from __future__ import annotations

import typer

from ball_features.cli.options import Verbose
from ball_features.cli.root import app, say

__all__ = ["download"]


@app.command()
def download(verbose: Verbose = False) -> None:
    """Fetch the public data set (Kaggle mehradaria/leukemia) with kagglehub, and check every file by its hash."""
    from ball_features.dataset.known import download as run

    manifest = run(log=say)
    typer.echo(f"{len(manifest.path)} images, every hash right: {manifest.root.parent}")
