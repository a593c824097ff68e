"""`ball inspect`."""

from __future__ import annotations

from ball_features.cli.options import CachePath, Json, Verbose
from ball_features.cli.root import app, console, print_json

__all__ = ["inspect"]


@app.command()
def inspect(
    cache: CachePath,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what a cache holds: images per class, views, provenance, rejected files, whether it is complete."""
    from ball_features.cache import read_cache
    from ball_features.reporting.inspection import describe, render_contents

    values = describe(read_cache(cache, embeddings=False), cache)
    if as_json:
        print_json(values)
    else:
        console().print(render_contents(values))
