"""`ball inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.root import Json, Verbose, app, console, print_json

__all__ = ["inspect"]


@app.command()
def inspect(
    cache: Annotated[Path, typer.Argument(help="Cache of embeddings, made by `ball extract`.", show_default=False)],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what a cache holds: images per class, views, provenance, rejected files, whether it is complete."""
    from ball_features.cache import read_cache
    from ball_features.reporting.inspection import describe, render_facts

    values = describe(read_cache(cache, embeddings=False), cache)
    if as_json:
        print_json(values)
    else:
        console().print(render_facts(values))
