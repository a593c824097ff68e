"""`ball demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ball_features.cli.derive import command
from ball_features.cli.fit import print_run
from ball_features.cli.options import Quiet, Shown
from ball_features.cli.screen import echo, progress_bar, say
from ball_features.config.fields import LAST_SEED, Config, option

__all__ = ["COMMAND", "DemoOptions", "demo"]


@dataclass(frozen=True)
class DemoOptions(Config):
    """Options of `ball demo`."""

    out: Path = option(Path("artifacts/demo"), "Folder that images, cache and run are written into.")
    per_class: int = option(60, "Number of synthetic images per class.", low=1)
    seed: int = option(0, "Random seed of the synthetic images.", low=0, high=LAST_SEED)


def demo(options: DemoOptions, shown: Quiet) -> None:
    """Make a small set of synthetic smear images, then run extract and fit on it.

    No data, internet connection or account is needed.
    """
    from ball_features.demo import demo as run

    quiet = shown.quiet
    with progress_bar("Embedding", quiet) as embedding, progress_bar("Fitting", quiet, "fits") as fitting:
        log = (lambda line: None) if quiet else say
        result = run(
            options.out,
            per_class=options.per_class,
            seed=options.seed,
            log=log,
            embedding=embedding,
            fitting=fitting,
        )
    print_run(result.run, Shown(quiet=quiet))
    echo(f"Images: {result.images}\nCache: {result.cache}")
    echo(result.weights_note)


COMMAND = command(demo)
