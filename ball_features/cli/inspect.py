"""`ball inspect`."""

from __future__ import annotations

from ball_features.cli.derive import command
from ball_features.cli.options import CachePath, Shown
from ball_features.cli.screen import print_json, show

__all__ = ["COMMAND", "inspect"]


def inspect(cache: CachePath, shown: Shown) -> None:
    """Show what a cache holds: images per class, views, provenance, rejected files, whether it is complete."""
    from ball_features.cache import read_cache
    from ball_features.reporting.inspection import describe, render_contents

    values = describe(read_cache(cache, embeddings=False), cache)
    if shown.as_json:
        print_json(values)
    else:
        show(render_contents(values))


COMMAND = command(inspect)
