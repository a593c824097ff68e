"""`ball inspect`."""

from __future__ import annotations

from dataclasses import dataclass

from ball_features.cli.derive import command
from ball_features.cli.options import CachePath, Shown
from ball_features.cli.screen import echo, print_json, show
from ball_features.config.fields import Config, option
from ball_features.config.toml import Repeat

__all__ = ["COMMAND", "InspectOptions", "inspect"]


@dataclass(frozen=True)
class InspectOptions(Config):
    """Options of `ball inspect`."""

    settings: bool = option(
        False, "Print the settings of the cache as a TOML file, which `ball extract --config` takes."
    )
    sites: bool = option(
        False, "Measure for each view whether neighbouring images share their class or their site (column site)."
    )


def inspect(cache: CachePath, options: InspectOptions, shown: Shown) -> None:
    """Show what a cache holds: images per class, views, provenance, rejected files, whether it is complete."""
    from ball_features.cache import read_cache
    from ball_features.reporting.inspection import describe, render_contents

    if options.sites:
        _inspect_sites(cache, shown)
        return
    found = read_cache(cache, embeddings=False)
    if options.settings:
        from ball_features.extraction.preprocessing import Preprocessing

        config = Preprocessing.from_attributes(found.attributes).to_config()
        echo(Repeat("extract", {"images": found.attributes["images"]}, config).text().rstrip())
    elif shown.as_json:
        print_json(describe(found, cache))
    else:
        show(render_contents(describe(found, cache)))


def _inspect_sites(path: CachePath, shown: Shown) -> None:
    from ball_features.reporting.site_table import measure_cache, render_sites
    from ball_features.runs.checks import complete_cache

    measured = measure_cache(complete_cache(path))
    if shown.as_json:
        print_json(measured)
    else:
        show(render_sites(measured))


COMMAND = command(inspect)
