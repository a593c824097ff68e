"""`ball merge`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import Shown
from ball_features.cli.screen import echo, print_json
from ball_features.config.fields import REQUIRED, Config, option
from ball_features.config.paths import shown_path

__all__ = ["COMMAND", "MergeOptions", "merge"]


@dataclass(frozen=True)
class MergeOptions(Config):
    """Options of `ball merge`."""

    out: Path = option(REQUIRED, "Cache to write; a file that exists is not replaced.", short="o")


def merge(
    shards: Annotated[
        list[Path], typer.Argument(help="Caches made by `ball extract --shard I/N`, all of them.", show_default=False)
    ],
    options: MergeOptions,
    shown: Shown,
) -> None:
    """Join the shards of one collection into one cache, as if it had been extracted in one run.

    Shards must be complete and made with the same settings. They stay as they are.
    """
    from ball_features.cache import merge as run

    done = run(shards, options.out)
    if shown.as_json:
        print_json(asdict(done) | {"cache": shown_path(done.cache)})
        return
    repeated = f", {done.repeated} of them in several shards" if done.repeated else ""
    what = f"{done.images} images from {done.shards} shards{repeated}, {done.rejected} files rejected"
    echo(f"{shown_path(done.cache)}: {what}")


COMMAND = command(merge)
