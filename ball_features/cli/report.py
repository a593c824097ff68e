"""`ball report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import Quiet
from ball_features.cli.screen import echo, say
from ball_features.config.fields import Config, option

if TYPE_CHECKING:
    from ball_features.cache import Cache

__all__ = ["COMMAND", "ReportOptions", "report"]


@dataclass(frozen=True)
class ReportOptions(Config):
    """Options of `ball report`."""

    out: Path | None = option(
        None, "Write one page of all these runs, side by side, to this file.", short="o", stored="file"
    )
    cache: Path | None = option(None, "Cache that the run was made on, where it has moved.")
    thumbnails: Path | None = option(
        None, "Folder or archive of the images, to put small pictures of them into the page."
    )
    ladder: Path | None = option(None, "Run of the protocol ladder on the same images, for its figure on the page.")
    figures: Path | None = option(
        None,
        "Write the figures of one run into this folder too, with its table for LaTeX and as CSV, and captions.",
        stored="folder",
    )
    format: tuple[str, ...] = option(("svg", "pdf", "png"), "File formats of the figures.")


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, written by `ball fit`.", show_default=False)],
    options: ReportOptions,
    shown: Quiet,
) -> None:
    """Write report.html into each run, or one page of several: a file that opens offline.

    Without --thumbnails it holds no picture of an image, since data may not be
    passed on.
    """
    from ball_features.dataset.listing import printable
    from ball_features.dataset.manifest import open_images
    from ball_features.errors import ConfigError
    from ball_features.outputs import require_outside_bundles, require_writable
    from ball_features.reporting.joint import has_own_page, write_joint_report, write_own_report
    from ball_features.reporting.page import write_report
    from ball_features.reporting.paper import others_there, write_paper
    from ball_features.reporting.plot import check_formats

    check_formats(options.format)
    require_writable(options.out, "--out", kind="page", inputs=(options.cache,))
    if options.figures is not None and (len(runs) > 1 or has_own_page(runs[0]) or options.out is not None):
        raise ConfigError(
            "Got --figures with several runs, a ladder, a learning curve or --out, expected one run and nothing else."
        )
    if options.figures is not None:
        require_outside_bundles(options.figures, "--figures")
    pictures = None if options.thumbnails is None else open_images(options.thumbnails)
    tell = None if shown.quiet else say
    caches = [_cache_of(folder, options.cache, shown.quiet) for folder in runs]
    if options.out is not None:
        echo(f"Report: {write_joint_report(runs, options.out, caches, pictures, tell)}")
        return
    for folder, found in zip(runs, caches, strict=True):
        if has_own_page(folder):
            echo(f"Report: {write_own_report(folder)}")
            continue
        echo(f"Report: {write_report(folder, None, found, pictures, options.ladder, tell)}")
    if options.figures is not None:
        files = write_paper(runs[0], options.figures, options.format, caches[0], options.ladder)
        echo(f"Figures: {options.figures} ({len(files)} files)")
        others = others_there(options.figures, files)
        if others and not shown.quiet:
            say(f"{options.figures} also holds what is not of this run: {', '.join(map(printable, others))}.")


def _cache_of(folder: Path, moved: Path | None, quiet: bool) -> Cache | None:
    """The cache of a run as its models saw it; none of a comparison of several, or where it is gone."""
    from ball_features.cache import choose_channels, read_cache
    from ball_features.config.paths import is_address, shown_address
    from ball_features.errors import CacheError
    from ball_features.reporting.joint import has_own_page
    from ball_features.reporting.provenance import require_cache_of
    from ball_features.runs.kept_cache import kept_place
    from ball_features.runs.store import read_run

    if has_own_page(folder):
        return None
    details = read_run(folder).details
    if isinstance(details["cache"], list):
        return None
    place = moved or kept_place(details, folder)
    if moved is None and is_address(place):  # which somebody else may have put there
        if not quiet:
            say(
                f"{folder} was made on a cache under an address, {shown_address(place)}, which is opened only if you "
                "give it. The page has no map of the embeddings; with --cache ADDRESS it has."
            )
        return None
    try:
        found = read_cache(place)
        require_cache_of(details, found, str(place))
    except CacheError as error:
        if moved is not None:
            raise
        if not quiet:
            say(f"{error} The page has no map of the embeddings; where the cache has moved, give --cache.")
        return None
    return choose_channels(found, details["config"]["channels"], details["config"]["combine"])


COMMAND = command(report)
