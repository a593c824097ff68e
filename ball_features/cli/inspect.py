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
            help="Cache of embeddings, made by `ball extract`, or a saved model, RUN/models/MODEL.", show_default=False
        ),
    ],
    options: InspectOptions,
    shown: Shown,
) -> None:
    """Show what a cache holds: images per class, views, provenance, rejected files, whether it is complete.

    Of a saved model: its classes, how pictures are embedded for it, its origin
    and its figures.
    """
    folder = _is_folder(cache)
    if folder:
        _require_bundle(cache)
    if options.verify:
        _verify(cache, shown)
        return
    if folder:
        _inspect_bundle(cache, options, shown)
        return
    from ball_features.cache import read_cache
    from ball_features.reporting.inspection import describe, render_contents

    if options.sites:
        _inspect_sites(cache, shown)
        return
    found = read_cache(cache, embeddings=False)
    if options.settings:
        from ball_features.config.toml import Repeat
        from ball_features.extraction.preprocessing import Preprocessing

        config = Preprocessing.from_attributes(found.attributes).to_config()
        settings = Repeat("extract", {"images": found.attributes.get("images", "IMAGES")}, config).text()
        for line in settings.rstrip().split("\n"):
            echo(line)
    elif shown.as_json:
        print_json(describe(found, cache))
    else:
        show(render_contents(describe(found, cache)))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, which the reader of caches tells
        return False


def _require_bundle(folder: Path) -> None:
    """Raise `DataError` for a folder that is no saved model, with the command that suits it."""
    from ball_features.errors import DataError

    if (folder / "bundle.json").is_file():
        return
    named = shown_path(folder)
    saved = sorted(path.parent for path in folder.glob("models/*/bundle.json"))
    if (folder / "run.json").is_file() or saved:
        listed = " or ".join(f"`ball inspect {shown_path(path)}`" for path in saved[:3])
        raise DataError(
            f"Got the run {named}, expected a cache or a saved model. `ball report {named}` makes its page"
            + (f", {listed} shows a saved model of it." if saved else ".")
        )
    raise DataError(
        f"Got the folder {named}, expected the file of a cache or a saved model, RUN/models/MODEL. `ball extract` "
        "makes a cache from a folder of images."
    )


def _inspect_bundle(folder: Path, options: InspectOptions, shown: Shown) -> None:
    from ball_features.bundles.bundle import read_bundle
    from ball_features.errors import ConfigError
    from ball_features.reporting.bundle_contents import describe_bundle, render_bundle

    if options.settings or options.sites:
        flag = "--settings" if options.settings else "--sites"
        raise ConfigError(f"Got the saved model {shown_path(folder)}, expected a cache for {flag}. Leave {flag} out.")
    contents = describe_bundle(read_bundle(folder), folder)
    if shown.as_json:
        print_json(contents)
    else:
        show(render_bundle(contents))


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
