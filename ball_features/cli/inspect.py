"""`ball inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import Shown
from ball_features.cli.screen import echo, print_json, say, show
from ball_features.config.fields import Config, option
from ball_features.config.paths import shown_path
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
    verify: bool = option(
        False,
        "Compare everything in the cache, or the files of a bundle, with their checksums; exit code 1 for damage.",
    )


def inspect(
    cache: Annotated[
        Path,
        typer.Argument(
            help="Cache of embeddings, made by `ball extract`; with --verify also a saved model.", show_default=False
        ),
    ],
    options: InspectOptions,
    shown: Shown,
) -> None:
    """Show what a cache holds: images per class, views, provenance, rejected files, whether it is complete."""
    if options.verify:
        _verify(cache, shown)
        return
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


def _inspect_sites(path: Path, shown: Shown) -> None:
    from ball_features.reporting.site_table import measure_cache, render_sites
    from ball_features.runs.checks import complete_cache

    measured = measure_cache(complete_cache(path))
    if shown.as_json:
        print_json(measured)
    else:
        show(render_sites(measured), quiet=shown.quiet)


def _verify(path: Path, shown: Shown) -> None:
    """Print what does not match its checksum, and end with exit code 1 where that is anything."""
    named = shown_path(path)
    if (path / "bundle.json").is_file():
        from ball_features.bundles.sums import changed_files

        changed = changed_files(path)
        checked, found = changed is not None, [f"{name} is not what was saved" for name in changed or ()]
        sound = f"{named}: every file matches its checksum"
    else:
        from ball_features.cache import verify_cache

        result = verify_cache(path)
        checked = result.checked
        found = [f"{name}: its numbers are not those that were written" for name in result.paths]
        if not result.index:
            found.append("texts, settings or structure are not those that were written")
        if not result.timing:
            found.append("the measured speed is not what was written")
        if result.unmarked:
            found.append(f"{result.unmarked} images are whole but not marked as computed")
        sound = f"{named}: all {result.images} images, texts and settings match their checksums"
    if shown.as_json:
        print_json({"path": named, "checksums": checked, "sound": not found, "damage": found})
    elif not checked and not found:
        echo(f"{named} was written without checksums, by an earlier version: nothing can be compared.")
    elif found:
        for line in found:
            echo(f"damaged  {line}")
        if not path.is_dir():
            say(f"Make again what is damaged, and only that: ball extract IMAGES --out {named} --repair")
    else:
        echo(sound)
    if found:
        raise typer.Exit(1)


COMMAND = command(inspect)
