"""`ball report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.root import Verbose, app, say

__all__ = ["report"]


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders written by `ball fit`.", show_default=False)],
    cache: Annotated[Path | None, typer.Option(help="The cache, where it has moved.")] = None,
    verbose: Verbose = False,
) -> None:
    """Write report.html into each run: one file that opens offline, without any picture of an image."""
    from ball_features.cache import read_cache
    from ball_features.errors import CacheError
    from ball_features.reporting.page import write_report
    from ball_features.reporting.run import read_run

    for folder in runs:
        place = cache or Path(read_run(folder).details["cache"])
        try:
            found = read_cache(place)
        except CacheError:
            if cache is not None:
                raise
            say(f"No cache at {place}: the page has no map of the embeddings. Give --cache.")
            found = None
        typer.echo(f"Report: {write_report(folder, cache=found)}")
